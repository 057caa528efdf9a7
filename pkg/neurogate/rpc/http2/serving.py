"""The links that a worker serves by itself."""

from __future__ import annotations

import asyncio

import grpc
import structlog

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.server import ServerCall
from neurogate.rpc.link_sessions import LinkSessions

_STOP_S = 1.0
"""How long the end may take, of calls and of what is under way to gateways."""

_log = structlog.get_logger("neurogate.link")


class OwnLinks:
    """Serves links on connections that begin with one."""

    def __init__(self, sessions: LinkSessions, *, loop: asyncio.AbstractEventLoop, max_message_bytes: int) -> None:
        self._sessions = sessions
        self._loop = loop
        self._max_message_bytes = max_message_bytes
        self._links: dict[asyncio.Task[None], _Link] = {}

    def welcome(self, transport: asyncio.Transport, first: bytes, peer: str) -> None:
        """Serve the link on this connection; `first` is what was read of it."""
        link = _Link(self._sessions, peer, loop=self._loop, max_message_bytes=self._max_message_bytes)
        transport.set_protocol(link.call)
        link.call.connection_made(transport)
        link.call.data_received(first)
        task = self._loop.create_task(link.run(), name=f"link {peer}")
        self._links[task] = link
        task.add_done_callback(self._links.pop)

    async def stop(self) -> None:
        """End every link, as one that the gateway should open again elsewhere. Idempotent."""
        links = dict(self._links)
        for link in links.values():
            link.leave()
        if links:
            await asyncio.wait(links, timeout=_STOP_S)
        for link in links.values():
            link.call.abort()


class _Link:
    """One link: its call's owner and its session's wire."""

    def __init__(
        self, sessions: LinkSessions, peer: str, *, loop: asyncio.AbstractEventLoop, max_message_bytes: int
    ) -> None:
        self.call = ServerCall(self, loop=loop, max_message_bytes=max_message_bytes)
        self._sessions = sessions
        self._session = sessions.open(self, peer)

    async def run(self) -> None:
        """Until the link is over and its connection closed."""
        try:
            await self._session.ended()
            self.call.finish(grpc.StatusCode.OK)
        except Exception:  # noqa: BLE001 - a bug costs this link, whose calls move on, not the process
            _log.exception("link failed")
            self.call.finish(grpc.StatusCode.UNKNOWN, "a bug")
        finally:
            self._sessions.close(self._session)
        await self.call.closed()

    def leave(self) -> None:
        """End it from here."""
        self._session.end()
        self.call.finish(grpc.StatusCode.UNAVAILABLE, "the worker stops")

    @property
    def ready(self) -> bool:
        return self.call.sendable

    def send(self, frame: pb.WorkerFrame) -> None:
        self.call.send(frame.SerializeToString())

    def on_message(self, message: bytes) -> None:
        self._session.take(pb.GatewayFrame.FromString(message))

    def on_sendable(self) -> None:
        self._session.resume()

    def on_end(self, _: CallEnd) -> None:
        self._session.end()
