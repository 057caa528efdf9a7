"""Clients in memory: one remembers an exchange's answer, the other a channel's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neurogate.channel import End
from neurogate.errors import GatewayError


class RecordingReceiver:
    """A `Receiver`. It must be made on the loop it is used on."""

    def __init__(self, on_hear: Callable[[str], None] = lambda _: None) -> None:
        self.heard: list[str] = []
        """`chunk`, `answer`, `complete` and `error`, in order."""
        self.chunks: list[bytes] = []
        self.answer: tuple[End, bytes] | None = None
        self.error: GatewayError | None = None
        self.resumes = 0
        """How often the stream was continued elsewhere."""
        self.ended_at: float | None = None
        """Loop time of the last word."""
        self._on_hear = on_hear
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()

    @property
    def last_words(self) -> list[str]:
        """What was heard besides chunks; of an exchange that kept its promise, at most one, and nothing after it."""
        return [word for word in self.heard if word != "chunk"]

    @property
    def body(self) -> bytes:
        """The chunks together, or the whole answer."""
        return self.answer[1] if self.answer is not None else b"".join(self.chunks)

    async def last_word(self) -> str:
        """Wait for the last word."""
        await self._over.wait()
        return self.heard[-1]

    def on_chunk(self, data: bytes) -> None:
        """Remember a chunk."""
        self.chunks.append(data)
        self._hear("chunk")

    def on_resume(self) -> None:
        """Count a continuation; it is no word of its own."""
        self.resumes += 1

    def on_answer(self, end: End, body: bytes) -> None:
        """Remember a whole answer."""
        self.answer = end, body
        self._end("answer")

    def on_complete(self) -> None:
        """Remember that a stream was complete."""
        self._end("complete")

    def on_error(self, error: GatewayError) -> None:
        """Remember an error."""
        self.error = error
        self._end("error")

    def _end(self, word: str) -> None:
        self.ended_at = self._loop.time()
        self._over.set()
        self._hear(word)

    def _hear(self, word: str) -> None:
        self.heard.append(word)
        self._on_hear(word)


class RecordingSink:
    """A `Sink`."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ends: list[End] = []

    def on_chunk(self, data: bytes) -> None:
        """Remember a chunk."""
        self.chunks.append(data)

    def on_end(self, end: End) -> None:
        """Remember the end."""
        self.ends.append(end)
