"""The rest of a stream of Ollama's API. Its last line is account and end mark in one."""

from __future__ import annotations

import asyncio

from neurogate.inference import Finished
from neurogate.worker.ollama_api.wording import Account, Said, Writer


class OllamaForm:
    """See the module.

    How long the beginning took is gone with its worker. It is reckoned at the rate of the rest: clients divide the
    count, which is of both, by the duration.
    """

    mark = b""

    def __init__(self, writer: Writer, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._loop = loop
        self._began_at = loop.time()
        self._first_at: float | None = None
        self._pieces = 0

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def piece(self, text: str) -> bytes:
        """A line of text."""
        if self._first_at is None:
            self._first_at = self._loop.time()
        self._pieces += 1
        return self._writer.piece(Said(text))

    def closing(self, finished: Finished) -> bytes:
        """The last line."""
        now = self._loop.time()
        first_at = now if self._first_at is None else self._first_at
        prompt_s, decode_s = first_at - self._began_at, now - first_at
        if self._pieces:
            decode_s *= max(1.0, finished.usage.completion_tokens / self._pieces)
        account = Account(prompt_s + decode_s, prompt_s, decode_s, finished.usage)
        reason = "length" if finished.finish_reason == "length" else "stop"
        return self._writer.last(Said(), reason, account) + b"\n"
