"""`llm.v1.LLMService` as a gateway answers it: protobuf in front of NeuroGate's own `POST /prompt`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec
import structlog
from google.protobuf.message import DecodeError

from neurogate.api.llm.v1 import llm_pb2
from neurogate.errors import BadRequestError, GatewayError
from neurogate.prompt_api import PromptAnswer
from neurogate.rpc.public_backend import IncomingRpc, PromptEvent, PublicBackend
from neurogate.rpc.status import status_of, trailers_of

ChooseId = Callable[[bytes], str]
"""The id of a request, given the one that its client offers, or nothing."""

AnyContext = grpc.aio.ServicerContext[Any, Any]
BytesContext = grpc.aio.ServicerContext[bytes, bytes]

LLM_SERVICE = llm_pb2.DESCRIPTOR.services_by_name["LLMService"].full_name

_INT32_MAX = (1 << 31) - 1

_log = structlog.get_logger("neurogate.rpc")


def incoming(method: str, context: AnyContext, choose_id: ChooseId) -> IncomingRpc:
    """A call as its context tells it."""
    metadata = tuple(context.invocation_metadata() or ())
    rpc = IncomingRpc(method, metadata, context.peer(), "", context.time_remaining())
    rpc.request_id = choose_id(rpc.header("x-request-id"))
    return rpc


@asynccontextmanager
async def telling(context: AnyContext, rpc: IncomingRpc) -> AsyncIterator[None]:
    """Errors inside are told to the client as a status."""
    try:
        yield
    except GatewayError as error:
        log = _log.warning if error.status >= 500 else _log.info
        log("gRPC call failed", method=rpc.method, request_id=rpc.request_id, code=error.code, error=error.message)
        await context.abort(status_of(error), error.message, trailers_of(error, rpc.request_id))
    except grpc.aio.BaseError:
        raise  # the call ended while something was written to it: gRPC knows
    except Exception:  # noqa: BLE001 - gRPC would tell the client its text; it is logged here
        _log.exception("gRPC call failed in the gateway", method=rpc.method, request_id=rpc.request_id)
        bug = GatewayError("internal error; the gateway's log has the details")
        await context.abort(status_of(bug), bug.message, trailers_of(bug, rpc.request_id))


_MESSAGE_TIMEOUT_S = 10.0
"""For the message of a health check."""


class PublicLLMService:
    """`llm.v1.LLMService` of a gateway. To gRPC its methods are streams of bytes, so that it reads none ahead of us."""

    def __init__(self, backend: PublicBackend, choose_id: ChooseId, version: str) -> None:
        self._backend = backend
        self._choose_id = choose_id
        self._version = version

    def handlers(self) -> grpc.GenericRpcHandler:  # type: ignore[type-arg] # it has no type arguments when it runs
        """What a server is given."""
        methods = {
            "GenerateText": self._generate_text,
            "StreamGenerateText": self._stream_generate_text,
            "HealthCheck": self._health_check,
        }
        return grpc.method_handlers_generic_handler(
            LLM_SERVICE,
            {name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()},
        )

    async def _generate_text(self, _: object, context: BytesContext) -> None:
        """The whole answer."""
        rpc = incoming(f"/{LLM_SERVICE}/GenerateText", context, self._choose_id)
        question = _Question(rpc, context, self._choose_id, stream=False)

        async def write(answer: PromptAnswer) -> int:
            message = _prompt_response(question.request_id, answer).SerializeToString()
            await context.write(message)
            return len(message)

        async with telling(context, rpc):
            await self._backend.answer(rpc, question.read, context.send_initial_metadata, write)

    async def _stream_generate_text(self, _: object, context: BytesContext) -> None:
        """Tokens as they come; only the last message of a complete answer is `done`, and it carries the usage."""
        rpc = incoming(f"/{LLM_SERVICE}/StreamGenerateText", context, self._choose_id)
        question = _Question(rpc, context, self._choose_id, stream=True)

        async def write(event: PromptEvent) -> int:
            message = _token_response(question.request_id, event).SerializeToString()
            await context.write(message)
            return len(message)

        async with telling(context, rpc):
            await self._backend.stream(rpc, question.read, context.send_initial_metadata, write)

    async def _health_check(self, _: object, context: BytesContext) -> None:
        """Whether any worker would take a request, and how busy they are together. Needs no key.

        The message tells nothing, but it is read: a call that ends before is reset, and the reset may overtake the end.
        """
        try:
            async with asyncio.timeout(_MESSAGE_TIMEOUT_S):
                await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no message within {_MESSAGE_TIMEOUT_S:g} s")
        fleet = self._backend.fleet()
        told = llm_pb2.HealthCheckResponse(
            healthy=fleet.healthy,
            load=fleet.load,
            active_requests=_int32(fleet.active_requests),
            version=self._version,
            ollama_connected=fleet.healthy,
        )
        await context.write(told.SerializeToString())


class _Question:
    """The one message of a prompt's call."""

    def __init__(self, rpc: IncomingRpc, context: BytesContext, choose_id: ChooseId, *, stream: bool) -> None:
        self._rpc = rpc
        self._context = context
        self._choose_id = choose_id
        self._stream = stream
        self._offered_id = ""

    @property
    def request_id(self) -> str:
        """What the client called it, word for word; else the call's id."""
        return self._offered_id or self._rpc.request_id

    async def read(self, take: Callable[[int], None]) -> bytes:
        """A `Read`. An id in the message becomes the call's."""
        message = await self._context.read()
        if not isinstance(message, bytes):
            raise BadRequestError("the call has no message; send one llm.v1.PromptRequest")
        take(len(message))
        try:
            request = llm_pb2.PromptRequest.FromString(message)
        except DecodeError as error:
            raise BadRequestError(f"the message is no llm.v1.PromptRequest: {error}") from error
        if request.request_id:
            self._offered_id = request.request_id
            self._rpc.request_id = self._choose_id(request.request_id.encode())
        return _body(request, stream=self._stream)


def _body(request: llm_pb2.PromptRequest, *, stream: bool) -> bytes:
    """The request as `POST /prompt` takes it, where its fields are checked."""
    if not request.prompt:
        raise BadRequestError("prompt: is required", param="prompt")
    if not math.isfinite(request.temperature):
        raise BadRequestError("temperature: must be a number", param="temperature")
    fields: dict[str, object] = {"query": request.prompt, "stream": stream}
    if request.model:
        fields["model"] = request.model
    if request.HasField("max_tokens"):
        fields["max_tokens"] = request.max_tokens
    if request.HasField("temperature"):
        fields["temperature"] = request.temperature
    if request.system_prompt:
        fields["system_prompt"] = request.system_prompt
    return msgspec.json.encode(fields)


def _prompt_response(request_id: str, answer: PromptAnswer) -> llm_pb2.PromptResponse:
    return llm_pb2.PromptResponse(
        request_id=request_id,
        response=answer.response,
        prompt_tokens=_int32(answer.prompt_tokens),
        completion_tokens=_int32(answer.completion_tokens),
        total_tokens=_int32(answer.tokens),
        inference_time_ms=answer.inference_time_ms,
        model=answer.model,
        finish_reason=answer.finish_reason,
    )


def _token_response(request_id: str, event: PromptEvent) -> llm_pb2.TokenResponse:
    if not event.done:
        return llm_pb2.TokenResponse(
            request_id=request_id, token=event.token, tokens_generated=_int32(event.tokens_generated)
        )
    return llm_pb2.TokenResponse(
        request_id=request_id,
        done=True,
        tokens_generated=_int32(event.completion_tokens),
        prompt_tokens=_int32(event.prompt_tokens),
        completion_tokens=_int32(event.completion_tokens),
        inference_time_ms=event.inference_time_ms,
        model=event.model,
        finish_reason=event.finish_reason,
    )


def _int32(number: int) -> int:
    return min(max(0, number), _INT32_MAX)
