"""A TCP proxy that is the network between two processes, and misbehaves on request.

The one idea: each direction of a connection is a queue of pieces with the times at which they may arrive; what the
network does is how it sets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chaos_support.in_thread import PIECE, InThread, abort, either

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


class FaultProxy(InThread):
    """One listening port in front of one target."""

    def __init__(self, target: int, *, rng: random.Random) -> None:
        super().__init__()
        self.target = target
        self.mode = Mode.PASS
        self.weather = Weather()
        self._rng = rng
        self._connections: dict[_Connection, None] = {}
        self._healed: asyncio.Event | None = None

    def set(self, mode: Mode) -> None:
        """Change what the network does, from now on."""
        self.call(lambda: self._set(mode))

    def set_weather(self, weather: Weather) -> None:
        self.call(lambda: setattr(self, "weather", weather))

    def reset(self) -> int:
        """Reset every connection there is, and how many that were. New ones are welcome."""
        return self.call(self._reset)

    @property
    def connections(self) -> int:
        return self.call(lambda: len(self._connections))

    def _set(self, mode: Mode) -> None:
        left, self.mode = self.mode, mode
        if mode is Mode.PASS:
            if left is Mode.HALF_OPEN:
                self._reset()  # the machine that went away knows nothing of them: it answers with a RST
            if self._healed is not None:
                self._healed.set()
                self._healed = None
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

    async def _heals(self) -> None:
        if self._healed is None:
            self._healed = asyncio.Event()
        await self._healed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections[connection] = None
        try:
            if self.mode is not Mode.REFUSE:
                await either(self._forward(reader, connection), connection.was_reset.wait())
        finally:
            del self._connections[connection]
            connection.reset()

    async def _forward(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while self.mode in {Mode.BLACK_HOLE, Mode.HALF_OPEN}:
            await self._heals()
        far_reader, connection.far = await asyncio.open_connection("127.0.0.1", self.target, limit=PIECE)
        async with asyncio.TaskGroup() as directions:
            directions.create_task(self._pump(reader, connection.far, deaf=False))
            directions.create_task(self._pump(far_reader, connection.near, deaf=True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, deaf: bool) -> None:
        """One direction, until its end."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_MAX)
        async with asyncio.TaskGroup() as delivery:
            delivery.create_task(self._deliver(queue, writer, deaf=deaf))
            arrives_at = 0.0
            data = b"first"
            while data:
                data = await self._read(reader)
                weather = self.weather
                arrives_at = max(arrives_at, self._loop.time() + weather.latency_s) + self._stalls(data, weather)
                await queue.put((arrives_at, data))

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(PIECE)
        except OSError:
            if self.mode is not Mode.HALF_OPEN:
                raise
            await self._heals()  # the near end is told nothing
            raise

    def _stalls(self, data: bytes, weather: Weather) -> float:
        if not weather.loss:
            return 0.0
        segments = -(-len(data) // _SEGMENT)
        return weather.retransmit_s * sum(self._rng.random() < weather.loss for _ in range(segments))

    async def _deliver(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, deaf: bool
    ) -> None:
        data = b"first"
        while data:
            arrives_at, data = await queue.get()
            if (wait_s := arrives_at - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            while self.mode in {Mode.BLACK_HOLE, Mode.HALF_OPEN} or (deaf and self.mode is Mode.DEAF):
                await self._heals()
            if data:
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


class _Connection:
    """Both ends of one connection."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None
        self.was_reset = asyncio.Event()

    def reset(self) -> None:
        self.was_reset.set()
        abort(self.near)
        self.lose_far_end()

    def lose_far_end(self) -> None:
        if self.far is not None:
            abort(self.far)


@contextmanager
def fault_proxy(target: int, *, seed: int = 0) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target, rng=random.Random(seed))
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
