"""Engines behind an HTTP API: what passes, and where each failure ends up. The servers are real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from engine_support import (
    CHAT_PATH,
    RawServer,
    chat_call,
    http_answer,
    leaving_nothing,
    raw_server,
    read,
    running,
    sse_answer,
)
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineFatalError,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
    ModelInfo,
    Observation,
    pump,
)
from neurogate.engines.http import HttpEngine
from neurogate.engines.llama_server import LlamaServerEngine
from neurogate.engines.ollama import OllamaEngine
from neurogate.engines.openai import OpenAIEngine
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage
from neurogate.telemetry.concern import about

DONE = b"data: [DONE]\n\n"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def said(text: str, finish_reason: str | None = None, **fields: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}], **fields)


@asynccontextmanager
async def connected(
    *pieces: bytes, answer: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None, **fields: Any
) -> AsyncIterator[tuple[RawServer, OpenAIEngine]]:
    """A server that says these bytes, and an engine that asks it."""
    async with (
        leaving_nothing(),
        raw_server(*pieces, answer=answer) as server,
        running(OpenAIEngine(server.url, **fields)) as engine,
    ):
        yield server, engine


async def generated(engine: OpenAIEngine, prompt: Prompt) -> list[GenerationEvent]:
    async with aclosing(engine.generate(prompt)) as events:
        return [event async for event in events]


def free_url() -> str:
    """A URL where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_clients_bytes_go_out_unchanged_with_the_engines_key() -> None:
    async def go() -> None:
        async with raw_server(http_answer(b'{"ok":1}')) as server:
            async with running(OpenAIEngine(f"{server.url}/v1/", api_key="secret")) as engine:
                body = b'{"messages" : [ ],  "odd":\t1}'
                async with engine.forward(EngineCall(CHAT_PATH, body, "req-7")) as reply:
                    assert (reply.status, reply.content_type, reply.retry_after_s) == (200, "application/json", None)
                    assert await read(reply.body) == b'{"ok":1}'

            line, headers, sent = server.requests[0]
            assert line == f"POST {CHAT_PATH} HTTP/1.1"
            assert sent == body
            assert headers["authorization"] == "Bearer secret"
            assert headers["content-type"] == "application/json"
            assert headers["x-request-id"] == "req-7"
            assert headers["accept-encoding"] == "identity"

    asyncio.run(go())


def test_without_a_key_none_is_sent() -> None:
    async def go() -> None:
        async with connected(http_answer(b"{}")) as (server, engine):
            async with engine.forward(chat_call()) as reply:
                await read(reply.body)
            assert "authorization" not in server.requests[0][1]
            assert "x-request-id" not in server.requests[0][1]

    asyncio.run(go())


def test_a_body_over_a_mebibyte_goes_out_whole() -> None:
    async def go() -> None:
        body = b'"' + b"x" * (3 << 20) + b'"'
        async with connected(http_answer(b"{}")) as (server, engine):
            async with engine.forward(EngineCall(CHAT_PATH, body)) as reply:
                await read(reply.body)
            assert server.requests[0][2] == body

    asyncio.run(go())


def test_a_stream_arrives_in_the_engines_own_bytes() -> None:
    async def go() -> None:
        pieces = [said("a"), b": ping\n\n", said("b"), DONE]
        async with (
            connected(*sse_answer(*pieces)) as (_server, engine),
            engine.forward(chat_call(stream=True)) as reply,
        ):
            assert reply.content_type == "text/event-stream"
            assert await read(reply.body) == b"".join(pieces)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("Retry-After: 7\r\n", 7.0),
        ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", None),
        ("Retry-After: -1\r\n", None),
    ],
)
def test_a_refusal_passes_with_its_status_body_and_delay(head: str, seconds: float | None) -> None:
    async def go() -> None:
        body = b'{"error":{"message":"slow down"}}'
        async with (
            connected(http_answer(body, status="429 Too Many", head=head)) as (_server, engine),
            engine.forward(chat_call()) as reply,
        ):
            assert (reply.status, reply.retry_after_s) == (429, seconds)
            assert await read(reply.body) == body

    asyncio.run(go())


LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'


def test_a_server_that_loads_its_model_is_unavailable() -> None:
    async def go() -> None:
        async with connected(http_answer(LOADING, status="503 Service Unavailable")) as (_server, engine):
            with pytest.raises(EngineUnavailableError, match="not ready: Loading model"):
                async with engine.forward(chat_call()):
                    pass

    asyncio.run(go())


@pytest.mark.parametrize(
    ("body", "head"),
    [(b'{"error":"server busy"}', ""), (b"", ""), (b"x" * 300_000, ""), (LOADING, "Retry-After: 1\r\n")],
)
def test_any_other_503_is_an_answer(body: bytes, head: str) -> None:
    async def go() -> None:
        async with (
            connected(http_answer(body, status="503 Service Unavailable", head=head)) as (_server, engine),
            engine.forward(chat_call()) as reply,
        ):
            assert reply.status == 503
            assert await read(reply.body) == body

    asyncio.run(go())


def test_a_503_that_breaks_off_is_unavailable() -> None:
    async def go() -> None:
        cut = http_answer(b"x" * 100, status="503 Service Unavailable")[:-50]
        async with connected(cut) as (_server, engine):
            with pytest.raises(EngineUnavailableError):
                async with engine.forward(chat_call()):
                    pass

    asyncio.run(go())


def test_an_unknown_path_is_unsupported_and_never_sent() -> None:
    async def go() -> None:
        async with connected() as (server, engine):
            with pytest.raises(EngineUnsupportedError, match="/v1/embeddings"):
                async with engine.forward(EngineCall("/v1/embeddings", b"{}")):
                    pass
            assert server.requests == []

    asyncio.run(go())


def test_the_paths_are_a_constructor_argument() -> None:
    async def go() -> None:
        async with (
            connected(http_answer(b"{}"), paths=frozenset({"/apply-template"})) as (_server, engine),
            engine.forward(EngineCall("/apply-template", b"{}")) as reply,
        ):
            assert reply.status == 200

    asyncio.run(go())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("404 Not Found", b'{"detail":"Not Found"}'),
        ("404 Not Found", b"404 page not found"),
        ("404 Not Found", b'{"error":{"message":"File Not Found","type":"not_found_error"}}'),
        ("404 Not Found", b""),
        ("405 Method Not Allowed", b'{"detail":"Method Not Allowed"}'),
        ("501 Not Implemented", b'{"error":{"message":"Start it with `--embeddings`"}}'),
    ],
)
def test_a_server_that_has_not_the_path_after_all_is_unsupported(status: str, body: bytes) -> None:
    async def go() -> None:
        paths = frozenset({"/v1/embeddings"})
        async with connected(http_answer(body, status=status), paths=paths) as (server, engine):
            with pytest.raises(EngineUnsupportedError, match="/v1/embeddings"):
                async with engine.forward(EngineCall("/v1/embeddings", b"{}")):
                    pass
            assert len(server.requests) == 1

    asyncio.run(go())


@pytest.mark.parametrize(
    "body", [b'{"error":{"message":"The model `x` does not exist"}}', b'{"error":"model not found"}']
)
def test_a_model_that_is_not_there_stays_a_404(body: bytes) -> None:
    async def go() -> None:
        answer = http_answer(body, status="404 Not Found")
        async with connected(answer) as (_server, engine), engine.forward(chat_call()) as reply:
            assert (reply.status, await read(reply.body)) == (404, body)

    asyncio.run(go())


def test_the_engine_is_told_the_trace_context_of_the_request() -> None:
    """As it is in the worker; without one there is no such header."""

    async def main() -> None:
        async with connected(http_answer(b"{}")) as (server, engine):
            with about("req-7", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"):
                async with engine.forward(chat_call()) as reply:
                    await read(reply.body)
            async with engine.forward(chat_call()) as reply:
                await read(reply.body)
            traced, plain = (headers for _, headers, _ in server.requests)
            assert traced["traceparent"] == "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
            assert "traceparent" not in plain

    asyncio.run(main())


def test_only_body_path_and_request_id_reach_the_engine_with_the_workers_own_key() -> None:
    async def go() -> None:
        async with connected(http_answer(b"{}"), api_key="the-workers") as (server, engine):
            body = b'{"messages":[],"api_key":"of no meaning"}'
            async with engine.forward(EngineCall(CHAT_PATH, body, "r-7")):
                pass
            [(line, headers, sent)] = server.requests

        assert (line, sent) == (f"POST {CHAT_PATH} HTTP/1.1", body)
        assert headers.pop("host")
        assert headers.pop("user-agent")
        assert headers == {
            "accept": "*/*",
            "accept-encoding": "identity",
            "authorization": "Bearer the-workers",
            "content-length": str(len(body)),
            "content-type": "application/json",
            "x-request-id": "r-7",
        }

    asyncio.run(go())


def test_the_configured_paths_are_told_in_the_observation() -> None:
    async def go() -> None:
        models = http_answer(b'{"data":[]}')
        paths = frozenset({CHAT_PATH, "/v1/completions", "/v1/rerank"})
        async with connected(models, paths=paths) as (_server, engine):
            assert (await engine.observe()).apis == {"/v1/rerank"}

    asyncio.run(go())


def test_nobody_listening_is_unavailable_and_says_what_to_check() -> None:
    async def go() -> None:
        url = free_url()
        async with running(OpenAIEngine(url)) as engine:
            with pytest.raises(EngineUnavailableError, match="NEUROGATE_ENGINE_URL") as caught:
                async with engine.forward(chat_call()):
                    pass
            assert url in str(caught.value)
            observation = await engine.observe()
            assert not observation.ready
            assert url in observation.detail

    asyncio.run(go())


def test_a_connection_that_takes_too_long_is_unavailable() -> None:
    async def go() -> None:
        with socket.socket() as full:  # a listener whose queue is full answers no connection attempt
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            host, port = full.getsockname()
            blockers = [socket.socket() for _ in range(3)]
            for blocker in blockers:
                blocker.setblocking(False)
                blocker.connect_ex((host, port))
            async with running(OpenAIEngine(f"http://{host}:{port}", connect_timeout_s=0.2)) as engine:
                with pytest.raises(EngineUnavailableError, match="no answer in time"):
                    async with engine.forward(chat_call()):
                        pass
            for blocker in blockers:
                blocker.close()

    asyncio.run(go())


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 2"], [b"nonsense\r\n\r\n"]])
def test_dying_before_the_head_is_unavailable(pieces: list[bytes]) -> None:
    async def go() -> None:
        async with connected(*pieces) as (_server, engine):
            with pytest.raises(EngineUnavailableError):
                async with engine.forward(chat_call()):
                    pass

    asyncio.run(go())


def test_dying_in_the_middle_of_a_stream_is_broken() -> None:
    async def go() -> None:
        async with (
            connected(*sse_answer(said("a"), ended=False)) as (_server, engine),
            engine.forward(chat_call(stream=True)) as reply,
        ):
            assert await anext(reply.body) == said("a")
            with pytest.raises(EngineBrokenError, match="broke off"):
                await anext(reply.body)

    asyncio.run(go())


def test_dying_in_the_middle_of_a_whole_answer_is_broken() -> None:
    async def go() -> None:
        async with (
            connected(http_answer(b'{"choices":[]}')[:-4]) as (_server, engine),
            engine.forward(chat_call()) as reply,
        ):
            with pytest.raises(EngineBrokenError):
                await read(reply.body)

    asyncio.run(go())


async def hold_after(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    await asyncio.Event().wait()


def test_leaving_early_closes_the_engines_connection() -> None:
    async def go() -> None:
        pieces = sse_answer(said("a"), ended=False)
        async with connected(answer=lambda writer: hold_after(writer, *pieces)) as (server, engine):
            async with engine.forward(chat_call(stream=True)) as reply:
                await anext(reply.body)
            async with asyncio.timeout(5):
                await server.left.wait()

    asyncio.run(go())


@pytest.mark.parametrize("pieces", [[], sse_answer(said("a"), ended=False)])
def test_cancelling_closes_the_engines_connection(pieces: list[bytes]) -> None:
    """Whether it hangs before the head or in the middle of its answer."""

    async def ask(engine: OpenAIEngine) -> None:
        async with engine.forward(chat_call(stream=True)) as reply:
            await read(reply.body)

    async def go() -> None:
        reached = asyncio.Event()

        async def answer(writer: asyncio.StreamWriter) -> None:
            reached.set()
            await hold_after(writer, *pieces)

        async with (
            asyncio.timeout(5),
            connected(answer=answer) as (server, engine),
            asyncio.TaskGroup() as tasks,
        ):
            asking = tasks.create_task(ask(engine))
            await reached.wait()
            asking.cancel()
            await server.left.wait()

    asyncio.run(go())


def test_stopping_breaks_what_is_under_way() -> None:
    async def go() -> None:
        pieces = sse_answer(said("a"), ended=False)
        async with (
            connected(answer=lambda writer: hold_after(writer, *pieces)) as (_server, engine),
            engine.forward(chat_call(stream=True)) as reply,
        ):
            await anext(reply.body)
            await engine.stop()
            with pytest.raises(EngineBrokenError):
                await anext(reply.body)

    asyncio.run(go())


def test_before_the_start_nothing_can_be_asked_and_stop_is_harmless() -> None:
    async def go() -> None:
        engine = OpenAIEngine("http://127.0.0.1:1")
        await engine.stop()
        with pytest.raises(EngineUnavailableError, match="not started"):
            async with engine.forward(chat_call()):
                pass
        assert not (await engine.observe()).ready

    asyncio.run(go())


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "host"])
def test_what_is_no_url_is_fatal_and_names_the_setting(url: str) -> None:
    with pytest.raises(EngineFatalError, match="NEUROGATE_ENGINE_URL must look like"):
        asyncio.run(OpenAIEngine(url).start())


@pytest.mark.parametrize("url", ["http://user:secret@host:99999", "http://user:se/secret@host", "http://secret@[bad"])
def test_what_is_no_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(EngineFatalError, match="is no URL of an engine") as fatal:
        asyncio.run(OpenAIEngine(url).start())
    assert "secret" not in str(fatal.value)


def test_a_user_and_a_key_contradict_each_other() -> None:
    with pytest.raises(
        EngineFatalError, match="NEUROGATE_ENGINE_API_KEY: NEUROGATE_ENGINE_URL has a user already"
    ) as fatal:
        asyncio.run(OpenAIEngine("http://user:secret@127.0.0.1:1", api_key="k").start())
    assert "secret" not in str(fatal.value)


@pytest.mark.parametrize("engine_type", [OpenAIEngine, LlamaServerEngine, OllamaEngine])
def test_a_password_in_the_url_is_sent_and_never_told(engine_type: type[HttpEngine]) -> None:
    async def go() -> None:
        async with connected(http_answer(b"{}", status="401 No")) as (server, _):
            url = server.url.replace("http://", "http://user:secret@")
            async with running(engine_type(url)) as engine:
                async with engine.forward(chat_call()) as reply:
                    assert reply.status == 401
                assert server.requests[0][1]["authorization"].startswith("Basic ")
                refused = await engine.observe()
        async with running(engine_type("http://user:secret@127.0.0.1:1")) as gone:
            with pytest.raises(EngineUnavailableError) as error:
                async with gone.forward(chat_call()):
                    pass
            unreachable = await gone.observe()
        for told in (refused.detail, repr(engine), str(error.value), unreachable.detail, repr(gone)):
            assert told
            assert "secret" not in told

    asyncio.run(go())


class Keeping:
    """A server that keeps its connections, and answers each request with its own body."""

    def __init__(self) -> None:
        self.connections = self.serving = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                [length] = re.findall(rb"Content-Length: (\d+)", head)
                body = await reader.readexactly(int(length))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()
        self.serving -= 1


@asynccontextmanager
async def keeping(engine_type: type[HttpEngine]) -> AsyncIterator[tuple[Keeping, HttpEngine]]:
    keeper = Keeping()
    server = await asyncio.start_server(keeper.serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        async with running(engine_type(f"http://{host}:{port}")) as engine:
            yield keeper, engine
    async with asyncio.timeout(5):
        while keeper.serving:
            await asyncio.sleep(0)  # the handlers notice one by one that the client left


@pytest.mark.parametrize(("engine_type", "connections"), [(OpenAIEngine, 1), (LlamaServerEngine, 3)])
def test_requests_share_a_connection_where_the_server_keeps_it(engine_type: type[HttpEngine], connections: int) -> None:
    async def go() -> None:
        async with keeping(engine_type) as (keeper, engine):
            for text in ("a", "b", "c"):
                call = chat_call(text, stream=True)
                async with engine.forward(call) as reply:
                    assert await read(reply.body) == call.body
            assert keeper.connections == connections

    asyncio.run(go())


def test_an_answer_that_was_left_never_has_the_bytes_of_the_next_one() -> None:
    async def go() -> None:
        async with keeping(OpenAIEngine) as (keeper, engine):
            async with engine.forward(chat_call("mine", stream=True)) as left:
                assert b"mine" in await read(left.body)
            async with engine.forward(chat_call("yours", stream=True)) as reply:
                with pytest.raises(EngineBrokenError, match="given up"):
                    await read(left.body)
                with pytest.raises(EngineBrokenError, match="given up"):
                    await pump(left.body, lambda _: True)
                assert b"yours" in await read(reply.body)
            assert keeper.connections == 1

    asyncio.run(go())


@pytest.mark.parametrize("request_id", ["a\r\nX-Evil: 1", "a\0"])
def test_a_request_id_cannot_add_a_header(request_id: str) -> None:
    async def go() -> None:
        async with connected(http_answer(b"{}")) as (server, engine):
            with pytest.raises(ValueError, match="no text"):
                async with engine.forward(EngineCall(CHAT_PATH, b"{}", request_id)):
                    pass
            assert server.requests == []

    asyncio.run(go())


# --- generate -------------------------------------------------------------------------------------------------------


def test_a_prompt_is_asked_and_answered_through_the_chat_api() -> None:
    async def go() -> None:
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
        pieces = [
            event(choices=[{"delta": {"role": "assistant", "content": None}}], model="tiny-1"),
            said("Hel", model="tiny-1"),
            said("lo", model="tiny-1"),
            said("", "length", model="tiny-1"),
            event(choices=[], usage=usage, timings={"prompt_ms": 10.4, "predicted_ms": 20.2}),
            DONE,
        ]
        async with connected(*sse_answer(*pieces)) as (server, engine):
            prompt = Prompt("Hi", model="tiny", system="Be brief", max_tokens=2, temperature=0)
            answer = await generated(engine, prompt)

        assert answer == [Token("Hel"), Token("lo"), Finished(Usage(7, 2, 3), "length", "tiny-1", 31)]
        assert json.loads(server.requests[0][2]) == {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 2,
            "temperature": 0,
        }

    asyncio.run(go())


@pytest.mark.parametrize("odd", ["inf", "nan", -5.0])
def test_a_time_that_is_none_is_measured_here(odd: object) -> None:
    async def go() -> None:
        pieces = [said("a"), event(choices=[], timings={"prompt_ms": odd}), DONE]
        async with connected(*sse_answer(*pieces)) as (_server, engine):
            answer = await generated(engine, Prompt("Hi"))

        finished = answer[-1]
        assert isinstance(finished, Finished)
        assert 0 <= finished.inference_time_ms < 60_000

    asyncio.run(go())


def test_what_a_prompt_leaves_open_is_not_sent() -> None:
    async def go() -> None:
        async with connected(*sse_answer(said("a"), DONE)) as (server, engine):
            answer = await generated(engine, Prompt("Hi"))

        assert set(json.loads(server.requests[0][2])) == {"messages", "stream", "stream_options"}
        assert answer[0] == Token("a")
        finished = answer[1]
        assert isinstance(finished, Finished)
        assert finished.usage == Usage(completion_tokens=1)
        assert finished.finish_reason == "stop"
        assert finished.inference_time_ms >= 0

    asyncio.run(go())


@pytest.mark.parametrize(("configured", "asked"), [("mine", "mine"), ("", "served")])
def test_without_a_model_the_configured_one_is_asked_then_the_first_served(configured: str, asked: str) -> None:
    async def go() -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            is_list = server.requests[-1][0].startswith("GET")
            listed = http_answer(b'{"data":[{"id":"served"}]}')
            writer.write(listed if is_list else b"".join(sse_answer(said("a"), DONE)))

        async with connected(answer=answer, model=configured) as (server, engine):
            await engine.observe()
            await generated(engine, Prompt("Hi"))
            assert json.loads(server.requests[-1][2])["model"] == asked

    asyncio.run(go())


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (sse_answer(said("a")), r"without its end mark \[DONE\]"),
        (sse_answer(said("a"), event(error={"message": "oom"}), DONE), "error in its answer: oom"),
        (sse_answer(said("a"), ended=False), "broke off"),
        (sse_answer(b"data: [1]\n\n", DONE), "no chat completion"),
    ],
)
def test_a_stream_that_breaks_never_finishes(pieces: list[bytes], message: str) -> None:
    async def go() -> None:
        async with connected(*pieces) as (_server, engine):
            with pytest.raises(EngineBrokenError, match=message):
                await generated(engine, Prompt("Hi"))

    asyncio.run(go())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no such model"}}', "HTTP 404: no such model"),
        (b"", "no message"),
        (b"x" * 90_000, "xxx"),
    ],
)
def test_a_refused_prompt_says_why(body: bytes, message: str) -> None:
    async def go() -> None:
        async with connected(http_answer(body, status="404 Not Found", head="Retry-After: 3\r\n")) as (_server, engine):
            with pytest.raises(EngineRefusedError, match=message) as caught:
                await generated(engine, Prompt("Hi"))
        assert (caught.value.status, caught.value.retry_after_s) == (404, 3.0)

    asyncio.run(go())


def test_closing_the_generator_closes_the_engines_connection() -> None:
    async def go() -> None:
        pieces = sse_answer(said("a"), ended=False)
        async with connected(answer=lambda writer: hold_after(writer, *pieces)) as (server, engine):
            async with aclosing(engine.generate(Prompt("Hi"))) as events:
                assert await anext(events) == Token("a")
            async with asyncio.timeout(5):
                await server.left.wait()

    asyncio.run(go())


# --- observe --------------------------------------------------------------------------------------------------------


async def observed(answer: bytes, **fields: Any) -> Observation:
    async with raw_server(answer) as server, running(OpenAIEngine(server.url, **fields)) as engine:
        return await engine.observe()


def test_a_servers_models_are_its_sign_of_life() -> None:
    body = b'{"data":[{"id":"a","max_model_len":8192},{"id":"b","meta":{"n_ctx":4096}},{"id":"c"}]}'

    observation = asyncio.run(observed(http_answer(body), slots=16))

    models = (ModelInfo("a", context_length=8192), ModelInfo("b", context_length=4096), ModelInfo("c"))
    assert observation == Observation(ready=True, models=models, slots_total=16, canaries=False)


@pytest.mark.parametrize(
    "answer", [http_answer(b"{}", status="404 Not Found"), http_answer(b"nonsense"), http_answer(b'{"data":[]}')]
)
def test_a_server_without_a_list_serves_the_configured_model(answer: bytes) -> None:
    assert asyncio.run(observed(answer, model="mine")).models == (ModelInfo("mine"),)
    assert asyncio.run(observed(answer)) == Observation(ready=True, canaries=False)


@pytest.mark.parametrize(
    ("status", "detail"),
    [("401 Unauthorized", "check NEUROGATE_ENGINE_API_KEY"), ("500 Oops", "answers HTTP 500 (broken)")],
)
def test_a_server_that_refuses_is_not_ready_and_says_why(status: str, detail: str) -> None:
    observation = asyncio.run(observed(http_answer(b'{"error":"broken"}', status=status)))

    assert not observation.ready
    assert detail in observation.detail


def test_a_server_that_hangs_is_not_ready_after_two_seconds() -> None:
    async def go() -> None:
        async with connected(answer=hold_after) as (_server, engine):
            loop = asyncio.get_running_loop()
            began = loop.time()
            observation = await engine.observe()
            assert 1.9 < loop.time() - began < 4
            assert "no answer in time" in observation.detail
            await engine.stop()

    asyncio.run(go())
