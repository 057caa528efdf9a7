"""llama.cpp's own HTTP API, as the simulated engine speaks it.

It says what `llama-server` says in the fields a client can rely on; what has no meaning here (samplers, grammars,
caches) is left out rather than made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from neurogate import __version__
from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import chat_template, openai_api, tokenizer
from neurogate.engines.sim.core import CONTEXT_TOKENS, Question, SimCore, SimRefusedError, Summary
from neurogate.engines.sim.http_answer import JsonEndpoint
from neurogate.engines.sim.openai_forms import timings
from neurogate.engines.sim.reply import Form, joined, read_json, reply
from neurogate.engines.sim.scheduler import Job
from neurogate.engines.sim.speech import json_of

_KINDS = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "invalid_request_error",
    503: "unavailable_error",
}


class CompletionRequest(msgspec.Struct, kw_only=True):
    """The body of /completion."""

    prompt: str | list[Any]
    n_predict: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    stream: bool | None = None
    ignore_eos: bool | None = None
    stop: openai_api.StopTexts = None
    json_schema: dict[str, Any] | None = None
    temperature: float | None = None


class InfillRequest(msgspec.Struct, kw_only=True):
    """The body of /infill."""

    input_prefix: str
    input_suffix: str
    input_extra: list[dict[str, Any]] | None = None
    prompt: str = ""
    n_predict: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    stream: bool | None = None
    ignore_eos: bool | None = None
    stop: openai_api.StopTexts = None
    temperature: float | None = None


class _TokenizeRequest(msgspec.Struct):
    content: str = ""
    with_pieces: bool = False


class _DetokenizeRequest(msgspec.Struct):
    tokens: list[int] = msgspec.field(default_factory=list)


class _TemplateRequest(msgspec.Struct):
    messages: Annotated[list[openai_api.Message], msgspec.Meta(min_length=1)]
    tools: list[openai_api.ToolSpec] | None = None


_COMPLETION = msgspec.json.Decoder(CompletionRequest)
_INFILL = msgspec.json.Decoder(InfillRequest)
_TOKENIZE = msgspec.json.Decoder(_TokenizeRequest)
_DETOKENIZE = msgspec.json.Decoder(_DetokenizeRequest)
_TEMPLATE = msgspec.json.Decoder(_TemplateRequest)


def refusal(error: SimRefusedError) -> bytes:
    """llama.cpp's error body."""
    kind = _KINDS.get(error.status, "server_error")
    if error.code == "exceed_context_size_error":
        kind = error.code
    return msgspec.json.encode({"error": {"code": error.status, "message": str(error), "type": kind}})


def completion(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /completion."""

    def opened() -> Form:
        request = read_json(_COMPLETION, body)
        says = None if request.json_schema is None else json_of(request.json_schema).text
        prompts = openai_api.prompt_texts(request.prompt)
        if len(prompts) > 1:
            raise SimRefusedError(400, "prompt: must be one", code="invalid_request", param="prompt")
        return _CompletionForm(core, request, prompts[0], says)

    return reply(core, opened, refusal)


def infill(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /infill: text for the place between a prefix and a suffix."""

    def opened() -> Form:
        request = read_json(_INFILL, body)
        extra = "".join(map(openai_api.mark_of, request.input_extra or ()))
        prompt = f"{extra}<|fim_prefix|>{request.input_prefix}{request.prompt}<|fim_suffix|>{request.input_suffix}"
        return _CompletionForm(core, request, prompt + "<|fim_middle|>", None)

    return reply(core, opened, refusal)


def tokenize(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /tokenize."""
    return reply(core, lambda: _tokenized(body), refusal)


def detokenize(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /detokenize."""
    return reply(core, lambda: _detokenized(body), refusal)


def apply_template(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /apply-template."""
    return reply(core, lambda: _templated(body), refusal)


def routes(core: SimCore) -> list[Route]:
    """What this API tells of the engine itself."""

    def told(path: str, tell: Callable[[SimCore, Mapping[str, str]], object]) -> Route:
        return Route(path, JsonEndpoint(lambda _, query: tell(core, query), refusal), methods=["GET"])

    async def metrics(request: Request) -> PlainTextResponse:
        del request
        return PlainTextResponse(figures(core), media_type="text/plain; version=0.0.4")

    return [
        told("/health", _health),
        told("/v1/health", _health),
        told("/v1/models", lambda core, _: openai_api.models(core)),
        told("/models", lambda core, _: openai_api.models(core)),
        told("/props", _props),
        told("/slots", _slots),
        Route("/metrics", metrics, methods=["GET"]),
    ]


class _CompletionForm:
    stream_type = "text/event-stream"

    def __init__(
        self, core: SimCore, request: CompletionRequest | InfillRequest, prompt: str, says: str | None
    ) -> None:
        question = Question(
            prompt,
            openai_api.limit_of(request.n_predict),
            ignore_eos=bool(request.ignore_eos),
            stop=openai_api.stops_of(request.stop),
            says=says,
        )
        self.questions = [question]
        self.streamed = bool(request.stream)
        self._model = core.model
        self._prompt_tokens = tokenizer.count(prompt)
        self._said = 0

    def opening(self) -> bytes:
        return b""

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        del choice
        return b"".join(map(self._token, tokens))

    def closing(self, summary: Summary) -> bytes:
        return _event(self._ended("", summary))

    def failure(self, message: str) -> bytes:
        return b"data: " + refusal(SimRefusedError(500, message, code="internal_error")) + b"\n\n"

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        return msgspec.json.encode(self._ended(joined(answers[0]), summary))

    def _token(self, token: bytes) -> bytes:
        self._said += 1
        text = token.decode()
        return _event(
            {
                "index": 0,
                "content": text,
                "tokens": tokenizer.encode(text),
                "stop": False,
                "id_slot": -1,
                "tokens_predicted": self._said,
                "tokens_evaluated": self._prompt_tokens,
            }
        )

    def _ended(self, text: str, summary: Summary) -> dict[str, Any]:
        usage, part = summary.usage, summary.parts[0]
        natural = "word" if part.stopped_by else "eos"
        return {
            "index": 0,
            "content": text,
            "tokens": [],
            "id_slot": summary.slot,
            "stop": True,
            "model": self._model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "prompt": self.questions[0].prompt,
            "has_new_line": False,
            "truncated": False,
            "stop_type": natural if part.finish_reason == "stop" else "limit",
            "stopping_word": part.stopped_by,
            "tokens_cached": usage.total_tokens,
            "timings": timings(summary),
        }


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _tokenized(body: bytes) -> bytes:
    request = read_json(_TOKENIZE, body)
    ids = tokenizer.encode(request.content)
    if not request.with_pieces:
        return msgspec.json.encode({"tokens": ids})
    pieces = tokenizer.pieces(request.content)
    return msgspec.json.encode(
        {"tokens": [{"id": number, "piece": piece} for number, piece in zip(ids, pieces, strict=True)]}
    )


def _detokenized(body: bytes) -> bytes:
    try:
        return msgspec.json.encode({"content": tokenizer.decode(read_json(_DETOKENIZE, body).tokens)})
    except ValueError as error:
        raise SimRefusedError(400, f"tokens: {error}", code="invalid_request") from error


def _templated(body: bytes) -> bytes:
    request = read_json(_TEMPLATE, body)
    return msgspec.json.encode({"prompt": openai_api.prompt_of(request.messages, request.tools)})


def _health(core: SimCore, query: Mapping[str, str]) -> object:
    del core, query
    return {"status": "ok"}


def _props(core: SimCore, query: Mapping[str, str]) -> object:
    del query
    return {
        "default_generation_settings": {"n_ctx": CONTEXT_TOKENS, "params": {"n_predict": -1, "stream": False}},
        "total_slots": len(core.scheduler.jobs),
        "model_alias": core.model,
        "model_path": core.model,
        "modalities": {"vision": True, "audio": False},
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": True,
        "chat_template": chat_template.TEMPLATE,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "build_info": f"neurogate-sim-{__version__}",
        "is_sleeping": False,
    }


def _slots(core: SimCore, query: Mapping[str, str]) -> object:
    scheduler = core.scheduler
    if query.get("fail_on_no_slot") and scheduler.busy == len(scheduler.jobs):
        raise SimRefusedError(503, "no slot available", code="engine_busy")
    return [_slot(number, job) for number, job in enumerate(scheduler.jobs)]


def _slot(number: int, job: Job | None) -> dict[str, Any]:
    slot: dict[str, Any] = {
        "id": number,
        "n_ctx": CONTEXT_TOKENS,
        "speculative": False,
        "is_processing": job is not None,
    }
    if job is not None:
        slot["next_token"] = [{"n_decoded": job.said, "n_remain": job.length - job.said}]
    return slot


def figures(core: SimCore) -> str:
    """Its metrics in Prometheus' text format."""
    scheduler = core.scheduler
    totals = scheduler.totals
    counters = [
        ("prompt_tokens_total", "Prompt tokens processed.", totals.prompt_tokens),
        ("prompt_seconds_total", "Seconds spent processing prompts.", totals.prompt_s),
        ("tokens_predicted_total", "Tokens generated.", totals.decoded_tokens),
        ("tokens_predicted_seconds_total", "Seconds spent generating, of requests that ended.", totals.decoded_s),
        ("n_decode_total", "Decode steps.", totals.steps),
        ("n_tokens_max", "Longest sequence seen, in tokens.", totals.sequence_tokens_max),
    ]
    gauges = [
        ("prompt_tokens_seconds", "Average prompt tokens a second.", _rate(totals.prompt_tokens, totals.prompt_s)),
        ("predicted_tokens_seconds", "Average tokens a second.", _rate(totals.decoded_tokens, totals.decoded_s)),
        ("requests_processing", "Requests that have a slot.", scheduler.busy),
        ("requests_deferred", "Requests that wait for a slot.", scheduler.queued),
        ("n_busy_slots_per_decode", "Average busy slots a step.", _rate(totals.decoded_tokens, totals.steps)),
    ]
    lines = []
    for kind, metrics in (("counter", counters), ("gauge", gauges)):
        for name, text, value in metrics:
            lines += [f"# HELP llamacpp:{name} {text}", f"# TYPE llamacpp:{name} {kind}", f"llamacpp:{name} {value}"]
    return "\n".join([*lines, ""])


def _rate(amount: float, over: float) -> float:
    return amount / over if over else 0.0
