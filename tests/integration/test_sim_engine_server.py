"""The simulated engine as a real server: official clients, faults on the wire, and the end of its process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import ollama
import openai
import pytest

from neurogate.config import child_environment
from neurogate.engines.sim.server import serve
from neurogate.errors import ConfigError
from sim_support import settings

CHAT: Any = [{"role": "user", "content": "Why is the sky blue?"}]
FAST = {"prefill_tps": 0.0, "decode_tps": 0.0}


@asynccontextmanager
async def serving(*, host: str = "127.0.0.1", **given: Any) -> AsyncIterator[str]:
    """A server in this process on a free port; gives its URL, and leaves no task behind."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(settings(**{**FAST, **given}), host=host, port=0, announce=listening.set_result))
        yield (await listening).removeprefix("listening on ")
        task.cancel()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@asynccontextmanager
async def openai_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@asynccontextmanager
async def ollama_client(url: str) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(url, timeout=20)
    try:
        yield client
    finally:
        await client.close()  # type: ignore[no-untyped-call]  # the package forgot the return type


async def idle(url: str) -> None:
    """Wait until every slot is free: the server notices a client that left as soon as its loop runs."""
    async with asyncio.timeout(10), httpx.AsyncClient() as client:
        while any(slot["is_processing"] for slot in (await client.get(f"{url}/slots")).json()):
            pass


def test_the_openai_client_chats() -> None:
    async def main() -> None:
        async with serving() as url, openai_client(url) as client:
            assert [model.id for model in (await client.models.list()).data] == ["sim"]
            whole = await client.chat.completions.create(model="sim", messages=CHAT)
            text = whole.choices[0].message.content
            assert text is not None
            assert text.startswith("[sim] ")
            assert whole.choices[0].finish_reason == "stop"
            said, usage, reasons = "", None, []
            stream = await client.chat.completions.create(
                model="sim", messages=CHAT, stream=True, stream_options={"include_usage": True}
            )
            async for chunk in stream:
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    said += choice.delta.content or ""
                    reasons.append(choice.finish_reason)
            assert said == text
            assert usage == whole.usage
            assert reasons[-1] == "stop"
            assert set(reasons[:-1]) == {None}
            await idle(url)

    asyncio.run(main())


def test_the_openai_client_completes_text() -> None:
    async def main() -> None:
        async with serving() as url, openai_client(url) as client:
            whole = await client.completions.create(model="sim", prompt="Once", max_tokens=12)
            assert whole.choices[0].finish_reason == "length"
            assert whole.usage is not None
            assert whole.usage.completion_tokens == 12
            stream = await client.completions.create(model="sim", prompt="Once", max_tokens=12, stream=True)
            assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text

    asyncio.run(main())


def test_the_openai_client_understands_the_refusals() -> None:
    async def main() -> None:
        async with serving() as url, openai_client(url) as client:
            with pytest.raises(openai.NotFoundError) as missing:
                await client.chat.completions.create(model="gpt", messages=CHAT)
            assert missing.value.code == "model_not_found"
            with pytest.raises(openai.BadRequestError) as wrong:
                await client.chat.completions.create(model="sim", messages=[])
            assert wrong.value.param == "messages"

    asyncio.run(main())


def test_the_ollama_client_generates_and_chats() -> None:
    async def main() -> None:
        async with serving(decode_tps=500.0) as url, ollama_client(url) as client:
            whole = await client.generate("sim", "Hello")
            assert whole.response
            assert whole.response.startswith("[sim] ")
            assert (whole.done, whole.done_reason) == (True, "stop")
            parts = [part async for part in await client.generate("sim", "Hello", stream=True)]
            assert "".join(part.response or "" for part in parts) == whole.response
            assert parts[-1].eval_count == whole.eval_count == len(parts) - 1
            assert parts[-1].eval_duration
            rate = (len(parts) - 1) / parts[-1].eval_duration * 1e9
            assert 300 < rate <= 550

            chat = await client.chat("sim", CHAT, options={"num_predict": 7})
            assert (chat.eval_count, chat.done_reason) == (7, "length")
            streamed = [part async for part in await client.chat("sim", CHAT, stream=True, options={"num_predict": 7})]
            assert "".join(part.message.content or "" for part in streamed) == chat.message.content
            await idle(url)

    asyncio.run(main())


def test_the_ollama_client_lists_shows_and_embeds() -> None:
    async def main() -> None:
        async with serving() as url, ollama_client(url) as client:
            assert [model.model for model in (await client.list()).models] == ["sim:latest"]
            assert [model.model for model in (await client.ps()).models] == ["sim:latest"]
            shown = await client.show("sim")
            assert shown.modelinfo
            assert shown.capabilities
            embedded = await client.embed("sim", ["a", "b"])
            assert [len(vector) for vector in embedded.embeddings] == [64, 64]

    asyncio.run(main())


def test_the_ollama_client_understands_the_refusals() -> None:
    async def main() -> None:
        async with serving() as url, ollama_client(url) as client:
            with pytest.raises(ollama.ResponseError) as missing:
                await client.generate("gpt", "Hello")
            assert (missing.value.status_code, missing.value.error) == (404, "model 'gpt' not found")

    asyncio.run(main())


# Faults, as the clients see them


def test_fault_error_and_busy_on_the_wire() -> None:
    async def main() -> None:
        async with serving(faults="error=1") as url, openai_client(url) as client, ollama_client(url) as other:
            with pytest.raises(openai.InternalServerError) as failed:
                await client.chat.completions.create(model="sim", messages=CHAT, stream=True)
            assert failed.value.status_code == 500
            with pytest.raises(ollama.ResponseError) as refused:
                await other.generate("sim", "Hello")
            assert refused.value.status_code == 500
        async with serving(faults="busy=1") as url, openai_client(url) as client:
            with pytest.raises(openai.InternalServerError) as busy:
                await client.chat.completions.create(model="sim", messages=CHAT)
            assert (busy.value.status_code, busy.value.response.headers["retry-after"]) == (503, "1")

    asyncio.run(main())


def test_fault_refuse_on_the_wire() -> None:
    async def main() -> None:
        async with serving(faults="refuse=1") as url, openai_client(url) as client, httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/health")).status_code == 503
            with pytest.raises(openai.InternalServerError, match="Refusing"):
                await client.chat.completions.create(model="sim", messages=CHAT)

    asyncio.run(main())


def test_fault_slow_start_on_the_wire() -> None:
    async def main() -> None:
        async with serving(faults="slow_start=0.3") as url, httpx.AsyncClient() as http, asyncio.timeout(10):
            loading = await http.get(f"{url}/health")
            assert (loading.status_code, loading.json()["error"]["message"]) == (503, "Loading model")
            while (await http.get(f"{url}/health")).status_code != 200:
                pass

    asyncio.run(main())


def test_fault_cut_after_on_the_wire() -> None:
    """A stream ends without its end mark, an answer that is not streamed breaks off."""

    async def main() -> None:
        async with serving(faults="cut_after=4") as url, httpx.AsyncClient() as http, ollama_client(url) as client:
            body = {"messages": CHAT, "stream": True}
            cut = await http.post(f"{url}/v1/chat/completions", json=body)
            assert (cut.status_code, cut.text.count("data: "), "[DONE]" in cut.text) == (200, 5, False)
            lines = [part async for part in await client.generate("sim", "Hello", stream=True)]
            assert [line.done for line in lines] == [False] * 4
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post(f"{url}/v1/chat/completions", json={"messages": CHAT})

    asyncio.run(main())


def test_fault_error_after_on_the_wire() -> None:
    async def main() -> None:
        async with serving(faults="error_after=4") as url, openai_client(url) as client, ollama_client(url) as other:
            chunks = await client.chat.completions.create(model="sim", messages=CHAT, stream=True)
            with pytest.raises(openai.APIError, match="error_after"):
                async for _ in chunks:
                    pass
            parts = await other.generate("sim", "Hello", stream=True)
            with pytest.raises(ollama.ResponseError, match="error_after") as raised:
                async for _ in parts:
                    pass
            assert raised.value.status_code == -1
            await idle(url)

    asyncio.run(main())


def test_fault_hang_after_says_nothing_until_the_client_leaves() -> None:
    async def main() -> None:
        async with serving(faults="hang_after=4", slots=1) as url, httpx.AsyncClient() as http:
            body = {"messages": CHAT, "stream": True}
            async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as hanging:
                chunks = hanging.aiter_text()
                said = ""
                while said.count("data: ") < 5:
                    said += await anext(chunks)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await anext(chunks)
            await idle(url)

    asyncio.run(main())


def test_a_client_that_leaves_frees_its_slot_for_the_next() -> None:
    async def main() -> None:
        async with serving(decode_tps=50.0, slots=1) as url, httpx.AsyncClient() as http:
            body = {"prompt": "Hello", "stream": True, "n_predict": 100_000, "ignore_eos": True}
            for _ in range(3):
                async with http.stream("POST", f"{url}/completion", json=body) as streaming:
                    assert (await anext(streaming.aiter_bytes())).startswith(b"data: ")
            async with asyncio.timeout(10):
                after = await http.post(f"{url}/completion", json={"prompt": "Hello", "n_predict": 2})
            assert after.json()["tokens_predicted"] == 2
            await idle(url)

    asyncio.run(main())


# The server's own life


def test_it_listens_on_ipv6() -> None:
    async def main() -> None:
        async with serving(host="::1") as url, httpx.AsyncClient() as http:
            assert url.startswith("http://[::1]:")
            assert (await http.get(f"{url}/health")).status_code == 200

    asyncio.run(main())


def test_unknown_faults_refuse_to_start() -> None:
    with pytest.raises(ConfigError, match="NEUROGATE_SIM_FAULTS"):
        asyncio.run(serve(settings(faults="x=1"), host="127.0.0.1", port=0))


@contextmanager
def child(*command: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its URL; the process is gone at the end."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(environment),
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.kill()


def program(settings_text: str) -> str:
    """A process that only serves: nothing but `serve` itself handles its signals."""
    return (
        "import asyncio; from neurogate.engines.settings import SimSettings;"
        "from neurogate.engines.sim.server import serve;"
        f"asyncio.run(serve(SimSettings({settings_text}), host='127.0.0.1', port=0))"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "command",
    [("-m", "neurogate", "sim-engine", "--port", "0"), ("-c", program("decode_tps=20"))],
    ids=["command", "serve alone"],
)
def test_it_tells_its_port_and_ends_cleanly_on_a_signal(command: tuple[str, ...], number: signal.Signals) -> None:
    """An answer that is under way when the signal comes is finished first."""
    with child(*command, NEUROGATE_SIM_DECODE_TPS="20") as (process, url):
        body = {"messages": CHAT, "stream": True, "max_tokens": 10}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20) as streaming:
            text = streaming.iter_text()
            said = next(text)
            process.send_signal(number)
            said += "".join(text)
        assert said.endswith("data: [DONE]\n\n")
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


def test_it_serves_in_a_thread_that_may_not_handle_signals() -> None:
    async def main() -> None:
        async with serving() as url, httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/health")).status_code == 200

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, main()).result(timeout=20)


def test_fault_exit_after_ends_the_process() -> None:
    got: list[str] = []
    with child("-c", program("decode_tps=100, faults='exit_after=3'")) as (process, url):
        body = {"prompt": "x", "stream": True}
        died = pytest.raises(httpx.RemoteProtocolError)
        with httpx.stream("POST", f"{url}/completion", json=body) as streaming, died:
            got.extend(streaming.iter_text())
        assert process.wait(timeout=20) == 70
    events = [json.loads(line.removeprefix("data: ")) for line in "".join(got).splitlines() if line]
    assert [event["stop"] for event in events] == [False] * 3
