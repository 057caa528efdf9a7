"""Why this worker: what a pick goes by, told without making one; and what an exchange is about."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dataplane_support import PATH, RESUMES, Rig, rig, turns
from neurogate import virtual_time
from neurogate.balancing.least_requests import LeastRequests
from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.phase import Phase
from neurogate.endpoint import ModelIdentity, ServedModel, WorkerReport
from neurogate.inference import Usage
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.recovery import PlainRecovery
from neurogate.testing.workers import answers, ends

GOOD = End(http_status=200, usage=Usage(3, 4), finish_reason="stop")


def call(made: Rig, *, model: str = "", api: str = "") -> Call:
    return Call(PATH, b"{}", stream=True, deadline=made.dispatcher.loop.time() + 9, model=model, api=api)


def reasons(made: Rig, tried: Sequence[str] = (), like: ModelIdentity | None = None, **call_of: str) -> list[str]:
    return [each.excluded_because for each in made.dispatcher.explain(call(made, **call_of), tried, like)]


def report(made: Rig, index: int, **fields: object) -> None:
    """Let a worker say something of itself."""
    known = {"worker_id": f"worker-{index}", "ready": True, "slots_total": 1, **fields}
    made.worker(index).tell(WorkerReport(**known))  # type: ignore[arg-type]


def test_a_worker_is_left_out_for_the_first_reason_that_holds():
    async def main() -> None:
        async with rig(9) as made:
            made.worker(1).die()
            made.pool.cordon("worker-2")
            report(made, 3, draining=True)
            report(made, 4, ready=False)
            await made.open_breaker(5)
            made.pool.eject(made.member(6), ejected=True)
            made.pool.rest(made.member(7), 5, until_room=False)

            found = reasons(made, ["worker-8", "worker-1"])

            assert found == ["", "tried", "cordoned", "draining", "not_ready", "breaker", "ejected", "resting", "tried"]
            assert reasons(made)[1] == "unreachable"
            made.pool.reset_breaker("worker-7")

    virtual_time.run(main())


def test_model_and_api_keep_a_worker_out():
    async def main() -> None:
        async with rig(2) as made:
            report(made, 0, models=(ServedModel("a"),))
            report(made, 1, models=(ServedModel("b"),), apis=frozenset({"/infill"}))

            assert reasons(made, model="a") == ["", "model"]
            assert reasons(made, api="/infill") == ["api", ""]

    virtual_time.run(main())


def test_a_worker_without_the_loaded_model_is_left_out_while_others_have_room():
    async def main() -> None:
        async with rig(3) as made:
            report(made, 0, models=(ServedModel("a"),), running=1)
            report(made, 1, models=(ServedModel("a"),))
            report(made, 2, models=(ServedModel("a", loaded=False),))

            found = made.dispatcher.explain(call(made, model="a"), ())

            assert [each.excluded_because for each in found] == ["full", "", "not_loaded"]
            assert [each.loaded for each in found] == [True, True, False]
            report(made, 1, models=(ServedModel("a"),), running=1)
            assert reasons(made, model="a") == ["", "", ""]

    virtual_time.run(main())


def test_who_continues_an_answer_must_do_so_and_have_its_model():
    async def main() -> None:
        async with rig(3, resumes={"worker-1": RESUMES, "worker-2": RESUMES}) as made:
            for index, quantization in enumerate(("Q4", "Q8", "Q4")):
                model = ServedModel("a", quantization=quantization)
                report(made, index, models=(model,), resumes=RESUMES if index else frozenset())

            assert reasons(made, like=ModelIdentity("a", quantization="Q4")) == ["no_resume", "other_model", ""]

    virtual_time.run(main())


def test_the_score_is_what_the_policy_compares_and_only_candidates_have_one():
    async def main() -> None:
        async with rig(3, picker=LeastRequests(random.Random(1))) as made:
            made.pool.cordon("worker-2")
            report(made, 1, running=4)

            found = made.dispatcher.explain(call(made), ())

            assert [(each.load, each.score) for each in found] == [(0, 0), (4, 4), (0, None)]
            assert all(each.score is None for each in (await _round_robin()))

    async def _round_robin():  # type: ignore[no-untyped-def]
        async with rig(2) as made:
            return made.dispatcher.explain(call(made), ())

    virtual_time.run(main())


def test_asking_why_takes_no_probe_and_no_turn():
    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            for _ in range(5):
                made.dispatcher.explain(call(made), ())

            assert made.member(0).breaker.state == "open"
            made.worker(1).script = answers(b"a")
            _, receiver = made.send()
            await receiver.last_word()
            assert made.worker(1).calls

    virtual_time.run(main())


def test_an_exchange_says_what_it_is_about():
    async def main() -> None:
        resumes = dict.fromkeys(("worker-0", "worker-1"), RESUMES)
        async with rig(2, up=False, recovery=PlainRecovery(), resumes=resumes) as made:
            exchange, receiver = made.send(resumable=True)
            whole, _ = made.send(stream=False)
            assert exchange.phase is Phase.PICK
            made.worker(0).come_up()
            await turns()
            assert (exchange.phase, whole.phase) == (Phase.PREFILL, Phase.WHOLE)
            made.worker(0).calls[0].chunk(b"a")
            assert exchange.phase is Phase.DECODE

            whole.cancel()
            made.worker(0).die()
            assert exchange.phase is Phase.RESUME  # nobody is there
            made.worker(1).come_up()
            await turns()
            assert (exchange.phase, exchange.worker_id) == (Phase.RESUME, "worker-1")  # asked, and silent
            made.worker(1).calls[0].chunk(b"b")
            assert exchange.phase is Phase.DECODE
            made.worker(1).calls[0].end(GOOD)
            await receiver.last_word()

    virtual_time.run(main())


def test_a_retry_tells_which_request_moved():
    heard: list[str] = []

    async def main() -> None:
        async with rig(2) as made:
            made.observer.retried = lambda *told: heard.append(told[2])  # type: ignore[method-assign]
            made.worker(0).script, made.worker(1).script = ends(EndCode.UNAVAILABLE), answers(b"a")
            _, receiver = made.send(request_id="req-1", receiver=RecordingReceiver())
            await receiver.last_word()

    virtual_time.run(main())
    assert heard == ["req-1"]
