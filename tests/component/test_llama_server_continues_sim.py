"""A llama.cpp server, simulated, continues what another one began: text, usage and finish reason to the letter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fleet_in_process import Fleet, fleet
from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall
from neurogate.engines.llama_server import LlamaServerEngine
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.server import serve
from neurogate.inference import Finished, Token, Usage
from real_loop import run_real
from told_support import events_of, read

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky 🦊 blue?"}]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": MESSAGES}),
    "chat with a limit": (CHAT, {"messages": MESSAGES, "max_tokens": 12}),
    "chat with another limit": (CHAT, {"messages": MESSAGES, "max_completion_tokens": 12, "temperature": 0}),
    "chat with a stop text": (CHAT, {"messages": MESSAGES, "stop": ["e", "fox"]}),
    "completion": (COMPLETION, {"prompt": "Once upon a time", "max_tokens": 12}),
    "completion with a stop text": (COMPLETION, {"prompt": "Once upon a time", "stop": "a"}),
}


@asynccontextmanager
async def server(*, decode_tps: float = 0, faults: str = "") -> AsyncIterator[str]:
    """A simulated server's URL."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    sim = SimSettings(prefill_tps=0, decode_tps=decode_tps, slots=8, faults=faults)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(sim, host="127.0.0.1", port=0, model="tiny", announce=listening.set_result))
        yield (await listening).removeprefix("listening on ")
        serving.cancel()


@asynccontextmanager
async def engine() -> AsyncIterator[LlamaServerEngine]:
    """One in front of a simulated server of its own."""
    async with server() as url:
        made = LlamaServerEngine(url)
        await made.start()
        try:
            yield made
            while (await made.observe()).slots_busy:
                await asyncio.sleep(0)
        finally:
            await made.stop()


@pytest.mark.parametrize("name", REQUESTS)
def test_from_any_event_on_the_rest_is_what_it_would_have_been(name: str) -> None:
    path, body = REQUESTS[name]
    call = EngineCall(path, json.dumps({**body, **USAGE}).encode(), "r-1")

    async def main() -> None:
        async with engine() as one, engine() as other:
            assert path in (await other.observe()).resumes
            async with one.forward(call) as reply:
                stream = b"".join([piece async for piece in reply.body])
            events = events_of(stream)
            whole = read(stream)
            for cut in range(len(events)):
                said = read(b"".join(events[:cut])).resume()
                if said.usage_sent:
                    continue
                *tokens, last = [event async for event in other.resume(call, said)]
                text = "".join([token.text for token in tokens if isinstance(token, Token)])
                assert said.text + text == whole.text
                assert isinstance(last, Finished)
                assert last.usage.completion_tokens == whole.usages[0][1]
                assert Usage(last.usage.prompt_tokens, last.usage.completion_tokens) == Usage(*whole.usages[0])
                assert [said.finish_reason or last.finish_reason] == whole.finish_reasons

    run_real(main())


def test_a_whole_text_is_only_counted() -> None:
    call = EngineCall(CHAT, json.dumps({"messages": MESSAGES, **USAGE}).encode())

    async def main() -> None:
        async with engine() as made:
            await made.observe()
            events = [event async for event in made.resume(call, Resume("[sim] That", 2, finish_reason="stop"))]
            assert [type(event) for event in events] == [Finished]

    run_real(main())


STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (path, {**body, **USAGE}) for name, (path, body) in REQUESTS.items()},
    "prompt": ("/prompt", {"query": "Why is the sky 🦊 blue?", "stream": True, "max_tokens": 24}),
    "Ollama's chat": ("/api/chat", {"model": "tiny", "messages": MESSAGES}),
    "Ollama's raw generate": ("/api/generate", {"model": "tiny", "prompt": "Once", "raw": True}),
}


@pytest.mark.parametrize("fault", ["cut_after", "error_after"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_past_servers_that_break_it(name: str, fault: str) -> None:
    """Through gateway and workers, each server saying nine tokens before it fails."""
    path, body = STREAMS[name]

    async def ask(made: Fleet) -> bytes:
        async with made.client.stream("POST", path, json=body, headers={"x-request-id": "r-1"}) as response:
            assert response.status_code == 200
            return b"".join([piece async for piece in response.aiter_raw()])

    async def main() -> None:
        async with server() as url, fleet(1, engines_of=[LlamaServerEngine(url)]) as made:
            whole = read(await ask(made))
        async with server(faults=f"{fault}=9") as one, server(faults=f"{fault}=9") as other:
            engines = [LlamaServerEngine(one), LlamaServerEngine(other)]
            async with fleet(2, engines_of=engines, resume_attempts=20) as made:
                got = read(await ask(made))
                resumes = sum(len(engine.resumed) for engine in made.engines)
        whole.created = got.created = set()
        assert got == whole
        assert (resumes > 0) == (whole.pieces >= 9)

    run_real(main())
