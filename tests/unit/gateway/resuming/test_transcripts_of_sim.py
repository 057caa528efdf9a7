"""Gateway and worker agree: what is read back here is continued there, and what is continued is read back again."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from neurogate.channel import Call, Resume
from neurogate.dataplane.recovery import Transcript
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.gateway.resuming import Transcripts
from neurogate.rpc.backend import IncomingCall
from neurogate.virtual_time import run
from neurogate.worker.backend import Worker, WorkerLimits
from neurogate.worker.metrics import WorkerMetrics
from worker_support import NOW, FakeOutlet, incoming

HELLO = [{"role": "user", "content": "Hello 🦊, why is the sky blue?"}]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": HELLO, "stream": True, "max_tokens": 6}),
    ("/v1/completions", {"prompt": "Once upon a time", "stream": True}),
    ("/prompt", {"query": "Why?", "stream": True}),
    ("/api/generate", {"model": "sim", "prompt": "Why?", "raw": True}),
    ("/api/chat", {"model": "sim", "messages": HELLO}),
]


@asynccontextmanager
async def sim_worker() -> AsyncIterator[Worker]:
    engine = SimEngine(SimSettings(slots=2), rng=random.Random(1), now=lambda: NOW)
    await engine.start()
    worker = Worker(
        engine,
        limits=WorkerLimits(max_requests=8),
        metrics=WorkerMetrics(),
        loop=asyncio.get_running_loop(),
        now=lambda: NOW,
        on_change=lambda: None,
    )
    worker.take_observation(await engine.observe())
    yield worker
    assert worker.active == 0
    await engine.stop()


async def answer(worker: Worker, call: IncomingCall, said: Resume | None = None) -> list[bytes]:
    """The events of an answer, or of what is missing of one."""
    outlet = FakeOutlet()
    end = await worker.answer(replace(call, resume=said), outlet)
    assert end.http_status == 200, end.message
    mark = b"\n" if call.path.startswith("/api") else b"\n\n"
    return [event + mark for event in outlet.body.split(mark)[:-1]]


def begin(call: IncomingCall) -> Transcript:
    return Transcripts().transcript(Call(call.path, call.body, stream=True, deadline=1.0))


def text_of(events: list[bytes]) -> str:
    """What a client makes of them, told apart from what is tested here."""
    said = ""
    for event in events:
        data = event.removeprefix(b"data: ").strip()
        value = json.loads(data) if data != b"[DONE]" else {}
        for choice in value.get("choices", ()):
            said += choice.get("text") or choice.get("delta", {}).get("content") or ""
        said += value.get("token") or value.get("response") or value.get("message", {}).get("content") or ""
    return said


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_an_answer_that_dies_anywhere_twice_is_the_one_that_was_not_disturbed(path: str, body: dict[str, Any]) -> None:
    call = incoming(body, path=path)

    async def main() -> None:
        async with sim_worker() as worker:
            whole = await answer(worker, call)
            for cut in range(len(whole)):
                transcript = begin(call)
                transcript.take(whole[:cut])
                first = transcript.resume()
                assert first is not None
                assert first.text == text_of(whole[:cut])
                rest = await answer(worker, call, first)
                assert text_of(whole[:cut] + rest) == text_of(whole)

                again = len(rest) // 2
                transcript.take(rest[:again])
                second = transcript.resume()
                assert second is not None
                assert second.text == text_of(whole[:cut] + rest[:again])
                last = await answer(worker, call, second)
                assert text_of(whole[:cut] + rest[:again] + last) == text_of(whole)
                transcript.take(last)
                assert transcript.resume() is None

    run(main())
