"""What is written down of a request that is over."""

from __future__ import annotations

import asyncio

import pytest

from dataplane_support import turns
from gateway_support import chat, edge, prompt
from neurogate.channel import End, EndCode
from neurogate.gateway.records import outcome
from neurogate.inference import Usage
from neurogate.testing.connections import FakeClient
from neurogate.virtual_time import run

PIECE = b"data: {}\n\n"
GOOD = End(http_status=200, usage=Usage(3, 2))


@pytest.mark.parametrize(
    ("status", "broken", "said"),
    [
        (200, False, "answered"),
        (302, False, "answered"),
        (200, True, "broken"),
        (502, True, "broken"),
        (404, False, "refused"),
        (499, False, "client_gone"),
        (499, True, "client_gone"),
        (500, False, "failed"),
    ],
)
def test_how_a_request_ended(status: int, broken: bool, said: str) -> None:
    assert outcome(status, broken=broken) == said


def test_a_stream_is_written_down_with_when_it_began() -> None:
    async def main() -> None:
        async with edge() as made:
            client = chat(headers=[("x-request-id", "mine-1")], model="tiny")
            made.data_plane.worker().become_ready(models=("tiny",))
            held = await made.asked(client)
            await asyncio.sleep(2)
            held.chunk(PIECE)
            await asyncio.sleep(1)
            held.end(GOOD)
            await turns()
            [entry] = made.entries
            assert (entry.at, entry.method, entry.path, entry.status) == (1e9, "POST", client.scope["path"], 200)
            assert (entry.ttft_s, entry.duration_s, entry.bytes, entry.outcome) == (2, 3, len(PIECE), "answered")
            assert (entry.prompt_tokens, entry.completion_tokens) == (3, 2)
            assert (entry.worker, entry.attempts, entry.model) == ("worker-0", 1, "tiny")
            assert (entry.request_id, entry.client, entry.prompt) == ("mine-1", "127.0.0.1", "")

    run(main())


def test_a_whole_answer_has_no_time_of_its_first_byte() -> None:
    async def main() -> None:
        async with edge() as made:
            held = await made.asked(chat(stream=False))
            await asyncio.sleep(2)
            held.chunk(b"{}")
            held.end(GOOD)
            await turns()
            [entry] = made.entries
            assert (entry.ttft_s, entry.duration_s, entry.bytes) == (None, 2, 2)

    run(main())


@pytest.mark.parametrize("what", ["refused unread", "refused by the queue", "failed", "broken", "late in the queue"])
def test_the_bytes_of_an_answer_are_counted_whoever_writes_it(what: str) -> None:
    async def main() -> None:
        limits = {"max_concurrent": 1, "keepalive_s": 5, "queue_timeout_s": 12}
        async with edge(max_queue=0 if what == "refused by the queue" else 1, **limits) as made:
            client = chat()
            match what:
                case "refused unread":
                    client = FakeClient(client.scope["path"], b"no JSON")
                    await made.ask(client)
                case "failed":
                    (await made.asked(client)).end(End(EndCode.BROKEN))
                case "broken":
                    held = await made.asked(client)
                    held.chunk(PIECE)
                    held.end(End(EndCode.BROKEN))
                case _:
                    held = await made.asked(prompt())
                    await made.ask(client)
                    held.end(GOOD)
            await turns()
            entry = next(entry for entry in made.entries if entry.path == client.scope["path"])
            assert entry.bytes == len(client.body) > 0
            assert entry.outcome == (
                "broken" if client.status == 200 else "refused" if client.status < 500 else "failed"
            )

    run(main())
