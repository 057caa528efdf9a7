"""The simulated engine as a worker drives it, on virtual time."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

import sim_support
from neurogate.engines.engine import (
    Engine,
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineReply,
    EngineUnavailableError,
    EngineUnsupportedError,
)
from neurogate.engines.sim.core import CONTEXT_TOKENS
from neurogate.engines.sim.engine import SimEngine
from neurogate.errors import ConfigError
from neurogate.inference import Finished, GenerationEvent, Prompt, Token
from neurogate.virtual_time import run
from sim_support import WALL_S, chat_call, chat_text, engine, events


async def collect(made: SimEngine, call: EngineCall) -> tuple[EngineReply, bytes]:
    async with made.forward(call) as reply:
        return reply, b"".join([chunk async for chunk in reply.body])


async def generated(made: SimEngine, prompt: Prompt) -> list[GenerationEvent]:
    return [event async for event in made.generate(prompt)]


def test_it_is_an_engine() -> None:
    made: Engine = SimEngine(sim_support.settings(), rng=random.Random(1), now=lambda: 0.0)
    assert made.kind == "sim"
    assert repr(made) == "<SimEngine sim <Scheduler 0/2 busy, 0 queued>>"


def test_unknown_faults_refuse_to_start() -> None:
    with pytest.raises(ConfigError, match="NEUROGATE_SIM_FAULTS"):
        SimEngine(sim_support.settings(faults="x=1"), rng=random.Random(1), now=lambda: 0.0)


def test_a_streamed_answer_takes_the_time_its_speed_says() -> None:
    """The head comes with the first token, and every token a step later."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call = chat_call(stream=True, max_tokens=5)
        async with engine(prefill_tps=100, decode_tps=10) as made, made.forward(call) as reply:
            prompt_s = loop.time() - 0.1
            chunks = [(loop.time(), chunk) async for chunk in reply.body]
        usage = events(chunks[-1][1])[-1]["timings"]
        assert prompt_s == pytest.approx(usage["prompt_n"] / 100)
        assert [at - prompt_s for at, _ in chunks] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
        assert usage["predicted_ms"] == pytest.approx(500)
        assert usage["predicted_per_second"] == pytest.approx(10)

    run(main())


def test_every_chunk_of_a_stream_holds_whole_events() -> None:
    async def main() -> None:
        async with engine() as made, made.forward(chat_call(stream=True)) as reply:
            chunks = [chunk async for chunk in reply.body]
        assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)

    run(main())


def test_streamed_and_whole_answers_say_the_same_on_every_engine() -> None:
    async def main() -> None:
        async with engine(seed=1) as one, engine(seed=2, slots=1, decode_tps=7) as other:
            _, streamed = await collect(one, chat_call(stream=True))
            reply, whole = await collect(other, chat_call(stream=False))
        assert reply.content_type == "application/json"
        assert json.loads(whole)["choices"][0]["message"]["content"] == chat_text(streamed)

    run(main())


def test_a_lagging_reader_gets_its_tokens_in_bounded_pieces() -> None:
    async def main() -> None:
        async with engine() as made:
            call = chat_call(stream=True, max_tokens=300, ignore_eos=True)
            async with made.forward(call) as reply:
                body = aiter(reply.body)
                chunks = [await anext(body)]
                await asyncio.sleep(3600)
                chunks += [chunk async for chunk in body]
        assert max(chunk.count(b"\n\n") for chunk in chunks) == 64
        assert len(events(b"".join(chunks))) == 302

    run(main())


def test_other_paths_are_unsupported() -> None:
    made = SimEngine(sim_support.settings(), rng=random.Random(1), now=lambda: 0.0)
    with pytest.raises(EngineUnsupportedError, match="/v1/audio/speech"):
        made.forward(EngineCall("/v1/audio/speech", b"{}"))


def test_it_observes_the_whole_truth() -> None:
    async def main() -> None:
        async with engine(slots=1) as made:
            idle = await made.observe()
            assert (idle.ready, idle.detail, idle.slots_total, idle.restarts) == (True, "", 1, 0)
            assert [(model.name, model.loaded, model.context_length) for model in idle.models] == [
                ("sim", True, CONTEXT_TOKENS)
            ]
            assert idle.kv_used_ratio == 0
            async with asyncio.TaskGroup() as group, made.forward(chat_call(stream=True)) as reply:
                queued = group.create_task(collect(made, chat_call(stream=True)))
                body = aiter(reply.body)
                first = [await anext(body), await anext(body)]
                assert all(first)
                busy = await made.observe()
                assert (busy.slots_busy, busy.queued) == (1, 1)
                assert busy.kv_used_ratio
                queued.cancel()

    run(main())


def test_leaving_the_context_early_frees_the_slot_at_once() -> None:
    async def main() -> None:
        async with engine(slots=1) as made:
            async with made.forward(chat_call(stream=True)) as reply:
                await anext(aiter(reply.body))
            assert (await made.observe()).slots_busy == 0

    run(main())


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.2])
def test_cancelling_the_task_frees_the_slot_at_once(after_s: float) -> None:
    """In the queue, in prefill and while it says its tokens."""

    async def main() -> None:
        async with engine(slots=1) as made, asyncio.TaskGroup() as group:
            task = group.create_task(collect(made, chat_call(stream=True)))
            await asyncio.sleep(after_s)
            task.cancel()
            await asyncio.wait([task])
            assert (await made.observe()).slots_busy == 0

    run(main())


def test_run_waits_until_it_is_cancelled() -> None:
    async def main() -> None:
        async with engine() as made:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3600):
                    await made.run()

    run(main())


def test_stop_aborts_what_runs_and_takes_nothing_more() -> None:
    async def main() -> None:
        async with engine(slots=1) as made:
            async with made.forward(chat_call(stream=True)) as reply, asyncio.TaskGroup() as group:
                waiting = group.create_task(_expect_unavailable(made))
                body = aiter(reply.body)
                await anext(body)
                await made.stop()
                with pytest.raises(EngineBrokenError, match="stopped"):
                    await anext(body)
                await waiting
            await made.stop()
            assert (await made.observe()).detail == "Stopped"
            await _expect_unavailable(made)

    run(main())


async def _expect_unavailable(made: SimEngine) -> None:
    with pytest.raises(EngineUnavailableError):
        await collect(made, chat_call(stream=True))


def test_it_is_not_ready_before_it_started_and_may_be_stopped_then() -> None:
    async def main() -> None:
        made = SimEngine(sim_support.settings(), rng=random.Random(1), now=lambda: 0.0)
        assert (await made.observe()).detail == "Not started"
        await _expect_unavailable(made)
        await made.stop()

    run(main())


def test_generate_gives_tokens_and_then_the_account() -> None:
    async def main() -> None:
        async with engine(prefill_tps=100, decode_tps=10) as made:
            *tokens, finished = await generated(made, Prompt("Hello", system="Be kind", max_tokens=4))
        assert isinstance(finished, Finished)
        assert all(isinstance(token, Token) for token in tokens)
        assert (finished.finish_reason, finished.model, finished.usage.completion_tokens) == ("length", "sim", 4)
        assert finished.inference_time_ms == finished.usage.prompt_tokens * 10 + 400

    run(main())


def test_generate_says_what_the_chat_says() -> None:
    async def main() -> None:
        async with engine() as made:
            _, streamed = await collect(made, chat_call("Hello", stream=True))
            *tokens, finished = await generated(made, Prompt("Hello"))
        assert "".join(token.text for token in tokens if isinstance(token, Token)) == chat_text(streamed)
        assert isinstance(finished, Finished)
        assert finished.finish_reason == "stop"

    run(main())


def test_generate_refuses_a_model_it_has_not() -> None:
    async def main() -> None:
        async with engine() as made:
            with pytest.raises(EngineRefusedError, match="'gpt' does not exist") as raised:
                await generated(made, Prompt("Hello", model="gpt"))
            assert raised.value.status == 404

    run(main())


def test_closing_generate_frees_the_slot_at_once() -> None:
    async def main() -> None:
        async with engine() as made:
            stream = made.generate(Prompt("Hello"))
            await anext(stream)
            await stream.aclose()
            assert (await made.observe()).slots_busy == 0

    run(main())


@pytest.mark.parametrize(("taken", "error"), [(0, EngineUnavailableError), (2, EngineBrokenError)])
def test_generate_tells_a_stop_before_its_first_token_from_one_after_it(taken: int, error: type[Exception]) -> None:
    async def main() -> None:
        async with engine() as made, asyncio.TaskGroup() as group:
            stream = made.generate(Prompt("Hello"))
            for _ in range(taken):
                await anext(stream)
            group.create_task(made.stop())
            with pytest.raises(error):
                await anext(stream)

    run(main())


# Faults


def test_fault_error_answers_500_before_the_first_byte() -> None:
    async def main() -> None:
        async with engine(faults="error=1") as made:
            reply, body = await collect(made, chat_call(stream=True))
            assert (reply.status, reply.content_type) == (500, "application/json")
            assert json.loads(body)["error"]["type"] == "server_error"
            with pytest.raises(EngineRefusedError) as raised:
                await generated(made, Prompt("Hello"))
            assert raised.value.status == 500

    run(main())


def test_fault_error_is_the_same_for_the_same_seed() -> None:
    async def statuses() -> list[int]:
        async with engine(faults="error=0.5", decode_tps=0, prefill_tps=0, seed=5) as made:
            return [(await collect(made, chat_call(str(number))))[0].status for number in range(40)]

    first, second = run(statuses()), run(statuses())
    assert first == second
    assert set(first) == {200, 500}


def test_fault_busy_answers_503_with_retry_after() -> None:
    async def main() -> None:
        async with engine(faults="busy=1") as made:
            reply, _ = await collect(made, chat_call(stream=True))
            assert (reply.status, reply.retry_after_s) == (503, 1.0)
            with pytest.raises(EngineRefusedError) as raised:
                await generated(made, Prompt("Hello"))
            assert (raised.value.status, raised.value.retry_after_s) == (503, 1.0)

    run(main())


def test_fault_cut_after_ends_a_stream_without_its_end_mark() -> None:
    async def main() -> None:
        async with engine(faults="cut_after=5") as made:
            _, body = await collect(made, chat_call(stream=True))
            said = events(body)
            assert len(said) == 1 + 5
            assert b"[DONE]" not in body
            assert all(event["choices"][0]["finish_reason"] is None for event in said)

    run(main())


def test_fault_cut_after_breaks_a_whole_answer_off() -> None:
    async def main() -> None:
        async with engine(faults="cut_after=5") as made, made.forward(chat_call()) as reply:
            body = aiter(reply.body)
            with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
                json.loads(await anext(body))
            with pytest.raises(EngineBrokenError, match="cut_after"):
                await anext(body)

    run(main())


def test_fault_error_after_ends_a_stream_with_an_error_event() -> None:
    async def main() -> None:
        async with engine(faults="error_after=5") as made:
            reply, body = await collect(made, chat_call(stream=True))
            assert reply.status == 200
            assert events(body)[-1]["error"]["message"] == "simulated failure (fault error_after)"
            assert b"[DONE]" not in body
            whole, _ = await collect(made, chat_call())
            assert whole.status == 500

    run(main())


@pytest.mark.parametrize("fault", ["cut_after", "error_after"])
def test_a_broken_generation_has_no_last_event(fault: str) -> None:
    async def main() -> None:
        async with engine(faults=f"{fault}=3") as made:
            stream = made.generate(Prompt("Hello"))
            assert [type(await anext(stream)) for _ in range(3)] == [Token] * 3
            with pytest.raises(EngineBrokenError, match=fault):
                await anext(stream)

    run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_fault_hang_after_says_nothing_more_until_cancelled(*, stream: bool) -> None:
    async def main() -> None:
        async with engine(faults="hang_after=3", slots=1) as made:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(86_000):
                    await collect(made, chat_call(stream=stream))
            assert (await made.observe()).slots_busy == 0

    run(main())


@pytest.mark.parametrize(("after", "slow"), [(0, 6), (3, 3), (5, 1), (6, 0), (9, 0)])
def test_fault_slow_after_takes_its_time_for_every_further_token(after: int, slow: int) -> None:
    async def main() -> None:
        async with engine(faults=f"slow_after={after},token_every=60", slots=1) as made, engine() as other:
            loop = asyncio.get_running_loop()
            began_at = loop.time()
            _, body = await collect(made, chat_call(stream=True, max_tokens=6))
            assert 60 * slow <= loop.time() - began_at < 60 * slow + 1
            _, undisturbed = await collect(other, chat_call(stream=True, max_tokens=6))
            assert chat_text(body) == chat_text(undisturbed)
            assert body.endswith(b"data: [DONE]\n\n")
            assert (await made.observe()).slots_busy == 0

    run(main())


def test_a_slow_answer_keeps_its_slot_until_it_is_given_or_left() -> None:
    async def main() -> None:
        async with engine(faults="slow_after=2,token_every=60,hang_after=4", slots=1) as made:
            stream = made.generate(Prompt("Hello"))
            for _ in range(4):
                await anext(stream)
                assert (await made.observe()).slots_busy == 1
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 3600)
            assert (await made.observe()).slots_busy == 0

    run(main())


@pytest.mark.parametrize("after", [0, 3])
def test_fault_exit_after_ends_the_process(after: int) -> None:
    async def main() -> None:
        codes: list[int] = []
        async with engine(faults=f"exit_after={after}", exit_process=codes.append) as made:
            with pytest.raises(EngineBrokenError if after else EngineUnavailableError, match="exit_after"):
                await collect(made, chat_call(stream=True))
        assert codes == [70]

    run(main())


def test_an_answer_that_ends_before_a_fault_is_undisturbed() -> None:
    async def main() -> None:
        async with engine(faults="cut_after=5") as made:
            _, body = await collect(made, chat_call(stream=True, max_tokens=4))
            assert body.endswith(b"data: [DONE]\n\n")

    run(main())


def test_fault_refuse_is_never_ready() -> None:
    async def main() -> None:
        async with engine(faults="refuse=1") as made:
            observed = await made.observe()
            assert (observed.ready, observed.detail) == (False, "Refusing (fault refuse)")
            assert not observed.models[0].loaded
            await _expect_unavailable(made)
            with pytest.raises(EngineUnavailableError):
                await generated(made, Prompt("Hello"))

    run(main())


def test_fault_slow_start_is_ready_later() -> None:
    async def main() -> None:
        async with engine(faults="slow_start=2") as made:
            assert (await made.observe()).detail == "Loading model"
            await _expect_unavailable(made)
            await asyncio.sleep(1)
            await made.start()
            await asyncio.sleep(1)
            assert (await made.observe()).ready

    run(main())


def test_the_wall_clock_is_injected() -> None:
    async def main() -> None:
        async with engine() as made:
            _, body = await collect(made, chat_call(stream=True))
            assert {event["created"] for event in events(body)} == {int(WALL_S)}

    run(main())
