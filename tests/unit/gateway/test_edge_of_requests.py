"""Requests at the edge of the gateway: they wait for their turn, are limited, and pay for what they used."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from dataplane_support import turns
from gateway_support import CHAT, Edge, chat, edge, prompt
from neurogate.channel import End, EndCode
from neurogate.edge.caller import ANYBODY
from neurogate.edge.keyfile import digest
from neurogate.inference import Usage
from neurogate.testing.connections import FakeClient
from neurogate.testing.workers import FakeCall
from neurogate.virtual_time import run

DONE = b"data: [DONE]\n\n"
GOOD = End(http_status=200, usage=Usage(3, 4))


def calls(made: Edge) -> list[FakeCall]:
    return made.data_plane.worker().calls


async def occupied(made: Edge) -> FakeCall:
    """The only room is taken."""
    return await made.asked(chat())


def waits(made: Edge, outcome: str) -> float:
    return made.value("queue_wait_seconds_count", outcome=outcome)


def test_a_request_waits_for_its_turn_and_then_goes() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1) as made:
            first = await occupied(made)
            client = chat()
            made.ask(client)
            await turns()
            assert (len(calls(made)), made.admission.waiting, client.status) == (1, 1, 0)

            first.end(GOOD)
            await turns()
            assert made.admission.waiting == 0
            calls(made)[1].chunk(DONE)
            calls(made)[1].end(GOOD)
            await turns()
            assert (client.status, client.body, client.complete) == (200, DONE, True)
            assert waits(made, "turn") == 1

    run(main())


def test_a_turn_goes_on_however_the_request_before_ended() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1) as made:
            gone = chat()
            first = await made.asked(gone)
            clients = [chat(stream=False) for _ in range(3)]
            for client in clients:
                made.ask(client)
            await turns()
            gone.leave()
            await turns()
            assert first.cancelled
            assert len(calls(made)) == 2
            calls(made)[1].end(End(http_status=400, body=b"{}"))
            await turns()
            assert len(calls(made)) == 3
            await asyncio.sleep(301)  # its time runs out, and the last one's time in the queue too
            assert [client.status for client in clients] == [400, 504, 503]

    run(main())


def test_a_waiting_stream_is_told_its_place_and_the_answer_follows() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1, keepalive_s=5) as made:
            first = await occupied(made)
            ahead, client = prompt(), chat()
            made.ask(ahead)
            await turns()
            made.ask(client)
            await asyncio.sleep(11)
            assert (client.status, client.headers["content-type"]) == (200, "text/event-stream")
            assert client.body == b": waiting for a turn, 1 before this one\n\n" * 2
            assert ahead.status == 0  # nothing can be said to an unstreamed one
            assert made.value("time_to_first_byte_seconds_count", path=CHAT) == 0

            first.end(GOOD)
            await turns()
            calls(made)[1].end(End(http_status=400, body=b"{}"))
            await turns()
            calls(made)[2].chunk(DONE)
            calls(made)[2].end(GOOD)
            await turns()
            assert client.body.endswith(b"before this one\n\n" + DONE)
            assert client.complete

    run(main())


@pytest.mark.parametrize(
    ("settings", "headers"),
    [({"keepalive_s": 0}, []), ({"keepalive_s": 5}, [("x-neurogate-queue-comments", "off")])],
)
def test_comments_can_be_turned_off(settings: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    async def main() -> None:
        async with edge(max_concurrent=1, queue_timeout_s=30, **settings) as made:
            first = await occupied(made)
            client = chat(headers=headers)
            made.ask(client)
            await asyncio.sleep(20)
            assert client.status == 0
            await asyncio.sleep(20)
            assert client.status == 503
            assert client.json()["error"]["code"] == "queue_timeout"
            assert client.headers["retry-after"] == "1"
            assert waits(made, "timeout") == 1
            first.end(GOOD)

    run(main())


def test_after_comments_whatever_goes_wrong_is_an_event() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1, keepalive_s=5, queue_timeout_s=12) as made:
            first = await occupied(made)
            late, refused = chat(), chat()
            made.ask(late)
            await asyncio.sleep(6)
            made.ask(refused)
            await asyncio.sleep(7)
            assert late.status == 200
            assert b'"code":"queue_timeout"' in late.body
            assert b"[DONE]" not in late.body

            first.end(GOOD)
            await turns()
            calls(made)[1].end(End(http_status=400, body=b'{"error":{"message":"no such field"}}'))
            await turns()
            assert (refused.status, refused.complete) == (200, True)
            assert b"no such field" in refused.body

    run(main())


@pytest.mark.parametrize("ending", ["cut by the server", "left"])
def test_whoever_is_too_late_and_does_not_read_that_holds_nothing(ending: str) -> None:
    async def main() -> None:
        async with edge(max_concurrent=1, queue_timeout_s=10) as made:
            first = await occupied(made)
            client = prompt()
            client.stop_reading()
            task = made.ask(client)
            await asyncio.sleep(11)
            assert client.connection.watched
            if ending == "left":
                client.connection.lose()
            else:
                task.cancel()
            await turns()
            assert (task.done(), client.connection.watched) == (True, False)
            client.read_on()
            await turns()
            assert client.status == 0  # nobody writes any more
            assert made.count(499 if ending == "left" else 503, "/prompt") == 1
            first.end(GOOD)

    run(main())


def test_a_turn_that_comes_to_whom_nothing_could_be_told_asks_nobody_for_long() -> None:
    """The connection failed while its place was told, and nobody had heard of its loss yet."""

    async def main() -> None:
        async with edge(max_concurrent=1, keepalive_s=5) as made:
            first = await occupied(made)
            client = chat()
            made.ask(client)
            client.send_error = RuntimeError("transport closed")
            client.connection.lose = lambda: None  # type: ignore[method-assign]
            await asyncio.sleep(6)
            assert made.admission.waiting == 1
            first.end(GOOD)
            await turns()
            assert [call.cancelled for call in calls(made)] == [False, True]
            assert made.count(499) == 1

    run(main())


def test_a_client_that_leaves_the_queue_is_forgotten() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1, keepalive_s=5) as made:
            first = await occupied(made)
            silent, told = prompt(), chat()
            made.ask(silent)
            made.ask(told)
            await asyncio.sleep(6)
            silent.leave()
            told.leave()
            await turns()
            assert made.admission.waiting == 0
            assert made.count(499) == 1
            assert waits(made, "left") == 2
            first.end(GOOD)

    run(main())


def test_a_full_queue_refuses_at_once() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1, max_queue=1, max_batch_queue=0) as made:
            first = await occupied(made)
            waiting, refused, batch = prompt(), prompt(), chat(headers=[("x-neurogate-priority", "batch")])
            for client in (waiting, refused, batch):
                made.ask(client)
            await turns()
            assert [client.status for client in (waiting, refused, batch)] == [0, 503, 503]
            assert refused.json()["code"] == "queue_full"
            waiting.leave()
            first.end(GOOD)

    run(main())


def asking(key: str, *, stream: bool = True, **fields: Any) -> FakeClient:
    return chat(stream=stream, headers=[("authorization", f"Bearer {key}")], **fields)


def test_requests_beyond_the_limit_are_refused_with_when_to_come_back() -> None:
    async def main() -> None:
        async with edge(api_keys=("a-long-key", "b-long-key"), requests_per_minute=2) as made:
            for _ in range(2):
                held = await made.asked(asking("a-long-key"))
                held.end(GOOD)
            refused = asking("a-long-key")
            made.ask(refused)
            other = await made.asked(asking("b-long-key"))
            other.end(GOOD)
            assert (refused.status, refused.json()["error"]["type"]) == (429, "rate_limit_error")
            assert int(refused.headers["retry-after"]) <= 60
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
            await asyncio.sleep(61)
            again = await made.asked(asking("a-long-key"))
            again.end(GOOD)

    run(main())


def test_a_refusal_of_a_request_that_was_counted_says_what_is_left() -> None:
    async def main() -> None:
        limits = {"requests_per_minute": 9, "max_concurrent": 1, "max_queue": 0}
        async with edge(api_keys=("a-long-key",), **limits) as made:
            first = await made.asked(asking("a-long-key"))
            full = asking("a-long-key")
            made.ask(full)
            await turns()
            assert full.json()["error"]["code"] == "queue_full"
            assert (full.headers["ratelimit-limit"], full.headers["ratelimit-remaining"]) == ("9", "7")
            first.end(End(http_status=500))
            await turns()
            failed = asking("a-long-key")
            (await made.asked(failed)).end(End(http_status=500))
            await turns()
            assert (failed.status, "ratelimit-remaining" in failed.headers) == (502, True)

    run(main())


@pytest.mark.parametrize(
    ("ending", "used"),
    [("answered", 7), ("refused", 0), ("unserved", 0)],
)
def test_what_was_not_used_is_given_back(ending: str, used: int) -> None:
    async def main() -> None:
        async with edge(api_keys=("a-long-key",), tokens_per_minute=1000, concurrent_per_key=1) as made:
            client = asking("a-long-key", max_tokens=900)
            held = await made.asked(client)
            match ending:
                case "answered":
                    held.end(GOOD)
                case "refused":
                    held.end(End(http_status=400, body=b"{}"))
                case _:
                    held.end(End(http_status=500))
            await turns()
            last = asking("a-long-key", max_tokens=960)
            held = await made.asked(last)
            held.end(GOOD)
            await turns()
            remaining = int(last.headers["x-ratelimit-remaining-tokens"])
            prompt_tokens = 1000 - 960 - used - remaining
            assert 0 < prompt_tokens < 40

    run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_an_answer_has_used_its_prompt(*, stream: bool) -> None:
    """The engine had it, and may have generated; a client that left the queue has used nothing."""

    async def main() -> None:
        async with edge(api_keys=("a-long-key",), tokens_per_minute=1000, max_concurrent=1) as made:
            client = asking("a-long-key", stream=stream, user="x" * 380, max_tokens=800)
            await made.asked(client)
            queued = asking("a-long-key", stream=stream, max_tokens=10)
            made.ask(queued)
            await turns()
            assert made.admission.waiting == 1
            queued.leave()
            client.leave()
            await turns()
            assert (client.status, queued.status, made.count(499)) == (0, 0, 2)

            last = asking("a-long-key", max_tokens=800)
            (await made.asked(last)).end(GOOD)
            await turns()
            used = 1000 - 800 - int(last.headers["x-ratelimit-remaining-tokens"])
            assert 120 < used < 160

    run(main())


def test_a_stream_that_was_cut_is_charged_about_what_came() -> None:
    async def main() -> None:
        async with edge(api_keys=("a-long-key",), tokens_per_minute=1000) as made:
            client = asking("a-long-key", max_tokens=500)
            held = await made.asked(client)
            for _ in range(100):
                held.chunk(b'data: {"choices":[]}\n\n')
            client.leave()
            await turns()
            refused = asking("a-long-key", max_tokens=900)
            made.ask(refused)
            await turns()
            assert refused.status == 429

    run(main())


def test_a_key_bound_to_models_and_routes_may_use_no_others(tmp_path: Any) -> None:
    async def main() -> None:
        file = tmp_path / "keys.txt"
        stored = digest(b"a-long-key").hex()
        file.write_text(f"alice:sha256${stored}:: models=tiny routes=/v1/chat/*\n")
        async with edge(keys_file=str(file), default_model="tiny") as made:
            made.data_plane.worker().become_ready(models=("tiny", "large"))
            wrong_model, wrong_route = asking("a-long-key", model="large"), prompt()
            wrong_route.scope["headers"].append((b"authorization", b"Bearer a-long-key"))
            made.ask(wrong_model)
            made.ask(wrong_route)
            await turns()
            assert (wrong_model.status, wrong_route.status) == (403, 403)
            assert wrong_model.json()["error"]["code"] == "not_allowed"
            assert [entry.key_id for entry in made.entries] == ["alice", "alice"]  # whose key it was is known
            twice = asking("a-long-key", model="tiny", Model="large")  # Ollama would take the second
            made.ask(twice)
            await turns()
            assert (twice.status, twice.json()["error"]["param"]) == (400, "model")
            hidden = asking("a-long-key", Model="large")  # beside the default that the gateway puts in
            long = asking("a-long-key", model="x" * 300)
            made.ask(hidden)
            made.ask(long)
            await turns()
            assert [(client.status, client.json()["error"]["param"]) for client in (hidden, long)] == [
                (400, "model")
            ] * 2
            good = await made.asked(asking("a-long-key", model="tiny"))
            good.end(GOOD)

    run(main())


def test_a_request_ends_with_the_time_that_its_client_gave_it() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat(headers=[("x-neurogate-timeout", "2.5")])
            call = await made.asked(client)
            assert call.call.deadline == pytest.approx(2.5)
            await asyncio.sleep(3)
            assert (client.status, call.cancelled) == (504, True)
            wrong = chat(headers=[("x-neurogate-timeout", "soon")])
            await made.ask(wrong)
            assert (wrong.status, wrong.json()["error"]["code"]) == (400, "invalid_request")

    run(main())


def limit_s(made: Edge) -> float:
    """How long those without a key may wait at most, going by others."""
    return made.admission._patience.limit_s(ANYBODY.key_id, asyncio.get_running_loop().time())


def test_only_requests_that_waited_teach_the_queue() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1) as made:
            need = made.admission._needs.of(("", ""), None)
            for _ in range(20):
                (await made.asked(chat())).end(GOOD)
                await turns()
            assert need.seconds == 0.0
            for _ in range(9):
                first = await occupied(made)
                made.ask(chat())
                await turns()
                first.end(GOOD)
                await turns()
                await asyncio.sleep(2)
                calls(made)[-1].chunk(DONE)
                calls(made)[-1].end(GOOD)
                await turns()
            assert need.seconds == pytest.approx(2.2)
            for _ in range(16):
                first = await occupied(made)
                leaving = chat()
                made.ask(leaving)
                await asyncio.sleep(10)
                first.end(GOOD)
                await turns()
                leaving.leave()
                await turns()
            assert limit_s(made) == pytest.approx(0.7 * (10 - 2))

    run(main())


def test_the_answer_that_broke_off_for_lack_of_time_teaches_as_well() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1) as made:
            need = made.admission._needs.of(("", ""), None)
            for _ in range(8):
                need.answered(1.0)
            before_s = need.seconds
            first = await occupied(made)
            client = chat(headers=[("x-neurogate-timeout", "5")])
            made.ask(client)
            await asyncio.sleep(3)
            first.end(GOOD)
            await turns()
            calls(made)[-1].chunk(b"data: {}\n\n")
            await asyncio.sleep(3)
            assert (client.status, client.complete) == (200, True)
            assert need.seconds > before_s

    run(main())


def test_answers_that_engines_broke_off_say_nothing_of_their_clients() -> None:
    async def main() -> None:
        async with edge(max_concurrent=1) as made:
            for _ in range(20):
                first = await occupied(made)
                client = chat()
                made.ask(client)
                await asyncio.sleep(5)
                first.end(GOOD)
                await turns()
                calls(made)[-1].chunk(b"data: {}\n\n")
                calls(made)[-1].end(End(EndCode.BROKEN))
                await turns()
                assert limit_s(made) == math.inf

    run(main())


def test_the_queue_hears_what_a_request_says_of_its_length_and_its_time() -> None:
    """A short one is not refused for what long ones need, nor who says its time for what others do not wait for."""

    async def main() -> None:
        async with edge(max_concurrent=1) as made:
            loop, admission = asyncio.get_running_loop(), made.admission
            for _ in range(8):
                admission._needs.of(("", ""), None).answered(60.0)
            for _ in range(16):
                admission._patience.gave_up(ANYBODY.key_id, waited_s=9, age_s=9, usual_s=0, now=loop.time())
            first = await occupied(made)
            in_time = ("x-neurogate-timeout", "20")
            long, short = chat(headers=[in_time]), chat(headers=[in_time], max_tokens=16)
            for client in (long, short):
                made.ask(client)
            await turns()
            assert (long.status, short.status) == (503, 0)
            assert made.admission.waiting == 1
            [[waiting]] = [list(queues.values()) for queues in admission._lines["interactive"]._by_key.values()]
            assert waiting[0].guessed is False
            first.end(GOOD)
            await turns()
            calls(made)[-1].chunk(DONE)
            calls(made)[-1].end(GOOD)
            await turns()
            assert short.status == 200

    run(main())
