"""Requests of the hot endpoints, as the metrics by model, key, limit and load have them."""

from __future__ import annotations

import asyncio

from dataplane_support import turns
from gateway_support import chat, edge, prompt
from neurogate.channel import End, EndCode
from neurogate.inference import Usage
from neurogate.virtual_time import run

PIECE = b"data: {}\n\n"
GOOD = End(http_status=200, usage=Usage(3, 2, 1))


def test_a_stream_counts_for_its_model_from_head_to_end() -> None:
    async def main() -> None:
        async with edge() as made:
            made.data_plane.worker().become_ready(models=("tiny",))
            made.metrics.name_models(lambda: {"tiny"}, made.data_plane.pool.default_model)
            held = await made.asked(chat(model="tiny"))
            await asyncio.sleep(2)
            held.chunk(PIECE)
            await asyncio.sleep(1)
            held.end(GOOD)
            await turns()
            assert made.value("outcomes_total", model="tiny", outcome="answered") == 1
            assert made.value("time_to_first_token_seconds_sum", model="tiny") == 2
            assert made.value("time_per_output_token_seconds_sum", model="tiny") == 1
            assert made.value("end_to_end_seconds_sum", model="tiny") == 3
            assert made.value("model_tokens_total", model="tiny", kind="cached") == 1
            assert made.value("tokens_total", kind="completion") == 2

    run(main())


def test_a_request_that_names_no_model_counts_for_that_of_its_worker() -> None:
    async def main() -> None:
        async with edge() as made:
            made.data_plane.worker().become_ready(models=("tiny",))
            made.metrics.name_models(lambda: {"tiny"}, made.data_plane.pool.default_model)
            (await made.asked(chat(stream=False))).end(End(EndCode.BROKEN))
            await turns()
            assert made.value("outcomes_total", model="tiny", outcome="failed") == 1
            assert made.value("time_to_first_token_seconds_count", model="tiny") == 0

    run(main())


def test_an_engines_own_refusal_and_a_missing_worker_are_failures() -> None:
    async def main() -> None:
        async with edge() as made:
            held = await made.asked(chat())
            held.end(End(http_status=503))
            await turns()
            assert made.value("outcomes_total", model="unknown", outcome="failed") == 1
            made.data_plane.worker().become_unready("no engine")
            await turns()
            assert (await made.ask(prompt())).status == 503
            assert made.value("outcomes_total", model="unknown", outcome="failed") == 2
            assert made.value("outcomes_total", model="unknown", outcome="shed") == 0
            assert made.value("sheds_total", reason="none") == 1

    run(main())


def test_a_full_queue_and_a_turn_that_does_not_come_are_sheds() -> None:
    async def main() -> None:
        async with edge(max_queue=1, max_concurrent=1, queue_timeout_s=5) as made:
            held = await made.asked(prompt())
            waiting, refused = made.ask(prompt()), made.ask(prompt())
            await asyncio.sleep(6)
            assert [(await one).status for one in (waiting, refused)] == [503, 503]
            held.end(GOOD)
            await turns()
            assert made.value("sheds_total", reason="full") == 1
            assert made.value("sheds_total", reason="timeout") == 1
            assert made.value("outcomes_total", model="unknown", outcome="shed") == 2

    run(main())


def test_no_worker_is_a_shed_too() -> None:
    async def main() -> None:
        async with edge(up=False) as made:
            client = made.ask(chat())
            await asyncio.sleep(10)
            assert (await client).status == 503
            assert made.value("sheds_total", reason="none") == 1

    run(main())


def test_a_limit_names_itself_and_the_key_is_told() -> None:
    async def main() -> None:
        async with edge(api_keys=("a-long-key",), requests_per_minute=1) as made:
            key = [("authorization", "Bearer a-long-key")]
            (await made.asked(chat(headers=key))).end(GOOD)
            await turns()
            assert (await made.ask(chat(headers=key))).status == 429
            assert made.value("limits_hit_total", limit="requests") == 1
            assert made.value("key_requests_total", key="key-1", outcome="limited") == 1
            assert made.value("key_requests_total", key="key-1", outcome="answered") == 1
            assert made.value("key_tokens_total", key="key-1", kind="prompt") == 3

    run(main())
