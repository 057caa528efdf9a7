"""Why this worker: what a request that asks gets to know of its own picks."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from dataplane_support import PATH, Rig, rig, turns
from gateway_support import chat, edge
from neurogate import virtual_time
from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.consider import Considered
from neurogate.endpoint import ModelIdentity
from neurogate.gateway.explain import (
    ATTEMPTS_MAX,
    CONSIDERED_MAX,
    KEPT_MAX,
    SHORT_BYTES_MAX,
    Explainer,
    Explanation,
    both,
)
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.recovery import PlainRecovery
from neurogate.testing.workers import GOOD_END, HANGS, answers, ends

ASKS = ("x-neurogate-explain", "1")
PIECE = b'data: {"choices":[]}\n\n'
CALL = Call(PATH, b"{}", stream=True, deadline=9.0, model="m")


def explainer(made: Rig, **options: Any) -> Explainer:
    return Explainer(made.dispatcher, loop=made.dispatcher.loop, wall=lambda: 1e9, **options)


def send(made: Rig, explanation: Explanation | None, **fields: Any) -> RecordingReceiver:
    receiver = RecordingReceiver()
    deadline = made.dispatcher.loop.time() + 60
    made.dispatcher.dispatch(Call(PATH, b"{}", stream=True, deadline=deadline, **fields), receiver, explanation)
    return receiver


def alone(*considered: Considered) -> Explanation:
    """An explanation of a fleet that always looks the same."""

    def explain(_: Call, __: Collection[str], ___: ModelIdentity | None) -> tuple[Considered, ...]:
        return considered

    return Explanation(explain, request_id="r", key_id="k", at=1e9, age_s=lambda: 0.5)


def test_the_answers_header_tells_candidates_and_who_was_picked():
    async def main() -> None:
        async with edge(2) as made:
            made.data_plane.pool.cordon("worker-1")
            made.data_plane.worker().script = answers(PIECE)
            client = chat(headers=[ASKS])
            await made.ask(client)

            told = 'attempt=1; kind=first; picked=worker-0; candidates="worker-0:0"; excluded="worker-1:cordoned"'
            assert client.headers["x-neurogate-explain"] == told

    virtual_time.run(main())


def test_who_does_not_ask_hears_nothing_and_nothing_is_kept():
    async def main() -> None:
        async with edge() as made:
            made.data_plane.worker().script = answers(PIECE)
            for headers in ((), [("x-neurogate-explain", "off")]):
                client = chat(headers=headers)
                await made.ask(client)
                assert "x-neurogate-explain" not in client.headers
            assert made.explainer.ids == ()
            made.explainer.configure(enabled=False)
            client = chat(headers=[ASKS])
            await made.ask(client)
            assert "x-neurogate-explain" not in client.headers

    virtual_time.run(main())


def test_an_answer_that_begins_before_the_pick_has_no_header_and_its_record_has_it_all():
    async def main() -> None:
        async with edge(max_concurrent=1, keepalive_s=5, max_queue=1) as made:
            first = await made.asked(chat())
            waits, refused = chat(headers=[ASKS, ("x-request-id", "waits")]), chat(headers=[ASKS])
            made.ask(waits)
            await turns()
            await made.ask(refused)
            await asyncio.sleep(6)

            assert (waits.status, refused.status) == (200, 503)
            assert "x-neurogate-explain" not in waits.headers
            assert "x-neurogate-explain" not in refused.headers
            first.end(GOOD_END)
            await turns()
            (record,) = made.explainer.find("waits")
            assert [attempt.worker for attempt in record.attempts] == ["worker-0"]
            made.data_plane.worker().calls[-1].end(GOOD_END)

    virtual_time.run(main())


def test_a_header_that_says_neither_is_refused():
    async def main() -> None:
        async with edge() as made:
            client = chat(headers=[("x-neurogate-explain", "perhaps")])
            await made.ask(client)
            assert client.status == 400
            assert "on or off" in client.json()["error"]["message"]

    virtual_time.run(main())


def test_a_refusal_tells_why_nobody_took_it():
    async def main() -> None:
        async with edge(failfast_s=0) as made:
            made.data_plane.pool.cordon("worker-0")
            client = chat(headers=[ASKS])
            await made.ask(client)

            assert client.status == 503
            assert client.headers["x-neurogate-explain"] == (
                'attempt=1; kind=first; picked=nobody; excluded="worker-0:cordoned"'
            )

    virtual_time.run(main())


def test_a_retry_and_a_resume_are_attempts_with_how_they_ended():
    async def main() -> None:
        resumes = dict.fromkeys(("worker-0", "worker-1", "worker-2"), frozenset({PATH}))
        async with rig(3, resumes=resumes, recovery=PlainRecovery()) as made:
            made.worker(0).script = ends(EndCode.LINK_LOST, after_s=1, message="silent for 3 s")
            made.worker(1).script = answers(b"a", first_s=1, every_s=1, end=End(EndCode.BROKEN, message="secret"))
            made.worker(2).script = answers(b"b", first_s=1)
            kept = explainer(made)
            explanation = kept.begin(b"1", "req-1", "key")
            receiver = send(made, explanation, resumable=True)
            await receiver.last_word()

            (record,) = kept.find("req-1")
            assert (record.id, record.key_id, record.path, record.at) == ("req-1", "key", PATH, 1e9)
            assert [(each.kind, each.worker, each.ended) for each in record.attempts] == [
                ("first", "worker-0", "link_lost"),
                ("retry", "worker-1", "broken"),
                ("resume", "worker-2", "200"),
            ]
            first, second, third = record.attempts
            assert (first.first_s, first.ended_s, first.detail) == (None, 1.0, "silent for 3 s")
            assert (second.first_s, second.ended_s, second.detail) == (2.0, 3.0, "")
            assert {each.worker_id: each.excluded_because for each in third.considered} == {
                "worker-0": "tried",
                "worker-1": "tried",
                "worker-2": "",
            }

    virtual_time.run(main())


def test_waiting_for_a_worker_is_one_attempt_that_looks_again():
    async def main() -> None:
        async with rig(2, up=False) as made:
            explanation = explainer(made).begin(b"on", "req-1", "")
            assert explanation is not None
            receiver = send(made, explanation)
            made.pool.publish()
            await turns()
            await asyncio.sleep(1)
            made.worker(1).script = answers(b"a")
            made.worker(1).come_up()
            await receiver.last_word()

            (attempt,) = explanation.record.attempts
            assert (attempt.worker, attempt.looks, attempt.at_s) == ("worker-1", 3, 1.0)
            assert [each.excluded_because for each in attempt.considered] == ["", "unreachable"]

    virtual_time.run(main())


def test_the_least_bad_worker_is_a_last_resort():
    async def main() -> None:
        async with rig() as made:
            await made.open_breaker()
            made.worker().script = answers(b"a")
            explanation = explainer(made).begin(b"1", "req-1", "")
            assert explanation is not None
            await send(made, explanation).last_word()

            assert explanation.short() == (
                b'attempt=1; kind=first; picked=worker-0; excluded="worker-0:breaker"; last_resort; ended=200'
            )

    virtual_time.run(main())


def test_a_hedge_is_an_attempt_and_the_one_taken_back_says_so():
    async def main() -> None:
        from neurogate.dataplane.dispatch import DispatchLimits

        async with rig(2, limits=DispatchLimits(hedge_after_s=1, hedge_share=1)) as made:
            made.worker(0).script, made.worker(1).script = HANGS, answers(b"a")
            explanation = explainer(made).begin(b"1", "req-1", "")
            assert explanation is not None
            await send(made, explanation).last_word()

            assert [(each.kind, each.worker, each.ended) for each in explanation.record.attempts] == [
                ("first", "worker-0", "taken_back"),
                ("hedge", "worker-1", "200"),
            ]

    virtual_time.run(main())


def test_only_the_latest_requests_are_kept_and_an_id_that_comes_again_is_the_newer_one():
    async def main() -> None:
        async with rig() as made:
            kept = explainer(made)
            for number in range(KEPT_MAX + 1):
                kept.begin(b"1", f"req-{number}", "")
            first = kept.begin(b"1", "req-1", "")
            assert first is not None
            first.asked("worker-0")

            assert len(kept.ids) == KEPT_MAX
            assert kept.ids[0] == "req-1"
            assert kept.find("req-0") == ()
            assert kept.find("req-1") == (first.record,)


def test_nobody_replaces_the_explanation_of_anothers_request_by_choosing_its_id():
    async def main() -> None:
        async with rig() as made:
            kept = explainer(made)
            for key_id in ("mine", "a-strangers", ""):
                kept.begin(b"1", "req-1", key_id)
            kept.begin(b"1", "req-2", "mine")

            assert [record.key_id for record in kept.find("req-1")] == ["", "a-strangers", "mine"]
            assert kept.ids == ("req-2", "req-1")

    virtual_time.run(main())


def test_a_large_fleet_is_counted_and_the_header_stays_short():
    fleet = [Considered(f"worker-{n:04}", "ready", 3, True, "" if n % 2 else "model") for n in range(500)]
    explanation = alone(*fleet)
    for number in range(40):
        explanation.looks(CALL, (), None)
        explanation.asked(f"worker-{2 * number + 1:04}", resumed=number > 0)
        explanation.left(f"worker-{2 * number + 1:04}", End(EndCode.BROKEN))
    record, short = explanation.record, explanation.short()

    assert len(record.attempts) == ATTEMPTS_MAX
    assert record.omitted == 40 - ATTEMPTS_MAX
    assert [record.attempts[0].worker, record.attempts[-1].worker] == ["worker-0001", "worker-0079"]
    assert len(record.attempts[0].considered) == CONSIDERED_MAX
    assert record.attempts[0].others == {"": 250 - CONSIDERED_MAX, "model": 250}
    assert len(short) <= SHORT_BYTES_MAX
    assert short.startswith(b"..., attempt=")
    assert b"attempt=40; kind=resume; picked=worker-0079" in short
    assert b' +238"' in short


def test_the_header_holds_whatever_workers_are_called():
    explanation = alone(Considered('a";,\r\né', "ready", 0, True), Considered("b", "open", 0, True, "breaker"))
    explanation.looks(CALL, (), None)
    explanation.asked('a";,\r\né')

    assert explanation.short() == b'attempt=1; kind=first; picked=a??????; candidates="a??????:0"; excluded="b:breaker"'


def test_what_is_told_of_a_worker_that_was_not_asked_is_ignored():
    explanation = alone()
    explanation.answered("worker-9")
    explanation.left("worker-9", GOOD_END)
    explanation.asked("worker-0")  # without a look before it

    assert [(each.kind, each.worker) for each in explanation.record.attempts] == [("retry", "worker-0")]


def test_two_journals_hear_the_same_and_the_first_gives_the_trace_context():
    class Tracing:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def __getattr__(self, name: str) -> Any:
            def hear(*_: object, **__: object) -> str:
                self.heard.append(name)
                return "trace"

            return hear

    tracing, explanation = Tracing(), alone(Considered("worker-0", "ready", 0, True))
    journal = both(tracing, explanation)
    assert journal is not None

    journal.looks(CALL, (), None)
    journal.waits()
    assert journal.asked("worker-0") == "trace"
    journal.answered("worker-0")
    journal.left("worker-0", GOOD_END)

    assert tracing.heard == ["looks", "waits", "asked", "answered", "left"]
    assert explanation.record.attempts[0].ended == "200"
    assert both(None, explanation) is explanation
    assert both(tracing, None) is tracing
    assert both(None, None) is None
