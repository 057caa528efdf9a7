"""Clients that ask one question after the other and retry nothing: as much load as a machine bears, however slow it is.

Every second one streams. Every answer must be whole, and say what an undisturbed one said.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from types import TracebackType
from typing import Any, Self

ANSWER_S = 300.0
"""As long as the gateway lets a request take."""


class BadAnswerError(Exception):
    """An answer is not what it should be."""


async def ask(port: int, key: str, question: str, *, tokens: int, begun: asyncio.Event | None = None) -> str:
    """The text of a streamed answer; `begun` is set when its first event is there, or never will be.

    Raises BadAnswerError for one that is refused, has an error in it or no end mark, OSError and EOFError.
    """
    try:
        return await _asked(port, key, question, tokens, stream=True, begun=begun)
    finally:
        if begun is not None:
            begun.set()


async def _asked(
    port: int, key: str, question: str, tokens: int, *, stream: bool, begun: asyncio.Event | None = None
) -> str:
    asked = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
    }
    body = json.dumps(asked)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readuntil(b"\n") if stream and b" 200 " in head[:16] else b""
        if begun is not None:
            begun.set()
        answer = first + await reader.read()
    finally:
        writer.close()
    if b" 200 " not in head[:16]:
        raise BadAnswerError(f"{head.splitlines()[0].decode()}: {answer[:200].decode(errors='replace')}")
    return _text_of_stream(answer) if stream else str(_json(answer)["choices"][0]["message"]["content"])


def _text_of_stream(answer: bytes) -> str:
    events = [line[6:] for line in answer.decode().splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise BadAnswerError(f"a stream without its end mark: ...{answer[-200:].decode(errors='replace')}")
    said = [_json(event.encode()) for event in events[:-1]]
    if any("error" in event for event in said):
        raise BadAnswerError(f"a stream with an error: {answer[-300:].decode(errors='replace')}")
    return "".join(choice["delta"].get("content") or "" for event in said for choice in event["choices"])


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadAnswerError(f"no JSON: {text[:100]!r}") from error


class ClosedLoad:
    """A context: the clients ask while it lasts, and have their last answers when it is left."""

    def __init__(self, port: int, key: str, *, clients: int, tokens: int) -> None:
        self.whole = 0
        self.failed: Counter[str] = Counter()
        self._port = port
        self._key = key
        self._tokens = tokens
        self._numbers = range(clients)
        self._references: dict[int, str] = {}
        self._stopping = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for number in self._numbers:
            self._references[number] = await self._ask(number)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client(number), name=f"client {number}") for number in self._numbers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def __str__(self) -> str:
        told = f"{self.whole} answers whole, {self.failed.total()} failed"
        return "; ".join([told, *(f"{count} x {what}" for what, count in self.failed.most_common(5))])

    async def more(self, answers: int) -> None:
        """Wait until so many more requests were answered, or failed."""
        wanted = self._answered + answers
        while self._answered < wanted:
            self._changed.clear()
            await self._changed.wait()

    @property
    def _answered(self) -> int:
        return self.whole + self.failed.total()

    async def _ask(self, number: int) -> str:
        return await _asked(self._port, self._key, f"Question {number}?", self._tokens, stream=number % 2 == 0)

    async def _client(self, number: int) -> None:
        while not self._stopping:
            try:
                async with asyncio.timeout(ANSWER_S):
                    text = await self._ask(number)
            except (BadAnswerError, OSError, EOFError, TimeoutError) as error:
                self.failed[f"{type(error).__name__}: {error}"] += 1
            else:
                if text == self._references[number]:
                    self.whole += 1
                else:
                    self.failed["another text than an undisturbed answer"] += 1
            self._changed.set()
