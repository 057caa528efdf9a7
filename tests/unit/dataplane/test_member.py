"""One worker as the pool sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neurogate.dataplane.lease import Lease
from neurogate.dataplane.member import NEVER_HEARD, Member
from neurogate.endpoint import Endpoint, ServedModel, WorkerReport
from neurogate.resilience.breaker import BreakerSettings, EndpointBreaker, Outcome

READY = WorkerReport("worker-0", ready=True, models=(ServedModel("llama"), ServedModel("qwen")))


def new_member() -> Member:
    breaker = EndpointBreaker(BreakerSettings(), now=lambda: 0.0, on_transition=lambda _: None)
    return Member(Endpoint("worker-0", "host:1"), breaker)


def lease(member: Member) -> Lease:
    permit = member.breaker.try_acquire()
    assert permit is not None
    return Lease(member, permit, 0.0)


def test_a_worker_that_was_never_heard_of_is_not_usable_and_says_so():
    member = new_member()

    assert not member.usable
    assert member.report is NEVER_HEARD
    assert member.report.detail == "not connected yet"


@pytest.mark.parametrize(
    ("linked", "report", "usable"),
    [
        (True, READY, True),
        (False, READY, False),
        (True, replace(READY, ready=False), False),
        (True, replace(READY, draining=True), False),
    ],
)
def test_usable_means_linked_and_ready_and_not_draining(linked: bool, report: WorkerReport, usable: bool):
    member = new_member()
    member.linked = linked
    member.take_report(report, 1.0)

    assert member.usable is usable


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"ready": False}, True),
        ({"draining": True}, True),
        ({"models": (ServedModel("llama"),)}, True),
        ({"resumes": frozenset({"/prompt"})}, True),
        ({"running": 3, "queued": 2, "seq": 7, "kv_used_ratio": 0.5, "detail": "busy"}, False),
    ],
)
def test_a_report_matters_when_it_changes_who_may_be_picked(change: dict[str, object], matters: bool):
    member = new_member()
    member.take_report(READY, 1.0)

    assert member.take_report(replace(READY, **change), 2.0) is matters
    assert member.reported_at == 2.0


def test_serves_the_models_it_reported_and_the_empty_name():
    member = new_member()
    member.take_report(READY, 1.0)

    assert [member.serves(model) for model in ("llama", "qwen", "", "phi")] == [True, True, True, False]


def test_load_is_this_gateways_requests_and_what_others_had_at_the_last_report():
    member = new_member()
    leases = [lease(member), lease(member)]
    member.take_report(replace(READY, running=4, queued=3), 1.0)
    assert member.load == 7

    leases.append(lease(member))
    assert member.load == 8

    for held in leases:
        held.release(Outcome.SUCCESS)
    assert (member.in_flight, member.load) == (0, 5)


def test_a_report_that_is_behind_this_gateways_count_is_no_negative_load():
    member = new_member()
    held = lease(member)
    member.take_report(READY, 1.0)

    assert member.load == 1
    held.release(Outcome.SUCCESS)
    assert member.load == 0


def test_repr_shows_state_breaker_and_load():
    member = new_member()
    assert repr(member) == "<Member worker-0 unreachable closed in_flight=0>"

    member.linked = True
    held = lease(member)
    assert repr(member) == "<Member worker-0 not_ready closed in_flight=1>"
    held.release(Outcome.IGNORED)


def test_a_lease_counts_in_and_out_and_its_verdict_reaches_the_breaker():
    member = new_member()
    held = lease(member)
    assert member.in_flight == 1

    held.release(Outcome.FAILURE)

    assert (member.in_flight, member.breaker.consecutive_failures) == (0, 1)


def test_a_first_token_does_not_wipe_out_the_failures_of_a_closed_breaker():
    """Or a worker that breaks every stream after its first token would never be left."""
    member = new_member()
    member.breaker.record_failure()
    held = lease(member)
    held.answered(0.0)
    assert (member.in_flight, member.breaker.consecutive_failures) == (1, 1)

    held.release(Outcome.SUCCESS)

    assert (member.in_flight, member.breaker.consecutive_failures) == (0, 0)


@pytest.mark.parametrize(("outcome", "failures"), [(Outcome.FAILURE, 1), (Outcome.IGNORED, 0)])
def test_an_answered_lease_that_dies_counts_once_more(outcome: Outcome, failures: int):
    member = new_member()
    held = lease(member)
    held.answered(0.0)
    held.release(outcome)

    assert member.breaker.consecutive_failures == failures


def test_a_lease_is_released_once():
    member = new_member()
    held = lease(member)
    held.release(Outcome.SUCCESS)

    with pytest.raises(RuntimeError, match="lease on worker-0 released twice"):
        held.release(Outcome.SUCCESS)
    assert member.in_flight == 0
