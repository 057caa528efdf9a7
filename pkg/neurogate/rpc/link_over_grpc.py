"""A link that gRPC's own server carries: over TLS, and for gateways that do not say at once what they want."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.rpc.link_sessions import LinkSessions

LinkContext = grpc.aio.ServicerContext[pb.GatewayFrame, pb.WorkerFrame]


async def serve(sessions: LinkSessions, context: LinkContext, peer: str) -> None:
    """Serve until the gateway goes or the task is cancelled; either way every call is cancelled."""
    wire = _GrpcWire()
    session = sessions.open(wire, peer)
    try:
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(session.ended(), name="link-end"),  # raises what breaks the session
                tasks.create_task(wire.run(context, session.resume), name="link-write"),
            ]
            while True:
                frame = await context.read()
                if not isinstance(frame, pb.GatewayFrame):  # grpc.aio.EOF
                    break
                session.take(frame)
            for task in helpers:
                task.cancel()
    except* (grpc.aio.InternalError, grpc.aio.UsageError):
        pass  # the stream ended while something was being written to it
    finally:
        session.end()
        try:
            await session.ended()
        finally:
            sessions.close(session)


class _GrpcWire:
    """Holds one frame until gRPC has taken it."""

    def __init__(self) -> None:
        self._frame: pb.WorkerFrame | None = None
        self._wake = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self._frame is None

    def send(self, frame: pb.WorkerFrame) -> None:
        self._frame = frame
        self._wake.set()

    async def run(self, context: LinkContext, resume: Callable[[], None]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._frame is not None:
                await context.write(self._frame)
                self._frame = None
                resume()
