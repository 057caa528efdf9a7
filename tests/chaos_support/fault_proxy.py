"""A TCP proxy that is the network between two processes, and misbehaves on request.

It runs on a loop and thread of its own, so that a busy test does not slow the network down. The one idea: each
direction of a connection is a queue of pieces with the times at which they may arrive; what the network does is how it
sets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_PIECE = 65536
_SEGMENT = 1448
_QUEUED_MAX = 64


class Mode(enum.Enum):
    PASS = "pass"
    REFUSE = "refuse"
    """Nobody listens: every connection is reset, those that are there and new ones."""
    BLACK_HOLE = "black hole"
    """Packets are dropped: nothing arrives, connections stay open; what was sent arrives when it heals."""
    HALF_OPEN = "half-open"
    """The far end is gone without a word: its connections are closed, ours stay open and silent for ever."""
    DEAF = "deaf"
    """What is asked arrives, no answer does, until it heals."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to pieces on a network that works."""

    latency_s: float = 0.0
    """Added in each direction."""
    loss: float = 0.0
    """Probability that a segment is lost, and comes after a retransmission; everything behind it waits."""
    retransmit_s: float = 0.2


class FaultProxy:
    """One listening port in front of one target. Its methods may be called from any thread."""

    def __init__(self, target: int, *, rng: random.Random) -> None:
        self.target = target
        self.port = 0
        self.mode = Mode.PASS
        self.weather = Weather()
        self._rng = rng
        self._connections: dict[_Connection, None] = {}
        self._healed: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name=f"proxy-{target}")
        self._up = threading.Event()

    def start(self) -> None:
        self._thread.start()
        self._up.wait()

    def stop(self) -> None:
        self._call(self._stopping.set)
        self._thread.join()

    def set(self, mode: Mode) -> None:
        """Change what the network does, from now on."""
        self._call(lambda: self._set(mode))

    def set_weather(self, weather: Weather) -> None:
        self._call(lambda: setattr(self, "weather", weather))

    def reset(self) -> int:
        """Reset every connection there is, and how many that were. New ones are welcome."""
        return self._call(self._reset)

    @property
    def connections(self) -> int:
        return self._call(lambda: len(self._connections))

    def _call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    def _set(self, mode: Mode) -> None:
        left, self.mode = self.mode, mode
        if mode is Mode.PASS:
            if left is Mode.HALF_OPEN:
                self._reset()  # the machine that went away knows nothing of them: it answers with a RST
            self._healed.set()
        else:
            self._healed.clear()
        if mode is Mode.REFUSE:
            self._reset()
        if mode is Mode.HALF_OPEN:
            for connection in self._connections:
                connection.lose_far_end()

    def _reset(self) -> int:
        connections = list(self._connections)
        for connection in connections:
            connection.reset()
        return len(connections)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._healed = asyncio.Event()
        self._healed.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_PIECE)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        async with server:
            await self._stopping.wait()
            self._healed.set()
            self._reset()
        while self._connections:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        self._connections[connection] = None
        try:
            if self.mode is Mode.REFUSE:
                return
            if self.mode in {Mode.BLACK_HOLE, Mode.HALF_OPEN}:
                await connection.unless_reset(self._healed.wait())
            with contextlib.suppress(OSError):
                far_reader, connection.far = await asyncio.open_connection("127.0.0.1", self.target, limit=_PIECE)
                there = self._pump(reader, connection.far, deaf=False)
                back = self._pump(far_reader, writer, deaf=True)
                await connection.unless_reset(_both(there, back))
        finally:
            connection.reset()
            del self._connections[connection]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, deaf: bool) -> None:
        """One direction, until its end."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_MAX)
        delivering = asyncio.ensure_future(self._deliver(queue, writer, deaf=deaf))
        arrives_at = 0.0
        try:
            while True:
                data = await reader.read(_PIECE)
                weather = self.weather
                arrives_at = max(arrives_at, self._loop.time() + weather.latency_s) + self._stalls(data, weather)
                await queue.put((arrives_at, data))
                if not data:
                    break
            await delivering
        finally:
            delivering.cancel()

    def _stalls(self, data: bytes, weather: Weather) -> float:
        if not weather.loss:
            return 0.0
        segments = -(-len(data) // _SEGMENT)
        return weather.retransmit_s * sum(self._rng.random() < weather.loss for _ in range(segments))

    async def _deliver(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, deaf: bool
    ) -> None:
        while True:
            arrives_at, data = await queue.get()
            if (wait_s := arrives_at - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            while self.mode in {Mode.BLACK_HOLE, Mode.HALF_OPEN} or (deaf and self.mode is Mode.DEAF):
                await self._healed.wait()
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


class _Connection:
    """Both ends of one connection."""

    def __init__(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None
        self._reader = reader
        self._reset = asyncio.Event()

    def reset(self) -> None:
        self._reset.set()
        for writer in (self.near, self.far):
            if writer is not None:
                abort(writer)

    def lose_far_end(self) -> None:
        if self.far is not None:
            abort(self.far)

    async def unless_reset(self, work: object) -> None:
        """Do it until it is done, or until the connection is reset."""
        doing = asyncio.ensure_future(work)  # type: ignore[arg-type, var-annotated]
        waiting = asyncio.ensure_future(self._reset.wait())
        try:
            await asyncio.wait([doing, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            doing.cancel()
            await asyncio.wait([doing, waiting])
            if not doing.cancelled():
                doing.exception()  # a connection that broke has ended, that is all


async def _both(there: object, back: object) -> None:
    await asyncio.gather(there, back)  # type: ignore[call-overload]


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with a RST, where there still is a connection."""
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(target: int, *, seed: int = 0) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target, rng=random.Random(seed))
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
