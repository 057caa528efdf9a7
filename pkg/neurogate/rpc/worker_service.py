"""The gRPC server of a worker: the link, plain generation, the public LLMService, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from neurogate.errors import EngineFailedError, GatewayError
from neurogate.inference import Finished, Prompt, Token, Usage
from neurogate.rpc import link_over_grpc
from neurogate.rpc.back_door import BackDoor, client_of
from neurogate.rpc.backend import WorkerBackend
from neurogate.rpc.codec import event_to_wire, prompt_from_wire, report_to_wire
from neurogate.rpc.front import Front
from neurogate.rpc.http2.serving import OwnLinks
from neurogate.rpc.link_over_grpc import LinkContext
from neurogate.rpc.link_server import LinkServerSettings
from neurogate.rpc.link_sessions import LinkSessions
from neurogate.rpc.outbox import FRAME_BYTES
from neurogate.rpc.status import status_of

_WORKER = pb.DESCRIPTOR.services_by_name["Worker"].full_name
_LLM = llm_pb2.DESCRIPTOR.services_by_name["LLMService"].full_name

_ServerContext = grpc.aio.ServicerContext[object, object]


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """Bounds of a request that did not come over the link."""

    timeout_s: float = 300.0
    """Seconds for a request whose client names no deadline; waiting for the client to read counts."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """Largest answer held whole."""


class WorkerServicer(worker_pb2_grpc.WorkerServicer):
    """`neurogate.v1.Worker`."""

    def __init__(
        self,
        backend: WorkerBackend,
        settings: LinkServerSettings,
        limits: GenerationLimits,
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._backend = backend
        self._limits = limits
        self.links = LinkSessions(backend, settings, loop=loop)
        """Those of gateways, whoever carries them."""

    @property
    def sessions(self) -> int:
        """Gateways connected."""
        return len(self.links)

    @property
    def active(self) -> int:
        """Calls held for all of them."""
        return self.links.active

    def refresh(self) -> None:
        """Tell every gateway at once how the worker is."""
        self.links.refresh()

    async def flushed(self) -> None:
        """Wait until every gateway has been written what was said so far."""
        await self.links.flushed()

    async def Link(self, _: object, context: LinkContext) -> None:  # noqa: N802 - gRPC's name
        """One gateway's stream, until it goes."""
        await link_over_grpc.serve(self.links, context, client_of(context.peer()))

    async def Generate(  # noqa: N802 - gRPC's name
        self, request: pb.GenerateRequest, context: _ServerContext
    ) -> None:
        """Tokens as they come, then Finished."""
        tokens = 0
        async with (
            _answering(context, self._limits),
            aclosing(self._backend.generate(prompt_from_wire(request), request.request_id)) as events,
        ):
            async for event in events:
                tokens += isinstance(event, Token)
                await context.write(event_to_wire(event, tokens))

    async def GetStatus(self, _: pb.StatusRequest, __: _ServerContext) -> pb.WorkerStatus:  # noqa: N802 - gRPC's name
        """How the worker is, now."""
        return report_to_wire(self._backend.report())


class LLMServicer(llm_pb2_grpc.LLMServiceServicer):
    """`llm.v1.LLMService`."""

    def __init__(self, backend: WorkerBackend, limits: GenerationLimits) -> None:
        self._backend = backend
        self._limits = limits

    async def GenerateText(  # noqa: N802 - gRPC's name
        self, request: llm_pb2.PromptRequest, context: _ServerContext
    ) -> llm_pb2.PromptResponse:
        """The whole answer."""
        text: list[str] = []
        held = 0
        limit = self._limits.max_answer_bytes
        finished = Finished(usage=Usage(), finish_reason="", model="", inference_time_ms=0)
        async with (
            _answering(context, self._limits),
            aclosing(self._backend.generate(_public_prompt(request), request.request_id)) as events,
        ):
            async for event in events:
                if isinstance(event, Token):
                    text.append(event.text)
                    held += len(event.text.encode("utf-8", "replace"))
                    if held > limit:
                        raise EngineFailedError(f"the answer is larger than NEUROGATE_MAX_ANSWER_BYTES, {limit}")
                else:
                    finished = event
        return llm_pb2.PromptResponse(
            request_id=request.request_id,
            response="".join(text),
            prompt_tokens=finished.usage.prompt_tokens,
            completion_tokens=finished.usage.completion_tokens,
            total_tokens=finished.usage.total_tokens,
            inference_time_ms=finished.inference_time_ms,
            model=finished.model,
            finish_reason=finished.finish_reason,
        )

    async def StreamGenerateText(  # noqa: N802 - gRPC's name
        self, request: llm_pb2.PromptRequest, context: _ServerContext
    ) -> None:
        """Tokens as the engine says them; the last message carries the usage."""
        tokens = 0
        async with (
            _answering(context, self._limits),
            aclosing(self._backend.generate(_public_prompt(request), request.request_id)) as events,
        ):
            async for event in events:
                tokens += isinstance(event, Token)
                await context.write(_token_response(request.request_id, event, tokens))

    async def HealthCheck(  # noqa: N802 - gRPC's name
        self, _: llm_pb2.HealthCheckRequest, __: _ServerContext
    ) -> llm_pb2.HealthCheckResponse:
        """Whether the worker would take a request, and how busy it is."""
        report = self._backend.report()
        return llm_pb2.HealthCheckResponse(
            healthy=report.ready and not report.draining,
            load=min(1.0, report.slots_busy / max(1, report.slots_total)),
            active_requests=report.running + report.queued,
            version=report.version,
            ollama_connected=report.ready,
        )


class WorkerServer:
    """The listener: every service of a worker on one port."""

    def __init__(
        self,
        backend: WorkerBackend,
        settings: LinkServerSettings,
        *,
        max_message_bytes: int,
        limits: GenerationLimits = GenerationLimits(),
    ) -> None:
        loop = asyncio.get_running_loop()
        self.servicer = WorkerServicer(backend, settings, limits, loop=loop)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        # The limit is on bodies; a frame may carry many small ones whatever it is.
        max_message_bytes = max(max_message_bytes, 2 * FRAME_BYTES)
        self._links = OwnLinks(self.servicer.links, loop=loop, max_message_bytes=max_message_bytes)
        self._back_door = BackDoor()
        self._front = Front(self._back_door, self._links.welcome, loop=loop)
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),  # a second worker on the port must fail, not share it
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
            )
        )
        worker_pb2_grpc.add_WorkerServicer_to_server(self.servicer, self._server)  # type: ignore[no-untyped-call]
        llm_pb2_grpc.add_LLMServiceServicer_to_server(LLMServicer(backend, limits), self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((_WORKER, _LLM, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on host:port; port 0 takes a free one. In plain the port is ours, with credentials it is gRPC's.

        Returns the port. Raises OSError when it is taken.
        """
        try:
            if credentials is None:
                port = await self._front.listen(address)
                self._back_door.open(self._server)
            else:
                port = self._server.add_secure_port(address, credentials)
        except (OSError, RuntimeError) as error:
            self._front.close()
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise OSError(f"cannot listen on {address} (GRPC_PORT): {reason}") from error
        await self._server.start()
        await self._front.start()
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """What the health service answers, for the server and for each of its services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", _WORKER, _LLM):
            await self._health.set(service, status)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let plain ones finish for `grace_s`, then cut what is left."""
        self._front.close()
        await self._server.stop(grace_s)
        await self._links.stop()
        await self._front.stop()
        self._back_door.close()


def _public_prompt(request: llm_pb2.PromptRequest) -> Prompt:
    return Prompt(
        text=request.prompt,
        model=request.model,
        system=request.system_prompt,
        max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
        temperature=request.temperature if request.HasField("temperature") else None,
    )


def _token_response(request_id: str, event: Token | Finished, tokens: int) -> llm_pb2.TokenResponse:
    if isinstance(event, Token):
        return llm_pb2.TokenResponse(request_id=request_id, token=event.text, tokens_generated=tokens)
    return llm_pb2.TokenResponse(
        request_id=request_id,
        done=True,
        tokens_generated=event.usage.completion_tokens,
        prompt_tokens=event.usage.prompt_tokens,
        completion_tokens=event.usage.completion_tokens,
        inference_time_ms=event.inference_time_ms,
        model=event.model,
        finish_reason=event.finish_reason,
    )


@asynccontextmanager
async def _answering(context: _ServerContext, limits: GenerationLimits) -> AsyncIterator[None]:
    """Whatever happens inside is told as a status; it lasts until the client's deadline, or the worker's own."""
    remaining_s = cast("float | None", context.time_remaining())  # None when the client named none
    time_left = asyncio.timeout(limits.timeout_s if remaining_s is None else remaining_s)
    try:
        async with time_left:
            yield
    except GatewayError as error:
        await context.abort(status_of(error), error.message)
    except TimeoutError:
        if not time_left.expired():
            raise
        told = "the request's time ran out: name a longer deadline, or allow more with NEUROGATE_REQUEST_TIMEOUT_S"
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, told)
