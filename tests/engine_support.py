"""What the engine tests share: engines that are run and checked to leave nothing, logs that are kept, raw servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from neurogate.engines.engine import Engine, EngineCall, Observation

CHAT_PATH = "/v1/chat/completions"

EngineT = TypeVar("EngineT", bound=Engine)


@dataclass
class LogList:
    """A log that keeps its lines."""

    lines: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def debug(self, event: str, **fields: object) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))

    def said(self, level: str) -> list[object]:
        """What the engine process said at that level."""
        return [fields["line"] for at, event, fields in self.lines if (at, event) == (level, "engine")]

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines if event != "engine"]


@asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """What happens inside leaves no task and no process."""
    tasks = asyncio.all_tasks()
    processes = child_processes()
    yield
    assert asyncio.all_tasks() == tasks
    assert child_processes() == processes


@asynccontextmanager
async def running(engine: EngineT) -> AsyncIterator[EngineT]:
    """A started engine that is supervised and, at the end, stopped twice."""
    await engine.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            supervision = tasks.create_task(engine.run())
            yield engine
            supervision.cancel()
    finally:
        await engine.stop()
        await engine.stop()
    assert not (await engine.observe()).ready


async def until(engine: Engine, wanted: Callable[[Observation], bool], *, timeout_s: float = 60.0) -> Observation:
    """The first observation that is as wanted."""
    async with asyncio.timeout(timeout_s):
        while not wanted(observation := await engine.observe()):
            await asyncio.sleep(0.02)  # another process has no event to wait for
    return observation


async def until_ready(engine: Engine) -> Observation:
    return await until(engine, lambda observation: observation.ready)


def child_processes() -> set[int]:
    """The processes this one has created and not yet buried."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (thread / "children").read_text(encoding="ascii").split()))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs. One that is dead, but not yet buried by whoever inherited it, does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


async def until_dead(pid: int) -> None:
    """Wait until a process that nobody here has created is gone."""
    async with asyncio.timeout(10):
        while alive(pid):
            await asyncio.sleep(0.01)


def chat_call(text: str = "Why is the sky blue?", *, path: str = CHAT_PATH, **fields: Any) -> EngineCall:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    return EngineCall(path, json.dumps({key: value for key, value in body.items() if value is not None}).encode())


async def read(body: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in body])


@dataclass
class RawServer:
    """A server on a real socket that answers each request with the bytes it is told, and then closes."""

    answer: Callable[[asyncio.StreamWriter], Awaitable[None]]
    """Called once per request, after its body was read."""
    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Request line, headers by lower-case name, and body."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A client closed its connection before its answer's end."""
    serving: int = 0
    """Requests under way."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in fields)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((line, headers, body))
            async with asyncio.TaskGroup() as tasks:
                watcher = tasks.create_task(self._watch(reader))
                await self.answer(writer)
                watcher.cancel()
        except* (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()
            self.serving -= 1

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        await reader.read(1)
        raise ConnectionResetError


@asynccontextmanager
async def raw_server(
    *pieces: bytes, answer: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None
) -> AsyncIterator[RawServer]:
    """A `RawServer` that says these bytes, or what `answer` writes."""

    async def say(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    raw = RawServer(answer or say)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    raw.url = f"http://{host}:{port}"
    async with server:
        yield raw
    async with asyncio.timeout(5):
        while raw.serving:
            await asyncio.sleep(0)  # the handlers notice one by one that the clients left


def http_answer(body: bytes, *, status: str = "200 OK", kind: str = "application/json", head: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{head}"
        "Connection: close\r\n\r\n"
    ).encode() + body  # fmt: skip


def sse_answer(*chunks: bytes, ended: bool = True) -> list[bytes]:
    """A streamed answer as HTTP chunks; not `ended`, it lacks HTTP's own end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return [head, *parts, *([b"0\r\n\r\n"] if ended else [])]
