"""llama.cpp's own HTTP server at a URL, which tells how it is far better than the OpenAI API can.

What cannot change while the server lives (version, slots, models, APIs) is asked once per life; a second without health
begins a new life. The load comes from `/metrics`, else from `/slots`; both can be switched off in the server and both
wait for the current decode step, so an answer that is missing or late leaves the load unknown and the server ready.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import msgspec
from msgspec import structs

from neurogate.channel import Resume
from neurogate.engines.connection import Connection
from neurogate.engines.engine import (
    EngineCall,
    EngineRefusedError,
    EngineReply,
    EngineUnavailableError,
    EngineUnsupportedError,
    Figures,
    ModelInfo,
    Observation,
)
from neurogate.engines.folding import folded, streamed
from neurogate.engines.http import (
    CHAT_PATH,
    ERROR_BYTES_MAX,
    OBSERVE_TIMEOUT_S,
    OPENAI_PATHS,
    STREAM_TYPE,
    once,
    read_reply,
)
from neurogate.engines.llama_apis import apis_of, ignored_by
from neurogate.engines.llama_resume import LlamaResume
from neurogate.engines.openai import MODELS_PATH, OpenAIEngine, models_of
from neurogate.engines.payload import json_of, message_of
from neurogate.engines.resuming import request_of
from neurogate.inference import GenerationEvent
from neurogate.prompt_api import UNDECODABLE

_STEP_TOKENS = 2048
"""At most so many tokens of a prompt are one step to its counters, unless it was told otherwise."""
_FIGURE = re.compile(rb"^llamacpp:(\w+) ([0-9.e+]+)$", re.MULTILINE)
_WORK = (b"n_decode_total", b"tokens_predicted_total", b"spec_decode_num_draft_tokens_total")
"""Counters that grow with everything the server computes: steps, those over the batches of a prompt too, and what
speculation saves of them."""


class _Generation(msgspec.Struct):
    n_ctx: int = 0


class _Props(msgspec.Struct):
    total_slots: int = 0
    build_info: str = ""
    model_alias: str = ""
    model_path: str = ""
    chat_template: str = ""
    default_generation_settings: _Generation = msgspec.field(default_factory=_Generation)


_PROPS = msgspec.json.Decoder(_Props, strict=False)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What holds for one life of the server."""

    version: str
    slots: int
    models: tuple[ModelInfo, ...]
    apis: frozenset[str]
    unsupported: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Load:
    """What the server does now; None for what it does not tell."""

    busy: int | None = None
    queued: int | None = None
    work_done: int | None = None
    prompt_tokens_per_s: float | None = None


_CLIENTS_FAULT = re.compile(
    r"Failed to parse |\w+ input is not supported|input \(\d+ tokens\) is too large|'\w+' is required"
    r"|vector::_M_range_check"
)
"""How llama.cpp begins its message when the request is wrong. It answers 500 then, as if it had failed itself."""

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
_LIMITED_PATHS = frozenset({CHAT_PATH, "/v1/completions", "/v1/responses", "/v1/messages"})
_NO_TOKENS = re.compile(rb'"(?:%s)"\s*:\s*-?0' % "|".join(_LIMITS).encode())
"""What a request for no tokens looks like, before its JSON is read: few others have this."""


class LlamaServerEngine(OpenAIEngine):
    """See the module."""

    _reuses_connections = False
    _facts: _Facts | None = None
    _without: frozenset[str] = frozenset()
    """APIs that are not to be used, though the server has them."""
    _figures = b""
    """What `/metrics` said when it was observed last."""

    @property
    def kind(self) -> str:
        """`llama-server`."""
        return "llama-server"

    async def _judged(self, reply: EngineReply, connection: Connection) -> EngineReply:
        reply = await super()._judged(reply, connection)
        return await _blamed(reply) if reply.status == 500 else reply

    @asynccontextmanager
    async def forward(self, call: EngineCall) -> AsyncGenerator[EngineReply, None]:
        """Send the client's bytes and give the engine's back; a whole answer is read as a stream, see folding.

        Raises EngineRefusedError for a request for no tokens: llama.cpp always generates one.
        """
        if _NO_TOKENS.search(call.body) and call.path in _LIMITED_PATHS:
            _check_limit(json_of(call.body))
        stream = streamed(call)
        async with super().forward(stream or call) as reply:
            if stream is None or reply.content_type != STREAM_TYPE:
                yield reply
            else:
                async with aclosing(folded(reply.body, call.max_answer_bytes)) as body:
                    yield structs.replace(reply, content_type="application/json", body=body)

    async def observe(self) -> Observation:
        """Health first, then what it serves, then its load; all within 2 s."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + OBSERVE_TIMEOUT_S
        try:
            status, body = await self._get("/health")
            if status != 200:
                self._facts = None
                return replace(self._not_ready(message_of(body) or f"HTTP {status}"), loading=status == 503)
            facts = self._facts or await self._learn(deadline)
        except EngineUnavailableError as error:
            self._facts = None
            return self._not_ready(str(error))
        if isinstance(facts, str):
            return self._not_ready(facts)
        self._facts = facts
        self._paths = OPENAI_PATHS | facts.apis
        self._first_model = facts.models[0].name if facts.models else ""
        load = await self._load(deadline)
        return Observation(
            ready=True,
            version=facts.version,
            models=facts.models,
            slots_total=facts.slots,
            slots_busy=load.busy,
            queued=load.queued,
            work_done=load.work_done,
            step_tokens=_STEP_TOKENS,
            prompt_tokens_per_s=load.prompt_tokens_per_s,
            canaries=len(facts.models) == 1,  # with several, one canary after the other would load them in turn
            apis=facts.apis,
            resumes=OPENAI_PATHS if "/apply-template" in facts.apis else OPENAI_PATHS - {CHAT_PATH},
            unsupported=facts.unsupported,
        )

    async def figures(self) -> Figures:
        """Those it was observed by: asking again would wait for its next decode step."""
        return Figures(self._figures)

    async def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Continue an answer of chat or completions as llama.cpp itself would go on; see LlamaResume."""
        if call.path not in OPENAI_PATHS:
            raise EngineUnsupportedError(f"the engine {self.kind} does not continue answers of {call.path}")
        if said.text or said.finish_reason:
            template = self._facts.models[0].template if self._facts and self._facts.models else ""
            events = LlamaResume(self._exchange, template).events(call, said)
        else:
            events = self._anew(call, request_of(call))
        async with aclosing(events) as going_on:
            async for event in going_on:
                yield event

    async def _learn(self, deadline: float) -> _Facts | str:
        """What the server serves, or why it does not tell."""
        loop = asyncio.get_running_loop()
        props_status, props_body = await self._get("/props", timeout_s=deadline - loop.time())
        models_status, models_body = await self._get(MODELS_PATH, timeout_s=deadline - loop.time())
        for status, body in ((props_status, props_body), (models_status, models_body)):
            if status in {401, 403, 503}:
                return self._refused(status, body)
        try:
            props = _PROPS.decode(props_body) if props_status == 200 else _Props()
        except UNDECODABLE:
            return f"the server at {self.shown_url} answers /props with something else: is it a llama-server?"
        models = models_of(models_body) or (ModelInfo(props.model_alias or self._model),)
        context = props.default_generation_settings.n_ctx

        async def post(path: str, body: bytes) -> tuple[int, bytes]:
            return await self._post(path, body, timeout_s=deadline - loop.time())

        apis = await apis_of(post) - self._without
        return _Facts(
            version=props.build_info,
            slots=props.total_slots or self._slots,
            models=tuple(
                replace(model, context_length=context or model.context_length, template=props.chat_template)
                for model in models
            ),
            apis=apis,
            unsupported=await ignored_by(post, apis),
        )

    async def _load(self, deadline: float) -> _Load:
        """How much it does, as far as it tells."""
        loop = asyncio.get_running_loop()
        try:
            status, body = await self._get("/metrics", timeout_s=deadline - loop.time())
            self._figures = body if status == 200 else b""
            if status == 200:
                figures = dict(_FIGURE.findall(body))
                work = [count for name in _WORK if (count := _whole(figures.get(name))) is not None]
                return _Load(
                    _whole(figures.get(b"requests_processing")),
                    _whole(figures.get(b"requests_deferred")),
                    sum(work) if work else None,
                    _rate(figures.get(b"prompt_tokens_total"), figures.get(b"prompt_seconds_total")),
                )
            status, body = await self._get("/slots", timeout_s=deadline - loop.time())
        except EngineUnavailableError:
            self._figures = b""
            return _Load()
        slots = json_of(body) if status == 200 else None
        if not isinstance(slots, list):
            return _Load()
        return _Load(sum(bool(slot.get("is_processing")) for slot in slots if isinstance(slot, dict)))

    def _not_ready(self, detail: str) -> Observation:
        self._figures = b""
        return Observation(ready=False, detail=detail, slots_total=self._slots)


def _number(value: bytes | None) -> float | None:
    """A figure; None for what is none."""
    try:
        number = float(value or b"")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: bytes | None) -> int | None:
    """A figure that counts; None for what is none."""
    number = _number(value)
    return None if number is None else int(number)


def _rate(tokens: bytes | None, seconds: bytes | None) -> float | None:
    """Tokens a second; None before there are any."""
    count, took_s = _number(tokens), _number(seconds)
    return count / took_s if count and took_s else None


async def _blamed(reply: EngineReply) -> EngineReply:
    """A 500 that blames the request becomes the 400 it is, or three bad requests would open a good worker's breaker."""
    body = await read_reply(reply, ERROR_BYTES_MAX)
    message = message_of(body)
    if not _CLIENTS_FAULT.match(message):
        return structs.replace(reply, body=once(body))
    error = {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
    return EngineReply(400, "application/json", once(msgspec.json.encode(error)))


def _check_limit(request: object) -> None:
    if isinstance(request, dict):
        for name in _LIMITS:
            if isinstance(request.get(name), int | float) and request[name] == 0:
                raise EngineRefusedError(400, f"{name}: must be at least 1, llama.cpp always generates a token")
