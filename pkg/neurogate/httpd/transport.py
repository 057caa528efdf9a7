"""The transport that answers go to: one write for head and body, the listener's own headers, a gentle close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class AnswerTransport(asyncio.Transport):
    """Holds a response's head until the next write, or the end of this turn of the loop.

    A write is a system call, the dearest single thing the gateway does; head and body in one write save one for every
    unstreamed answer (docs/performance.md).

    A close asks `lingers` first: where the client is still sending, only our half is closed, and its owner calls
    `close_now` later. A close at once would be answered with a reset, which may overtake the answer (RFC 9112, 9.6).
    """

    __slots__ = ("_flushing", "_half_closed", "_held", "_lingers", "_loop", "_transport")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        lingers: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._lingers = lingers
        self._held = b""
        self._flushing = False
        self._half_closed = False

    def hold(self, head: bytes, *, follows: bool) -> None:
        """Write a head with what is written next; unless that `follows` now, in this turn of the loop at the latest."""
        self._held += head  # behind that of a HEAD, which nothing follows
        if not (follows or self._flushing):
            self._flushing = True
            self._loop.call_soon(self._flush_held)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, behind the head that is held."""
        if self._held:
            data, self._held = self._held + data, b""
        self._transport.write(data)

    @property
    def write_behind(self) -> Callable[[bytes], object]:
        """Writes what comes while no head is held: behind the first piece of an answer, until its end."""
        return self._transport.write

    def close(self) -> None:
        """Close gently."""
        self.flush()
        if self._lingers():
            self._half_closed = True
            if self._transport.can_write_eof():  # TLS cannot
                self._transport.write_eof()
        else:
            self._transport.close()

    def close_now(self) -> None:
        """Close without lingering."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection, dropping what is unsent."""
        self._held = b""
        self._transport.abort()

    @property
    def ending(self) -> bool:
        """Whether the connection is being closed for both sides."""
        return self._transport.is_closing()

    def is_closing(self) -> bool:
        """Whether a close has begun, gentle or not."""
        return self._half_closed or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The transport's own."""
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._held) + self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Let what comes wait in the kernel."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection to another protocol."""
        self._transport.set_protocol(protocol)

    def forget_owner(self) -> None:
        """Ask nobody any more: the connection is lost."""
        self._lingers = _never

    def _flush_held(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Write a head that is held."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


def _never() -> bool:
    return False
