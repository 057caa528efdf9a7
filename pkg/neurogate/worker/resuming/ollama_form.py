"""The rest of a stream of Ollama's API. Its last line is account and end mark in one."""

from __future__ import annotations

import asyncio

from neurogate.inference import Finished
from neurogate.worker.ollama_api.wording import Account, Said, Writer


class OllamaForm:
    """See the module. Durations are those of the rest: those of the beginning are gone with their worker."""

    mark = b""

    def __init__(self, writer: Writer, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._loop = loop
        self._began_at = loop.time()
        self._first_at: float | None = None

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def piece(self, text: str) -> bytes:
        """A line of text."""
        if self._first_at is None:
            self._first_at = self._loop.time()
        return self._writer.piece(Said(text))

    def closing(self, finished: Finished) -> bytes:
        """The last line."""
        now = self._loop.time()
        first_at = now if self._first_at is None else self._first_at
        account = Account(now - self._began_at, first_at - self._began_at, now - first_at, finished.usage)
        reason = "length" if finished.finish_reason == "length" else "stop"
        return self._writer.last(Said(), reason, account) + b"\n"
