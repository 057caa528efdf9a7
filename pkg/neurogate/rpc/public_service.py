"""`llm.v1.LLMService` as a gateway answers it: protobuf in front of NeuroGate's own `POST /prompt`."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec
import structlog

from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.errors import BadRequestError, GatewayError
from neurogate.rpc.public_backend import IncomingRpc, PromptEvent, PublicBackend
from neurogate.rpc.status import status_of, trailers_of

ChooseId = Callable[[bytes], str]
"""The id of a request, given the one that its client offers, or nothing."""

AnyContext = grpc.aio.ServicerContext[Any, Any]

LLM_SERVICE = llm_pb2.DESCRIPTOR.services_by_name["LLMService"].full_name

_INT32_MAX = (1 << 31) - 1

_log = structlog.get_logger("neurogate.rpc")


def incoming(method: str, context: AnyContext, choose_id: ChooseId, *, offered_id: str = "") -> IncomingRpc:
    """A call as its context tells it."""
    metadata = tuple(context.invocation_metadata() or ())
    rpc = IncomingRpc(method, metadata, context.peer(), "", context.time_remaining())
    request_id = choose_id(offered_id.encode() or rpc.header("x-request-id"))
    return IncomingRpc(method, metadata, rpc.peer, request_id, rpc.time_left_s)


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


class PublicLLMServicer(llm_pb2_grpc.LLMServiceServicer):
    """`llm.v1.LLMService` of a gateway."""

    def __init__(self, backend: PublicBackend, choose_id: ChooseId, version: str) -> None:
        self._backend = backend
        self._choose_id = choose_id
        self._version = version

    async def GenerateText(  # noqa: N802 - gRPC's name
        self, request: llm_pb2.PromptRequest, context: AnyContext
    ) -> llm_pb2.PromptResponse:
        """The whole answer."""
        rpc = incoming(f"/{LLM_SERVICE}/GenerateText", context, self._choose_id, offered_id=request.request_id)
        async with telling(context, rpc):
            answer = await self._backend.answer(rpc, _body(request, stream=False), context.send_initial_metadata)
            return llm_pb2.PromptResponse(
                request_id=request.request_id or rpc.request_id,
                response=answer.response,
                prompt_tokens=_int32(answer.prompt_tokens),
                completion_tokens=_int32(answer.completion_tokens),
                total_tokens=_int32(answer.tokens),
                inference_time_ms=answer.inference_time_ms,
                model=answer.model,
                finish_reason=answer.finish_reason,
            )
        raise AssertionError("an error was told and not raised")  # `abort` raises

    async def StreamGenerateText(  # noqa: N802 - gRPC's name
        self, request: llm_pb2.PromptRequest, context: AnyContext
    ) -> None:
        """Tokens as they come; only the last message of a complete answer is `done`, and it carries the usage."""
        rpc = incoming(f"/{LLM_SERVICE}/StreamGenerateText", context, self._choose_id, offered_id=request.request_id)
        request_id = request.request_id or rpc.request_id

        async def write(event: PromptEvent) -> None:
            await context.write(_token_response(request_id, event))

        async with telling(context, rpc):
            await self._backend.stream(rpc, _body(request, stream=True), context.send_initial_metadata, write)

    async def HealthCheck(  # noqa: N802 - gRPC's name
        self, _: llm_pb2.HealthCheckRequest, __: AnyContext
    ) -> llm_pb2.HealthCheckResponse:
        """Whether any worker would take a request, and how busy they are together. Needs no key."""
        fleet = self._backend.fleet()
        return llm_pb2.HealthCheckResponse(
            healthy=fleet.healthy,
            load=fleet.load,
            active_requests=_int32(fleet.active_requests),
            version=self._version,
            ollama_connected=fleet.healthy,
        )


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
