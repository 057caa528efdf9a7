"""Any server with an OpenAI-compatible API, such as vLLM or SGLang, at a URL.

Such a server need not have a health endpoint, so its list of models is its sign of life. It tells neither its slots nor
its queue; the worker counts on the slots its settings name, if any. Its API has no way to go on in the middle of an
answer, so only the answers of a vLLM, which says in that list that it is one, are continued.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineCall,
    EngineUnavailableError,
    EngineUnsupportedError,
    Figures,
    ModelInfo,
    Observation,
)
from neurogate.engines.http import OPENAI_PATHS, HttpEngine
from neurogate.engines.payload import message_of
from neurogate.engines.resuming import request_of
from neurogate.engines.vllm_resume import OWNER, Rest, VllmResume
from neurogate.inference import Finished, GenerationEvent, Usage
from neurogate.prompt_api import UNDECODABLE

MODELS_PATH = "/v1/models"
METRICS_PATH = "/metrics"
_FIGURES_TIMEOUT_S = 1.0


class _Meta(msgspec.Struct):
    n_ctx: int | None = None
    n_params: int | None = None
    size: int | None = None
    ftype: str | None = None


class _Model(msgspec.Struct):
    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    meta: _Meta | None = None


class _ModelList(msgspec.Struct):
    data: list[_Model] = []


_LISTS = msgspec.json.Decoder(_ModelList, strict=False)


class OpenAIEngine(HttpEngine):
    """See the module."""

    _first_model = ""
    _is_vllm = False

    @property
    def kind(self) -> str:
        """`openai`."""
        return "openai"

    async def observe(self) -> Observation:
        """Ask for the models; a server that answers at all, but has no such list, serves the configured model."""
        try:
            status, body = await self._get(MODELS_PATH)
        except EngineUnavailableError as error:
            return Observation(ready=False, detail=str(error), slots_total=self._slots)
        if status not in {200, 404, 501}:
            return Observation(ready=False, detail=self._refused(status, body), slots_total=self._slots)
        models = models_of(body) if status == 200 else ()
        if not models and self._model:
            models = (ModelInfo(self._model),)
        self._first_model = models[0].name if models else ""
        self._is_vllm = status == 200 and owners_of(body) == {OWNER}
        return Observation(
            ready=True,
            models=models,
            slots_total=self._slots,
            canaries=False,  # it may be somebody's service, and cost money
            apis=self._paths - OPENAI_PATHS,
            resumes=OPENAI_PATHS if self._is_vllm else frozenset(),
        )

    async def figures(self) -> Figures:
        """Those of a vLLM; of other servers nobody knows what is in theirs."""
        if not self._is_vllm:
            return Figures()
        try:
            status, body = await self._get(METRICS_PATH, timeout_s=_FIGURES_TIMEOUT_S)
        except EngineUnavailableError:
            return Figures()
        return Figures(body) if status == 200 else Figures()

    async def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Continue an answer of a vLLM; see VllmResume."""
        if not self._is_vllm or call.path not in OPENAI_PATHS:
            raise EngineUnsupportedError(f"the engine at {self.shown_url} does not continue answers of {call.path}")
        request = request_of(call)
        rest = Rest(None, Usage())
        if said.text or said.finish_reason:
            rest = await VllmResume(self._exchange).rest(call, request, said)
            if rest.call is None:
                yield Finished(rest.before, said.finish_reason or "length", said.model, 0)
                return
            answer = self._answered(rest.call, said.model)
        else:
            answer = self._anew(call, request)
        async with aclosing(answer) as events:
            async for event in events:
                yield rest.whole(event) if rest.call is not None and isinstance(event, Finished) else event

    def _default_model(self) -> str:
        return self._model or self._first_model

    def _refused(self, status: int, body: bytes) -> str:
        check = ": check NEUROGATE_ENGINE_API_KEY" if status in {401, 403} else ""
        return f"the engine at {self.shown_url} answers HTTP {status} ({message_of(body) or 'no message'}){check}"


def owners_of(body: bytes) -> set[str]:
    """Whose the models in an OpenAI list are; empty when it is none."""
    try:
        return {model.owned_by for model in _LISTS.decode(body).data}
    except UNDECODABLE:
        return set()


def models_of(body: bytes) -> tuple[ModelInfo, ...]:
    """The models in an OpenAI list; empty when it is none."""
    try:
        listed = _LISTS.decode(body).data
    except UNDECODABLE:
        return ()
    return tuple(_model_of(model) for model in listed)


def _model_of(model: _Model) -> ModelInfo:
    """Of a model's data only llama.cpp tells anything."""
    meta = model.meta or _Meta()
    return ModelInfo(
        model.id,
        context_length=model.max_model_len or meta.n_ctx or 0,
        parameters=meta.n_params or 0,
        quantization=_quantization_of(meta.ftype or ""),
        size_bytes=meta.size or 0,
    )


def _quantization_of(ftype: str) -> str:
    """What llama.cpp calls `Q4_K - Medium`, in the words of files and of Ollama: Q4_K_M."""
    name, _, more = ftype.removeprefix("all ").partition(" ")
    size = next((size for size in ("Small", "Medium", "Large") if size in more), "")
    return f"{name}_{size[0]}" if size and (name, size) != ("Q2_K", "Medium") else name
