"""Telling a client that half-closed its connection, and waits for its answer, from one that left.

Both send a FIN. What is written to a socket that nobody reads any more is answered with a reset, and the kernel then
shows our socket as closed: so something that a client skips is written, and the socket looked at for a while
(ADR 0014).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What an HTTP/1.1 client skips before its answer: it "MUST be able to parse" it unasked (RFC 9110, section 15.2)."""

PROBE_IN_CHUNKS = b"0"
"""What says nothing between two chunks: a leading zero of the next one's size, or another of the last one's."""

_FIRST_LOOK_S = 0.01
_LAST_LOOK_S = 1.0
_TCP_CLOSE = 7
"""tcpi_state of Linux."""


class DepartureWatch:
    """Looks at a socket whose other side sent a FIN until it is reset, less and less often."""

    __slots__ = ("_delay_s", "_loop", "_on_departed", "_socket", "_timer")

    def __init__(self, sock: Any, loop: asyncio.AbstractEventLoop, on_departed: Callable[[], None]) -> None:
        self._socket = sock
        self._loop = loop
        self._on_departed = on_departed
        self._delay_s = _FIRST_LOOK_S
        self._timer = loop.call_later(self._delay_s, self._look)

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            self._on_departed()
            return
        self._delay_s = min(_LAST_LOOK_S, self._delay_s * 1.5)
        self._timer = self._loop.call_later(self._delay_s, self._look)
