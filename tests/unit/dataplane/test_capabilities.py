"""Which workers a request may go to: those that have its API, and first those that have its model loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from dataplane_support import BODY, Rig, rig, turns
from neurogate import virtual_time
from neurogate.channel import Call
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.dataplane.member import Member
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.errors import NoWorkerError, UnsupportedError
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.workers import answers

RERANK = "/v1/rerank"


def told(engine: str, *apis: str, models: Iterable[ServedModel] = (ServedModel("llama"),), slots: int = 1):
    return WorkerReport(
        "w", ready=True, engine_kind=engine, apis=frozenset(apis), models=tuple(models), slots_total=slots
    )


def ids(members: Iterable[Member]) -> list[str]:
    return [member.id for member in members]


def rerank(made: Rig, *, model: str = "", timeout_s: float = 300.0) -> RecordingReceiver:
    receiver = RecordingReceiver()
    deadline = asyncio.get_running_loop().time() + timeout_s
    made.dispatcher.dispatch(Call(RERANK, BODY, False, deadline, model=model, api=RERANK), receiver)
    return receiver


def test_only_workers_that_have_the_api_are_asked():
    async def main() -> None:
        async with rig(3) as made:
            for index in range(3):
                made.worker(index).script = answers(b"{}")
            made.worker(0).tell(told("ollama"))
            made.worker(1).tell(told("llamacpp", RERANK))
            made.worker(2).tell(told("openai", "/infill"))
            for _ in range(4):
                receiver = rerank(made)
                await receiver.last_word()
                assert receiver.heard == ["answer"]
            assert [len(made.worker(index).calls) for index in range(3)] == [0, 4, 0]
            snapshot = made.pool.snapshot
            assert ids(snapshot.admitting("llama", RERANK)) == ids(snapshot.admitting("", RERANK)) == ["worker-1"]
            assert ids(snapshot.admitting("llama")) == ["worker-0", "worker-1", "worker-2"]
            assert snapshot.admitting("nothing", RERANK) == ()

    virtual_time.run(main())


def test_an_api_that_no_engine_has_is_refused_at_once_naming_the_engines():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).tell(told("llamacpp"))
            made.worker(1).tell(told("ollama", models=[ServedModel("llama"), ServedModel("qwen")]))
            receiver = rerank(made)
            assert isinstance(receiver.error, UnsupportedError)
            assert receiver.error.message == (
                "no worker can do /v1/rerank: the engines are llamacpp (worker-0), ollama (worker-1)"
            )
            receiver = rerank(made, model="qwen")
            assert receiver.error is not None
            assert receiver.error.message == (
                "no worker that has the model 'qwen' can do /v1/rerank: the engines are ollama (worker-1)"
            )

    virtual_time.run(main())


def test_a_worker_that_has_not_told_yet_is_waited_for():
    """An engine that starts may well have the API."""

    async def main() -> None:
        async with rig(2, limits=DispatchLimits(failfast_s=5)) as made:
            made.worker(0).tell(told("ollama"))
            made.worker(1).tell(WorkerReport("w", detail="loading"))
            made.worker(1).script = answers(b"{}")
            receiver = rerank(made)
            assert receiver.heard == []
            made.worker(1).tell(told("llamacpp", RERANK))
            await receiver.last_word()
            assert receiver.heard == ["answer"]

    virtual_time.run(main())


def test_workers_that_have_the_api_and_cannot_be_asked_are_named_with_why():
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(failfast_s=1)) as made:
            made.worker(0).tell(told("ollama"))
            made.worker(1).tell(told("llamacpp", RERANK))
            made.worker(1).drain()
            receiver = rerank(made)
            await receiver.last_word()
            assert isinstance(receiver.error, NoWorkerError)
            assert "worker-0: its engine ollama cannot do /v1/rerank" in receiver.error.message
            assert "worker-1: draining" in receiver.error.message

    virtual_time.run(main())


def test_an_engine_that_learns_an_api_is_asked_from_then_on():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(b"{}")
            made.worker().tell(told("llamacpp"))
            assert isinstance(rerank(made).error, UnsupportedError)
            made.worker().tell(told("llamacpp", RERANK))
            receiver = rerank(made)
            await receiver.last_word()
            assert receiver.heard == ["answer"]

    virtual_time.run(main())


COLD = (ServedModel("llama", loaded=False),)


def test_workers_that_have_the_model_loaded_go_first_until_they_are_full():
    async def main() -> None:
        async with rig(3) as made:
            made.worker(0).tell(told("ollama", models=COLD, slots=4))
            made.worker(1).tell(told("ollama", slots=2))
            made.worker(2).tell(told("ollama", models=COLD, slots=4))
            sent = [made.send(model="llama") for _ in range(2)]
            await turns()
            assert [len(made.worker(index).calls) for index in range(3)] == [0, 2, 0]
            sent += [made.send(model="llama") for _ in range(3)]
            await turns()
            assert len(made.worker(0).calls) + len(made.worker(2).calls) > 0
            assert sum(len(made.worker(index).calls) for index in range(3)) == 5
            for index in range(3):
                for call in list(made.worker(index).calls):
                    call.end()
            for _, receiver in sent:
                await receiver.last_word()

    virtual_time.run(main())


def test_where_nobody_has_it_loaded_all_are_alike():
    async def main() -> None:
        async with rig(2) as made:
            for index in range(2):
                made.worker(index).tell(told("ollama", models=COLD))
                made.worker(index).script = answers(b"x")
            assert made.pool.snapshot.candidates("llama") == (made.pool.snapshot.admitting("llama"), ())
            for _ in range(4):
                await made.ask(model="llama")
            assert [len(made.worker(index).calls) for index in range(2)] == [2, 2]
            assert made.pool.snapshot.candidates("nothing") == ((), ())

    virtual_time.run(main())


def test_a_worker_that_must_load_the_model_is_better_than_none():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).tell(told("ollama", models=COLD))
            made.worker(1).tell(told("ollama"))
            made.worker(0).script = answers(b"x")
            await made.open_breaker(1)
            receiver = await made.ask(model="llama")
            assert receiver.heard == ["chunk", "complete"]

    virtual_time.run(main())
