"""Who may go on with another worker's answer: one that has the same model, which is more than its name."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dataplane_support import PATH, RESUMES, Rig, rig
from neurogate import virtual_time
from neurogate.channel import Call, End
from neurogate.endpoint import ModelIdentity, ServedModel
from neurogate.errors import StreamBrokenError
from neurogate.resilience.breaker import Outcome
from neurogate.testing.recovery import PlainRecovery

ALL = {f"worker-{number}": RESUMES for number in range(3)}
LIKE = ModelIdentity("llama", "abc", "Q4_1")


def call(model: str = "") -> Call:
    return Call(PATH, b"{}", stream=True, deadline=asyncio.get_running_loop().time() + 300, model=model, resumable=True)


def has(made: Rig, index: int, *models: ServedModel) -> None:
    made.worker(index).tell(replace(made.worker(index).present, models=models))


def taken(made: Rig, asked: Call, like: ModelIdentity) -> str:
    """Who would go on; empty for nobody."""
    lease = made.dispatcher.acquire_alike(asked, (), like)
    if lease is None:
        return ""
    lease.release(Outcome.IGNORED)
    return lease.member.id


@pytest.mark.parametrize("name", ["", "llama"])
def test_the_same_name_for_other_weights_is_another_model(name: str) -> None:
    async def main() -> None:
        async with rig(3, resumes=ALL) as made:
            has(made, 0, ServedModel("llama", quantization="Q8_0"))
            has(made, 1, ServedModel("llama", digest="def", quantization="Q4_1"))
            has(made, 2, ServedModel("qwen"))
            assert taken(made, call(name), LIKE) == ""
            made.worker(2).tell(replace(made.worker(2).present, resumes=frozenset()))
            has(made, 2, ServedModel("llama", digest="abc"))
            assert "no worker that has llama (Q4_1) continues" in made.dispatcher.nobody_continues(call(name), LIKE)

            has(made, 1, ServedModel("llama", digest="abc", quantization="Q4_1"))
            assert taken(made, call(name), LIKE) == "worker-1"
            assert made.dispatcher.nobody_continues(call(name), LIKE) == ""

    virtual_time.run(main())


def test_a_worker_that_tells_nothing_of_its_weights_is_believed() -> None:
    async def main() -> None:
        async with rig(2, resumes=ALL) as made:
            has(made, 0, ServedModel("llama", quantization="Q8_0"))
            has(made, 1, ServedModel("llama"))

            assert taken(made, call(), LIKE) == "worker-1"

    virtual_time.run(main())


def test_other_weights_are_not_even_the_last_resort() -> None:
    async def main() -> None:
        async with rig(2, resumes=ALL) as made:
            has(made, 0, ServedModel("llama", quantization="Q8_0"))
            has(made, 1, ServedModel("llama", quantization="Q4_1"))
            await made.open_breaker(0)
            await made.open_breaker(1)

            assert taken(made, call(), LIKE) == "worker-1"

    virtual_time.run(main())


def test_an_answer_of_other_weights_is_not_continued_although_they_have_the_same_name() -> None:
    async def main() -> None:
        async with rig(3, resumes=ALL, recovery=PlainRecovery()) as made:
            for index, quantization in enumerate(("Q4_1", "Q8_0", "Q4_1")):
                has(made, index, ServedModel("llama", quantization=quantization))
            exchange, receiver = made.send(resumable=True)
            made.worker(0).calls[-1].chunk(b"one ")
            has(made, 0, ServedModel("llama", quantization="Q8_0"))  # what it was when it was asked counts
            made.worker(0).die()

            assert exchange.worker_id == "worker-2"
            made.worker(2).calls[-1].end(End(http_status=200))
            assert receiver.last_words == ["complete"]

    virtual_time.run(main())


def test_nobody_waits_for_a_worker_that_has_not_the_model_that_was_named() -> None:
    async def main() -> None:
        models = {"worker-0": ("llama",), "worker-1": ("qwen",)}
        recovery = PlainRecovery()
        async with rig(2, models=models, resumes={"worker-1": RESUMES}, recovery=recovery) as made:
            _, receiver = made.send(resumable=True, model="llama")
            made.worker(0).calls[-1].chunk(b"one ")
            made.worker(0).die()
            await receiver.last_word()

            assert type(receiver.error) is StreamBrokenError
            assert "the engine of no worker that has llama continues answers of" in receiver.error.message
            assert receiver.ended_at == 0

    virtual_time.run(main())
