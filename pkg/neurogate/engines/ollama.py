"""Ollama at a URL: its OpenAI endpoints for clients' bytes, its native API for everything else.

Control calls go through the official client, tokens through aiohttp like everywhere. Two habits of Ollama need care: it
leaves out every duration and count that is zero, and once its answer has begun it reports an error as one more line
with the HTTP status still 200, or just stops. Only a line that says `done` ends an answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from neurogate.channel import Resume
from neurogate.engines import ollama_resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineReply,
    EngineUnavailableError,
    Figures,
    LoadedModel,
    ModelInfo,
    Observation,
)
from neurogate.engines.http import OBSERVE_TIMEOUT_S, OPENAI_PATHS, HttpEngine, refusal
from neurogate.engines.lost import reason_of
from neurogate.engines.ollama_lines import Line, lines
from neurogate.engines.payload import json_of
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage
from neurogate.model_names import LATEST
from neurogate.operations import OPERATIONS, Family

if TYPE_CHECKING:
    from ollama import AsyncClient, ListResponse, ProcessResponse

DEFAULT_URL = "http://localhost:11434"
USUAL_MODEL = "llama3.2"

_APIS = {"/v1/embeddings": (0, 1, 46), "/v1/responses": (0, 13, 3), "/v1/messages": (0, 14, 0)}
"""The release of Ollama that has them first."""
_LOGPROBS_SINCE = (0, 12, 11)
_IGNORED = frozenset({"n", "best_of", "echo", "grammar", "audio"})
_RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_UNRELEASED = (1 << 30,)
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

PATHS = OPENAI_PATHS | _APIS.keys() | {path for path, it in OPERATIONS.items() if it.family is Family.OLLAMA}
"""What is passed on; what an older Ollama has not, it refuses itself."""


BUSY_RETRY_S = 1.0
"""When to try a full Ollama again: its queue moves with every finished answer."""


class OllamaEngine(HttpEngine):
    """See the module."""

    _client: AsyncClient | None = None
    _version = ""
    _installed: tuple[str, ...] = ()
    _loaded: tuple[LoadedModel, ...] = ()

    def __init__(
        self,
        base_url: str,
        *,
        model: str = "",
        api_key: str = "",
        slots: int = 0,
        connect_timeout_s: float = 5.0,
        paths: frozenset[str] = PATHS,
    ) -> None:
        super().__init__(
            base_url, model=model, api_key=api_key, slots=slots, connect_timeout_s=connect_timeout_s, paths=paths
        )

    @property
    def kind(self) -> str:
        """`ollama`."""
        return "ollama"

    async def start(self) -> None:
        """Open the session and the control client; see HttpEngine.start."""
        await super().start()
        from ollama import AsyncClient

        self._client = AsyncClient(self._base_url, timeout=OBSERVE_TIMEOUT_S, trust_env=False)

    async def stop(self) -> None:
        """Close both."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()  # type: ignore[no-untyped-call]  # the package forgot the return type
        await super().stop()

    def _retry_after_s(self, status: int, told: bytes | None) -> float | None:
        """Ollama's 503 means a full queue and names no time; without one it would count as a failure of the worker."""
        seconds = super()._retry_after_s(status, told)
        return BUSY_RETRY_S if seconds is None and status == 503 else seconds

    async def observe(self) -> Observation:
        """Version, installed models and which of them are loaded; Ollama tells neither slots nor queue."""
        try:
            async with asyncio.timeout(OBSERVE_TIMEOUT_S):
                if not self._version:
                    self._version = await self._ask_version()
                installed, loaded = await self._ask_models()
        except EngineUnavailableError as error:
            return self._not_ready(str(error))
        except TimeoutError as error:
            return self._not_ready(self._unreachable(error))
        models = models_of(installed, loaded)
        self._installed = tuple(model.model for model in installed.models if model.model)
        self._loaded = loaded_of(loaded)
        if not models:
            said, version = f"Ollama has no model: run `ollama pull {self._model or USUAL_MODEL}`", self._version
            return replace(self._not_ready(said), version=version)
        release = release_of(self._version)
        return Observation(
            ready=True,
            version=self._version,
            models=models,
            slots_total=self._slots,
            canaries=False,  # each would renew the model's keep_alive
            apis=frozenset(path for path, since in _APIS.items() if release >= since),
            resumes=ollama_resume.PATHS & self._paths if release >= ollama_resume.SINCE else frozenset(),
            unsupported=_IGNORED if release >= _LOGPROBS_SINCE else _IGNORED | {"logprobs"},
        )

    async def figures(self) -> Figures:
        """What is in its memory, as of when it was observed last."""
        return Figures(loaded=self._loaded)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        """Generate text through `/api/chat`; see Engine.generate."""
        model = prompt.model or await self._pick_model()
        last: Line | None = None
        async with self._exchange(EngineCall("/api/chat", chat_body(prompt, model))) as reply:
            if reply.status != 200:
                raise await self._refusal(reply, model)
            async with aclosing(lines(reply)) as answer:
                async for line in answer:
                    if line.text:
                        yield Token(line.text)
                    if line.done:
                        last = line
        if last is None:
            raise EngineBrokenError("Ollama's answer ended before it was done")
        yield Finished(
            usage=Usage(prompt_tokens=last.prompt_eval_count, completion_tokens=last.eval_count),
            finish_reason=last.finish_reason,
            model=last.model or model,
            inference_time_ms=last.inference_ms,
        )

    async def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Continue an answer as a raw prompt; see OllamaResume."""
        async with aclosing(ollama_resume.OllamaResume(self._exchange).events(call, said)) as events:
            async for event in events:
                yield event

    def _where(self) -> str:
        return "NEUROGATE_ENGINE_URL or OLLAMA_URL"

    def _not_ready(self, detail: str) -> Observation:
        self._version = ""
        self._loaded = ()
        return Observation(ready=False, detail=detail, slots_total=self._slots)

    async def _ask_version(self) -> str:
        status, body = await self._get("/api/version")
        value = json_of(body) if status == 200 else None
        if not isinstance(value, dict):
            raise EngineUnavailableError(
                f"no Ollama answers at {self.shown_url} (HTTP {status}): check {self._where()}"
            )
        return str(value.get("version", ""))

    async def _ask_models(self) -> tuple[ListResponse, ProcessResponse]:
        import httpx
        from ollama import ResponseError

        if self._client is None:
            raise EngineUnavailableError("the engine ollama is not started")
        try:
            return await self._client.list(), await self._client.ps()
        except (ConnectionError, httpx.HTTPError) as error:
            raise EngineUnavailableError(self._unreachable(error)) from error
        except (ResponseError, ValueError) as error:
            raise EngineUnavailableError(f"Ollama does not list its models: {reason_of(error)}") from error

    async def _pick_model(self) -> str:
        if self._model:
            return self._model
        if not self._installed:
            await self.observe()
        usual = [name for name in self._installed if name.partition(":")[0] == USUAL_MODEL]
        names = [*usual, *self._installed]
        if not names:
            raise EngineRefusedError(404, f"Ollama has no model: run `ollama pull {USUAL_MODEL}`")
        return names[0]

    async def _refusal(self, reply: EngineReply, model: str) -> EngineRefusedError:
        error = await refusal(reply)
        if error.status == 404:
            return EngineRefusedError(404, f"Ollama has no model {model!r}: run `ollama pull {model}`")
        return error


def chat_body(prompt: Prompt, model: str) -> bytes:
    """A prompt as a native chat request; what the prompt leaves open is left out."""
    messages = [{"role": "user", "content": prompt.text}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    options: dict[str, float] = {}
    if prompt.max_tokens is not None:
        options["num_predict"] = prompt.max_tokens
    if prompt.temperature is not None:
        options["temperature"] = prompt.temperature
    body: dict[str, object] = {"model": model, "messages": messages, "stream": True}
    if options:
        body["options"] = options
    return msgspec.json.encode(body)


def models_of(installed: ListResponse, loaded: ProcessResponse) -> tuple[ModelInfo, ...]:
    """Every installed model, once under each name Ollama takes for it: `NAME:latest` also answers to `NAME`."""
    contexts = {model.model: model.context_length or 0 for model in loaded.models}
    return tuple(
        _info(model, alias, contexts)
        for model in installed.models
        if model.model
        for alias in dict.fromkeys((model.model, model.model.removesuffix(LATEST)))
    )


def loaded_of(loaded: ProcessResponse) -> tuple[LoadedModel, ...]:
    """The models in memory."""
    return tuple(
        LoadedModel(
            model.model,
            int(model.size or 0),
            int(model.size_vram or 0),
            model.expires_at.timestamp() if model.expires_at is not None else None,
        )
        for model in loaded.models
        if model.model
    )


def release_of(version: str) -> tuple[int, ...]:
    """A version as numbers to compare, `0.14.0-rc1` as 0.14.0; one that is built from source is `0.0.0` to itself."""
    found = _RELEASE.match(version)
    release = tuple(map(int, found.groups())) if found else ()
    return release if any(release) else _UNRELEASED


def parameters_of(size: str) -> int:
    """`3.2B` as a number; 0 for what is none."""
    try:
        return round(float(size[:-1]) * _UNITS[size[-1:].upper()])
    except (KeyError, ValueError, OverflowError):
        return 0


def _info(model: ListResponse.Model, alias: str, contexts: Mapping[str | None, int]) -> ModelInfo:
    details = model.details
    return ModelInfo(
        alias,
        loaded=model.model in contexts,
        context_length=contexts.get(model.model, 0),
        family=(details and details.family) or "",
        parameters=parameters_of((details and details.parameter_size) or ""),
        quantization=(details and details.quantization_level) or "",
        size_bytes=int(model.size or 0),
        digest=model.digest or "",
    )
