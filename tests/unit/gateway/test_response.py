"""One answer on its way to one client: streamed, whole, failed, too slow, gone."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from dataplane_support import turns
from gateway_support import CHAT, Edge, chat, edge, prompt
from neurogate.channel import End, EndCode
from neurogate.inference import Usage
from neurogate.prompt_api import PromptAnswer
from neurogate.testing.connections import FakeClient
from neurogate.testing.workers import FakeCall, refuses
from neurogate.virtual_time import run

HEL = b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n'
LO = b'data: {"choices":[{"delta":{"content":"lo"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
GOOD = End(http_status=200, usage=Usage(3, 2), finish_reason="stop")


def error_of(client: FakeClient) -> dict[str, object]:
    """The error of a JSON body in OpenAI's form."""
    error: dict[str, object] = client.json()["error"]
    return error


# The good ways


def test_a_stream_is_written_as_it_comes() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat()
            held = await made.asked(client)
            await asyncio.sleep(0.5)
            assert client.status == 0
            held.chunk(HEL)
            assert (client.status, client.chunks) == (200, [HEL])
            held.chunk(LO + DONE)
            assert client.chunks == [HEL, LO + DONE]
            assert not client.complete
            held.end(GOOD)
            assert client.complete
            await turns()
            assert client.body == HEL + LO + DONE
            assert client.headers == {
                "content-type": "text/event-stream",
                "cache-control": "no-store",
                "x-accel-buffering": "no",
                "x-request-id": "req-42",
                "x-neurogate-worker": "worker-0",
                "x-neurogate-attempts": "1",
            }
            assert not client.connection.watched
            assert not client.connection.aborted
            assert made.count(200) == 1
            assert made.value("time_to_first_byte_seconds_sum", path=CHAT) == 0.5
            assert made.value("tokens_total", kind="prompt") == 3
            assert made.value("tokens_total", kind="completion") == 2

    run(main())


def test_a_stream_without_a_chunk_is_complete_all_the_same() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat()
            (await made.asked(client)).end(GOOD)
            await turns()
            assert (client.status, client.body, client.complete) == (200, b"", True)
            assert client.headers["content-type"] == "text/event-stream"

    run(main())


def test_a_whole_answer_is_written_in_one_piece() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat(stream=False)
            held = await made.asked(client)
            held.chunk(b'{"choices":')
            held.chunk(b"[]}")
            assert client.status == 0
            held.end(End(http_status=201, content_type="application/x", usage=Usage(3, 2)))
            await turns()
            assert (client.status, client.chunks, client.complete) == (201, [b'{"choices":[]}'], True)
            assert client.headers["content-type"] == "application/x"
            assert client.headers["content-length"] == "14"
            assert client.headers["x-neurogate-worker"] == "worker-0"
            assert made.count(201) == 1
            assert made.value("time_to_first_byte_seconds_count", path=CHAT) == 0

    run(main())


def test_a_prompt_answer_says_who_gave_it_and_how_long_it_took() -> None:
    async def main() -> None:
        said = PromptAnswer(
            request_id="req-42",
            response="Hello",
            model="tiny",
            tokens=5,
            prompt_tokens=3,
            completion_tokens=2,
            finish_reason="stop",
            inference_time_ms=9,
        )
        async with edge() as made:
            client = prompt()
            held = await made.asked(client)
            await asyncio.sleep(1.25)
            held.chunk(msgspec.json.encode(said))
            held.end(GOOD)
            await turns()
            assert client.json() == {**msgspec.to_builtins(said), "worker_id": "worker-0", "latency_ms": 1250}

    run(main())


def test_an_answer_from_the_second_worker_says_so() -> None:
    async def main() -> None:
        async with edge(2) as made:
            client = chat(stream=False)
            (await made.asked(client)).end(End(EndCode.UNAVAILABLE, message="crashed"))
            await turns()
            [second] = made.data_plane.worker(1).calls
            second.chunk(b"{}")
            second.end(GOOD)
            await turns()
            assert (client.status, client.body) == (200, b"{}")
            assert client.headers["x-neurogate-worker"] == "worker-1"
            assert client.headers["x-neurogate-attempts"] == "2"

    run(main())


# Errors


def test_an_error_before_the_first_byte_is_an_answer() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat()
            (await made.asked(client)).end(End(EndCode.BROKEN, message="out of memory"))
            await turns()
            assert client.status == 502
            assert client.complete
            assert client.headers["content-type"] == "application/json"
            assert client.headers["content-length"] == str(len(client.body))
            assert client.headers["x-request-id"] == "req-42"
            assert client.headers["x-neurogate-attempts"] == "1"
            assert error_of(client)["code"] == "engine_failed"
            assert "out of memory" in str(error_of(client)["message"])
            assert made.count(502) == 1
            assert made.value("broken_streams_total") == 0

    run(main())


def test_an_error_after_the_first_byte_ends_the_stream_aloud() -> None:
    """As an event of its own, and with no end mark: a cut stream never looks complete."""

    async def main() -> None:
        async with edge() as made:
            client = chat()
            held = await made.asked(client)
            held.chunk(HEL)
            with capture_logs() as logs:
                held.end(End(EndCode.BROKEN, message="out of memory"))
                await turns()
            assert client.status == 200
            assert client.complete
            assert client.chunks[0] == HEL
            event = client.chunks[1]
            assert event.startswith(b"\n\ndata: ")
            assert msgspec.json.decode(event[8:])["error"]["code"] == "stream_broken"
            assert DONE not in client.body
            assert made.value("broken_streams_total") == 1
            assert made.count(200) == 1
            [log] = [log for log in logs if log["event"] == "request failed"]
            assert (log["code"], log["started"], log["request_id"]) == ("stream_broken", True, "req-42")

    run(main())


def test_a_busy_fleet_says_when_to_try_again() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat()
            (await made.asked(client)).end(End(EndCode.BUSY, retry_after_s=7.4, message="full"))
            await turns()
            assert client.status == 503
            assert client.headers["retry-after"] == "8"  # never earlier than the worker said
            assert error_of(client)["code"] == "workers_busy"

    run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_an_engines_refusal_passes_as_it_is(stream: bool) -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat(stream=stream)
            made.data_plane.worker().then(refuses(400, body=b'{"error":{"message":"too long"}}'))
            made.ask(client)
            await turns(6)
            assert (client.status, client.body) == (400, b'{"error":{"message":"too long"}}')
            assert client.headers["content-type"] == "application/json"
            assert made.count(400) == 1

    run(main())


def test_an_engines_refusal_keeps_its_retry_after() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat()
            made.data_plane.worker().then(refuses(409, body=b"{}", retry_after_s=0.2))
            made.ask(client)
            await turns(6)
            assert (client.status, client.headers["retry-after"]) == (409, "1")

    run(main())


def test_a_request_that_nobody_can_take_is_answered_at_once() -> None:
    """Before `dispatch` has returned: nobody was asked, and no header says so."""

    async def main() -> None:
        async with edge(failfast_s=0) as made:
            made.data_plane.dispatcher.failfast_s = 0
            made.data_plane.worker().become_unready("loading")
            await turns()
            client = chat()
            made.ask(client)
            await turns()
            assert client.status == 503
            assert "loading" in str(error_of(client)["message"])
            assert "x-neurogate-worker" not in client.headers
            assert made.count(503) == 1

    run(main())


@pytest.mark.parametrize("answer", [b"", b"<html>oops</html>", b"{}", b"\xff"])
def test_an_answer_that_is_none_is_the_engines_failure(answer: bytes) -> None:
    async def main() -> None:
        async with edge() as made:
            client = prompt()
            held = await made.asked(client)
            held.chunk(answer)
            held.end(GOOD)
            await turns()
            assert client.status == 502
            assert client.json()["code"] == "engine_failed"

    run(main())


# Slow clients


def slow_edge(made: Edge) -> FakeClient:
    client = chat()
    client.stop_reading()
    return client


def test_a_client_that_reads_on_gets_everything_in_order() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat()
            held = await made.asked(client)
            held.chunk(HEL)
            for _ in range(3):
                client.stop_reading()
                held.chunk(LO)
                held.chunk(LO)
                await asyncio.sleep(1)
                client.read_on()
                await turns()
            held.chunk(DONE)
            held.end(GOOD)
            await turns()
            assert client.body == HEL + LO * 6 + DONE
            assert client.complete
            assert made.value("slow_clients_total") == 0
            assert made.count(200) == 1

    run(main())


def test_a_client_that_stops_again_while_it_catches_up_loses_nothing() -> None:
    async def main() -> None:
        async with edge() as made:
            client = slow_edge(made)
            held = await made.asked(client)
            for number in range(5):
                held.chunk(b"%d" % number)
            client.read_on()
            client.stop_reading()  # the head passes, what is held behind it waits again
            await turns()
            held.chunk(b"5")
            client.read_on()
            await turns()
            held.end(GOOD)
            await turns()
            assert client.body == b"012345"
            assert client.complete

    run(main())


def test_a_client_that_is_too_slow_loses_its_request_and_nobody_elses() -> None:
    """What is held for it is bounded; past the bound its generation is stopped and its connection cut."""

    async def main() -> None:
        async with edge(stream_buffer_bytes=1000) as made:
            slow, quick = slow_edge(made), chat()
            held, other = await made.asked(slow), await made.asked(quick)
            with capture_logs() as logs:
                for _ in range(10):
                    held.chunk(b"x" * 100)
                assert not slow.connection.aborted
                for _ in range(20):
                    held.chunk(b"x" * 100)
                assert slow.connection.aborted
                await turns()
            assert held.cancelled
            assert not slow.connection.watched
            assert slow.chunks == []
            assert made.value("slow_clients_total") == 1
            assert made.count(499) == 1
            assert [log["reason"] for log in logs if log["event"] == "client given up"] == ["slow_client"]
            other.chunk(HEL)
            other.end(GOOD)
            await turns()
            assert (quick.body, quick.complete) == (HEL, True)

    run(main())


def test_a_client_may_take_its_time_for_the_end() -> None:
    async def main() -> None:
        async with edge(body_timeout_s=30) as made:
            client = chat()
            held = await made.asked(client)
            held.chunk(HEL)
            client.stop_reading()
            held.chunk(LO)
            held.end(GOOD)
            await asyncio.sleep(29)
            assert not client.connection.aborted
            client.read_on()
            await turns()
            assert client.body == HEL + LO
            assert client.complete
            assert made.count(200) == 1

    run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_never_reads_the_end_is_cut_off(stream: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with edge(body_timeout_s=30) as made:
            client = chat(stream=stream)
            held = await made.asked(client)
            client.stop_reading()
            await asyncio.sleep(10)
            held.chunk(HEL)
            held.end(GOOD)
            await asyncio.sleep(30)
            await turns()
            assert loop.time() == 40
            assert client.connection.aborted
            assert made.count(499) == 1

    run(main())


# Clients that leave


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("started", [True, False])
def test_a_client_that_leaves_stops_its_generation(stream: bool, started: bool) -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat(stream=stream)
            held = await made.asked(client)
            if started:
                held.chunk(HEL)
            client.leave()
            await turns()
            assert held.cancelled
            assert not client.complete
            assert not client.connection.aborted
            assert made.count(499) == 1
            assert made.value("slow_clients_total") == 0

    run(main())


def test_a_client_that_leaves_while_it_was_slow_stops_its_generation() -> None:
    async def main() -> None:
        async with edge() as made:
            client = slow_edge(made)
            held = await made.asked(client)
            held.chunk(HEL)
            client.connection.lose()
            held.chunk(LO)
            await turns()
            assert held.cancelled
            assert made.count(499) == 1

    run(main())


def test_a_client_that_leaves_while_no_worker_is_there_is_forgotten() -> None:
    async def main() -> None:
        async with edge(up=False) as made:
            client = chat()
            made.ask(client)
            await turns()
            assert made.data_plane.pool.waiting == 1
            client.leave()
            await turns()
            assert made.data_plane.pool.waiting == 0
            assert made.count(499) == 1

    run(main())


def test_a_client_that_was_gone_before_its_request_was_dispatched_is_forgotten() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat()
            client.connection.lost = True
            held = await made.asked(client)
            assert held.cancelled
            assert made.count(499) == 1

    run(main())


def after_head(client: FakeClient, held: FakeCall) -> None:
    held.chunk(HEL)
    client.send_error = RuntimeError("transport closed")
    held.chunk(LO)


def at_head(client: FakeClient, held: FakeCall) -> None:
    client.send_error = RuntimeError("transport closed")
    held.chunk(HEL)


def at_end(client: FakeClient, held: FakeCall) -> None:
    held.chunk(HEL)
    client.send_error = RuntimeError("transport closed")
    held.end(GOOD)


def at_error(client: FakeClient, held: FakeCall) -> None:
    client.send_error = RuntimeError("transport closed")
    held.end(End(EndCode.BROKEN))


@pytest.mark.parametrize("failing", [at_head, after_head, at_end, at_error])
def test_a_connection_that_cannot_be_written_to_is_given_up(failing: object) -> None:
    """Without a word to the link, which carries others' tokens."""

    async def main() -> None:
        async with edge() as made:
            client = chat()
            held = await made.asked(client)
            failing(client, held)  # type: ignore[operator]
            held.chunk(LO)
            await turns()
            assert client.connection.aborted
            assert not held.open
            assert made.count(499) == 1

    run(main())


@pytest.mark.parametrize("content_type", ["text/x\r\nx-evil: 1", "a\nb", "\0"])
def test_an_engine_that_would_write_headers_of_its_own_has_its_answer_dropped(content_type: str) -> None:
    """Without a word to the link, which carries others' answers too."""

    async def main() -> None:
        async with edge() as made:
            client = chat(stream=False)
            held = await made.asked(client)
            held.chunk(b"{}")
            held.end(End(http_status=200, content_type=content_type))
            await turns()
            assert client.connection.aborted
            assert (client.status, client.body) == (0, b"")
            assert made.count(499) == 1

    run(main())


def test_a_connection_that_fails_while_a_write_waits_is_given_up() -> None:
    async def main() -> None:
        async with edge() as made:
            client = slow_edge(made)
            send = client.send

            async def failing_later(message: object) -> None:
                await send(message)  # type: ignore[arg-type]
                raise OSError("broken pipe")

            client.send = failing_later  # type: ignore[method-assign]
            held = await made.asked(client)
            held.chunk(HEL)
            client.read_on()
            await turns()
            assert client.connection.aborted
            assert held.cancelled
            assert made.count(499) == 1

    run(main())


def test_a_server_that_cuts_a_request_stops_its_generation() -> None:
    """As uvicorn does when the time for a graceful stop is over."""

    async def main() -> None:
        async with edge() as made:
            client = chat()
            task = made.ask(client)
            await turns()
            [held] = made.data_plane.worker().calls
            held.chunk(HEL)
            task.cancel()
            await turns()
            assert task.cancelled()
            assert held.cancelled
            assert not client.connection.watched

    run(main())


def test_a_deadline_in_the_middle_of_a_stream_is_told() -> None:
    async def main() -> None:
        async with edge(request_timeout_s=20) as made:
            client = chat()
            held = await made.asked(client)
            held.chunk(HEL)
            await asyncio.sleep(20)
            await turns()
            assert held.cancelled
            assert client.complete
            assert b"deadline_exceeded" in client.body
            assert made.value("broken_streams_total") == 1

    run(main())
