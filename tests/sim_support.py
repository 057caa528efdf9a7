"""What the tests of the simulated engine share: engines with known settings, and an ASGI client without sockets."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from neurogate.engines.engine import EngineCall
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine

WALL_S = 1_700_000_000.5


def settings(*, slots: int = 2, prefill_tps: float = 1000.0, decode_tps: float = 50.0, faults: str = "") -> SimSettings:
    return SimSettings(slots=slots, prefill_tps=prefill_tps, decode_tps=decode_tps, faults=faults)


@asynccontextmanager
async def engine(
    *, exit_process: Callable[[int], None] = lambda code: None, seed: int = 1, **given: Any
) -> AsyncIterator[SimEngine]:
    """A started engine that is checked to hold no slot at the end."""
    made = SimEngine(settings(**given), rng=random.Random(seed), now=lambda: WALL_S, exit_process=exit_process)
    await made.start()
    try:
        yield made
        observed = await made.observe()
        assert (observed.slots_busy, observed.queued) == (0, 0)
    finally:
        await made.stop()


def chat_call(text: str = "Why is the sky blue?", *, request_id: str = "r1", **fields: Any) -> EngineCall:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    return EngineCall("/v1/chat/completions", json.dumps(body).encode(), request_id)


def events(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of a whole SSE stream, without the end mark."""
    assert stream == b"" or stream.endswith(b"\n\n")
    lines = stream.decode().split("\n\n")[:-1]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]


def chat_text(stream: bytes) -> str:
    choices = [choice for event in events(stream) for choice in event.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@dataclass
class Answered:
    """What an app sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)


class AsgiCall:
    """One HTTP request to an app, whose client can go away."""

    def __init__(self, app: Any, method: str, path: str, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        target, _, query = path.partition("?")
        self._app = app
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": target,
            "raw_path": target.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.answered = Answered()
        self.gone = asyncio.Event()
        self.sent = asyncio.Event()
        self._asked = False

    async def run(self) -> Answered:
        await self._app(self._scope, self._receive, self._send)
        return self.answered

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.answered.status = message["status"]
            self.answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.answered.chunks.append(message.get("body", b""))
            self.answered.complete = not message.get("more_body", False)
            self.sent.set()


async def ask(app: Any, method: str, path: str, body: bytes | dict[str, Any] = b"", **headers: str) -> Answered:
    return await AsgiCall(app, method, path, body, **headers).run()


@asynccontextmanager
async def live(app: Any) -> AsyncIterator[Any]:
    """The app between its start and its stop."""
    async with app.router.lifespan_context(app):
        yield app
