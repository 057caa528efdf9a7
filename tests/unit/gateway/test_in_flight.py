"""What is in flight at a gateway, read off the requests themselves."""

from __future__ import annotations

import asyncio

from dataplane_support import turns
from gateway_support import Edge, chat, edge, prompt
from neurogate import virtual_time
from neurogate.channel import End, EndCode
from neurogate.gateway.in_flight import Flight, Row
from neurogate.testing.connections import FakeClient
from neurogate.testing.workers import answers, ends


def rows(made: Edge) -> list[Row]:
    return list(made.in_flight.rows(asyncio.get_running_loop().time()))


def test_requests_are_told_the_oldest_first_with_phase_and_age() -> None:
    async def main() -> None:
        async with edge(max_concurrent=2) as made:
            made.ask(chat(headers=[("x-request-id", "streamed")]))
            await asyncio.sleep(1)
            made.ask(prompt(model=""))
            made.ask(chat(headers=[("x-request-id", "waits")]))
            await asyncio.sleep(1)
            calls = made.data_plane.worker().calls

            assert [(row.id, row.phase, row.age_s) for row in rows(made)] == [
                ("streamed", "prefill", 2.0),
                ("req-42", "whole", 1.0),
                ("waits", "queue", 1.0),
            ]
            calls[0].chunk(b'data: {"choices":[]}\n\n')
            first, second, third = rows(made)
            assert (first.phase, first.tokens, first.worker, first.attempts) == ("decode", 1, "worker-0", 1)
            assert (first.stream, second.stream, second.path) == (True, False, "/prompt")
            assert (third.worker, third.attempts) == ("", 0)
            assert [row.number for row in rows(made)] == [1, 2, 3]
            assert list(made.in_flight.find("nobody", 0.0)) == []

            for _ in range(3):
                for call in list(calls):
                    call.end(End(http_status=200, body=b"{}"))
                await turns()

    virtual_time.run(main())


def test_requests_of_one_id_are_found_the_latest_first() -> None:
    async def main() -> None:
        async with edge() as made:
            for name in ("same", "other", "same"):
                made.ask(chat(headers=[("x-request-id", name)]))
                await asyncio.sleep(1)

            found = list(made.in_flight.find("same", asyncio.get_running_loop().time()))
            assert [(row.id, row.number, row.age_s) for row in found] == [("same", 3, 1.0), ("same", 1, 3.0)]
            for call in list(made.data_plane.worker().calls):
                call.end(End(http_status=200))

    virtual_time.run(main())


def test_a_request_whose_body_has_not_arrived_comes_in() -> None:
    async def main() -> None:
        async with edge() as made:
            client = FakeClient("/v1/chat/completions", headers=[("content-length", "9")], whole=False)
            asked = made.ask(client)
            await turns()

            assert [row.phase for row in rows(made)] == ["intake"]
            client.leave()
            await asked
            assert len(made.in_flight) == 0
            assert made.in_flight.total == 1

    virtual_time.run(main())


def test_failures_are_told_and_clients_mistakes_are_not() -> None:
    failed: list[Flight] = []

    async def main() -> None:
        async with edge(on_failure=failed.append) as made:
            worker = made.data_plane.worker()
            worker.script = ends(EndCode.BROKEN)
            await made.ask(chat())
            worker.script = answers(b'data: {"choices":[]}\n\n', end=End(EndCode.BROKEN))
            await made.ask(chat())
            worker.script = answers(b"data: [DONE]\n\n")
            await made.ask(chat())
            await made.ask(FakeClient("/v1/chat/completions", b"{", headers=[("content-length", "1")]))

            assert [flight.failure for flight in failed] == ["engine_failed", "stream_broken"]
            assert [flight.status for flight in failed] == [502, 200]
            assert [flight.worker_id for flight in failed] == ["worker-0", "worker-0"]

    virtual_time.run(main())


def test_a_request_that_never_became_an_exchange_tells_why() -> None:
    failed: list[Flight] = []

    async def main() -> None:
        async with edge(max_concurrent=1, max_queue=0, on_failure=failed.append) as made:
            first = made.ask(chat())
            await turns()
            await made.ask(chat())

            assert [(each.failure, each.exchange, each.worker_id) for each in failed] == [("queue_full", None, "")]
            made.data_plane.worker().calls[0].end(End(http_status=200))
            await first

    virtual_time.run(main())
