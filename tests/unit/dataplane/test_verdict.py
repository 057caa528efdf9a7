"""What the end of a call means for the breaker, for a retry and for the client."""

from __future__ import annotations

import pytest

from neurogate.channel import End, EndCode
from neurogate.dataplane.verdict import Retry, error_for, judge
from neurogate.errors import BusyError, DeadlineError, EngineFailedError, NoWorkerError, UnsupportedError
from neurogate.resilience.breaker import Outcome

BY_CODE = {
    EndCode.UNAVAILABLE: (Outcome.FAILURE, Retry.FREE),
    EndCode.BROKEN: (Outcome.FAILURE, Retry.CHARGED),
    EndCode.DEADLINE: (Outcome.FAILURE, Retry.NO),
    EndCode.CANCELLED: (Outcome.IGNORED, Retry.MOVED),
    EndCode.BUSY: (Outcome.IGNORED, Retry.CHARGED),
    EndCode.UNSUPPORTED: (Outcome.IGNORED, Retry.ELSEWHERE),
    EndCode.INTERNAL: (Outcome.FAILURE, Retry.CHARGED),
    EndCode.LINK_LOST: (Outcome.FAILURE, Retry.MOVED),
}


def verdict(end: End) -> tuple[Outcome, Retry]:
    judged = judge(end)
    return judged.outcome, judged.retry


@pytest.mark.parametrize("code", [code for code in EndCode if code is not EndCode.ANSWERED], ids=lambda code: code.name)
def test_every_code_has_its_verdict(code: EndCode):
    assert verdict(End(code)) == BY_CODE[code]


@pytest.mark.parametrize("status", [0, 200, 201, 204, 301, 400, 401, 403, 404, 408, 413, 422, 499])
def test_an_answer_below_500_is_the_engine_doing_its_work(status: int):
    assert verdict(End(http_status=status)) == (Outcome.SUCCESS, Retry.NO)


def test_an_api_that_the_engine_does_not_have_is_no_failure_of_it():
    assert verdict(End(http_status=501)) == (Outcome.IGNORED, Retry.ELSEWHERE)


@pytest.mark.parametrize("end", [End(http_status=429), End(http_status=429, retry_after_s=3.0)])
def test_too_many_requests_says_nothing_bad_and_may_go_elsewhere(end: End):
    assert verdict(end) == (Outcome.IGNORED, Retry.CHARGED)


@pytest.mark.parametrize("retry_after_s", [0.0, 2.0])
def test_unavailable_with_a_time_to_come_back_is_an_honest_refusal(retry_after_s: float):
    assert verdict(End(http_status=503, retry_after_s=retry_after_s)) == (Outcome.IGNORED, Retry.CHARGED)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_other_answers_above_500_are_failures(status: int):
    assert verdict(End(http_status=status)) == (Outcome.FAILURE, Retry.CHARGED)


@pytest.mark.parametrize("status", [500, 502])
def test_a_time_to_come_back_excuses_only_503(status: int):
    assert verdict(End(http_status=status, retry_after_s=1.0)) == (Outcome.FAILURE, Retry.CHARGED)


@pytest.mark.parametrize(
    ("end", "kind", "status"),
    [
        (End(EndCode.DEADLINE), DeadlineError, 504),
        (End(EndCode.BUSY), BusyError, 503),
        (End(EndCode.UNSUPPORTED), UnsupportedError, 501),
        (End(http_status=501), UnsupportedError, 501),
        (End(EndCode.LINK_LOST), NoWorkerError, 503),
        (End(EndCode.UNAVAILABLE), NoWorkerError, 503),
        (End(EndCode.CANCELLED), NoWorkerError, 503),
        (End(EndCode.BROKEN), EngineFailedError, 502),
        (End(EndCode.INTERNAL), EngineFailedError, 502),
        (End(http_status=500), EngineFailedError, 502),
        (End(http_status=503), EngineFailedError, 502),
        (End(http_status=429), BusyError, 503),
        (End(http_status=503, retry_after_s=2.0), BusyError, 503),
    ],
    ids=str,
)
def test_the_client_gets_an_error_that_names_the_worker(end: End, kind: type, status: int):
    error = error_for(end, "worker-7")

    assert type(error) is kind
    assert error.status == status
    assert "worker-7" in error.message


@pytest.mark.parametrize(
    "end",
    [
        End(EndCode.BUSY, retry_after_s=4.0),
        End(http_status=429, retry_after_s=4.0),
        End(http_status=503, retry_after_s=4.0),
    ],
    ids=str,
)
def test_a_refusal_for_load_hands_its_time_to_come_back_on(end: End):
    assert error_for(end, "worker-7").retry_after_s == 4.0


def test_what_the_worker_told_is_in_the_message():
    assert "out of memory" in error_for(End(EndCode.BROKEN, message="out of memory"), "w").message
    assert error_for(End(EndCode.UNSUPPORTED, message="no tea"), "w").message == "no tea (w)"


def test_the_engines_own_words_are_in_the_message_cut_to_what_a_log_line_bears():
    end = End(http_status=500, body=b" \xff" + b"x" * 1000 + b"end")
    message = error_for(end, "worker-7").message

    assert message.startswith("the engine of worker-7 answered 500: \ufffdx")
    assert len(message) < 600
    assert "end" not in message
