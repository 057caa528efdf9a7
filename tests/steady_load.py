"""Requests at a steady rate from clients with kept connections that retry nothing: what fails here, a user has seen.

Half of them are streamed. Every answer must be whole, and say what an undisturbed one said.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

_ANSWER_S = 60.0


@dataclass
class Counts:
    """What became of the requests."""

    whole: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By what was wrong."""
    connections: int = 0
    """Opened in all."""

    @property
    def asked(self) -> int:
        return self.whole + sum(self.failed.values())

    def __str__(self) -> str:
        failed = self.asked - self.whole
        told = f"{self.asked} requests on {self.connections} connections, {self.whole} whole, {failed} failed"
        return "\n".join([told, *(f"  {count} x {what}" for what, count in self.failed.most_common())])


class BadAnswerError(Exception):
    """An answer is not what it should be."""


class _Connection:
    """One kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.kept = True

    @property
    def usable(self) -> bool:
        """Whether a client would send another request here: it looks whether the server has closed meanwhile."""
        return self.kept and not self.reader.at_eof() and not self.writer.is_closing()

    async def ask(self, path: str, body: bytes, key: str) -> bytes:
        self.writer.write(
            (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        self.kept = b"connection: close" not in lines
        if b"transfer-encoding: chunked" in lines:
            answer = await self._chunks()
        else:
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            answer = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise BadAnswerError(f"{head.split(chr(13).encode())[0].decode()}: {answer[:200].decode()}")
        return answer

    async def _chunks(self) -> bytes:
        whole = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            whole += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return whole

    def close(self) -> None:
        self.writer.close()


class SteadyLoad:
    """A context: the load runs while it lasts, and is whole when it is left."""

    def __init__(
        self,
        port: int,
        *,
        key: str,
        host: str = "127.0.0.1",
        per_second: float = 50,
        max_tokens: int = 32,
        prompts: int = 8,
        model: str = "",
        keep: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Without `keep` each request has a connection of its own; with `tls` they are HTTPS."""
        self.counts = Counts()
        self._address = host, port
        self._key = key
        self._interval_s = 1 / per_second
        self._max_tokens = max_tokens
        self._prompts = prompts
        self._model = model
        self._keep = keep
        self._tls = tls
        self._idle: list[_Connection] = []
        self._references: dict[tuple[int, bool], str] = {}
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for number in range(self._prompts):
            for stream in (False, True):
                self._references[number, stream] = await self._ask(number, stream=stream)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="steady load")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task
        for connection in self._idle:
            connection.close()

    async def until(self, asked: int) -> None:
        """Wait until so many requests have been answered, or failed."""
        while self.counts.asked < asked:
            self._changed.clear()
            await self._changed.wait()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        number = 0
        async with asyncio.TaskGroup() as tasks:
            while not self._stop.is_set():
                tasks.create_task(self._one(number % self._prompts, stream=number % 2 == 0))
                number += 1
                due += self._interval_s
                try:
                    async with asyncio.timeout(max(0.0, due - loop.time())):
                        await self._stop.wait()
                except TimeoutError:
                    continue

    async def _one(self, number: int, *, stream: bool) -> None:
        try:
            if await self._ask(number, stream=stream) == self._references[number, stream]:
                self.counts.whole += 1
            else:
                self.counts.failed["another text than an undisturbed answer"] += 1
        except (BadAnswerError, OSError, EOFError, TimeoutError) as error:
            self.counts.failed[f"{type(error).__name__}: {error}"] += 1
        self._changed.set()

    async def _ask(self, number: int, *, stream: bool) -> str:
        question: dict[str, Any] = {
            "messages": [{"role": "user", "content": f"Question number {number}?"}],
            "max_tokens": self._max_tokens,
            "temperature": 0,
            "stream": stream,
        }
        if self._model:
            question["model"] = self._model
        connection = await self._connection()
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await connection.ask("/v1/chat/completions", json.dumps(question).encode(), self._key)
        except BaseException:
            connection.close()
            raise
        if connection.kept and self._keep:
            self._idle.append(connection)
        else:
            connection.close()
        return _text_of_stream(answer) if stream else json.loads(answer)["choices"][0]["message"]["content"]

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        self.counts.connections += 1
        return _Connection(*await asyncio.open_connection(*self._address, ssl=self._tls))


def _text_of_stream(answer: bytes) -> str:
    events = [line[6:] for line in answer.decode().split("\n") if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise BadAnswerError(f"a stream without its end mark: ...{answer[-200:].decode(errors='replace')}")
    said = [json.loads(event) for event in events[:-1]]
    if any("error" in event for event in said):
        raise BadAnswerError(f"a stream with an error: {answer[-300:].decode(errors='replace')}")
    return "".join(choice["delta"].get("content") or "" for event in said for choice in event["choices"])
