"""What the end of a call means: for the breaker, for a retry, and for the client.

One table, so that nobody else interprets status codes. 2xx and 4xx are the engine doing its work; 429, and 503 with
Retry-After, are an honest refusal that says nothing bad about the worker, and so is 501; the rest are failures.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from neurogate.channel import End, EndCode
from neurogate.errors import (
    BusyError,
    DeadlineError,
    EngineFailedError,
    GatewayError,
    NoWorkerError,
    UnsupportedError,
)
from neurogate.resilience.breaker import Outcome


class Retry(enum.Enum):
    """Whether another worker may be asked before the first byte."""

    NO = "no"
    CHARGED = "charged"
    """Yes, within the retry budget: the worker did work, or will be asked again."""
    FREE = "free"
    """Yes, uncharged: the engine is gone, so the request only moves."""
    MOVED = "moved"
    """The same, and it is the worker that is gone and not only its engine: it cannot have been the request's doing."""
    ELSEWHERE = "elsewhere"
    """Yes, uncharged, if there is another one: this worker is well, and will not do it when asked again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one ended attempt is to be taken."""

    outcome: Outcome
    retry: Retry


_GOOD = Verdict(Outcome.SUCCESS, Retry.NO)
_REFUSED = Verdict(Outcome.IGNORED, Retry.CHARGED)
_FAILED = Verdict(Outcome.FAILURE, Retry.CHARGED)
_GONE = Verdict(Outcome.FAILURE, Retry.FREE)
_LOST = Verdict(Outcome.FAILURE, Retry.MOVED)
_UNSUPPORTED = Verdict(Outcome.IGNORED, Retry.ELSEWHERE)

_BY_CODE = {
    EndCode.UNAVAILABLE: _GONE,
    EndCode.LINK_LOST: _LOST,
    EndCode.BROKEN: _FAILED,
    EndCode.INTERNAL: _FAILED,
    EndCode.DEADLINE: Verdict(Outcome.FAILURE, Retry.NO),
    EndCode.CANCELLED: Verdict(Outcome.IGNORED, Retry.MOVED),
    EndCode.BUSY: _REFUSED,
    EndCode.UNSUPPORTED: _UNSUPPORTED,
}


def judge(end: End) -> Verdict:
    """The verdict on an attempt that ended so."""
    if end.code is not EndCode.ANSWERED:
        return _BY_CODE[end.code]
    status = end.http_status
    if status < 500:
        return _REFUSED if status == 429 else _GOOD
    if status == 503 and end.retry_after_s is not None:
        return _REFUSED
    return _UNSUPPORTED if status == 501 else _FAILED


def error_for(end: End, worker_id: str) -> GatewayError:
    """The error the client gets when nobody else could do better."""
    told = end.message or _engine_message(end)
    because = f": {told}" if told else ""
    match end.code:
        case EndCode.DEADLINE:
            return DeadlineError(
                f"{worker_id} did not finish in time{because}; ask for fewer tokens, or allow more time "
                "(the request's own, or NEUROGATE_REQUEST_TIMEOUT_S)"
            )
        case EndCode.BUSY | EndCode.ANSWERED if judge(end) is _REFUSED:
            return BusyError(f"{worker_id} holds all the requests it can{because}", retry_after_s=end.retry_after_s)
        case EndCode.UNSUPPORTED | EndCode.ANSWERED if judge(end) is _UNSUPPORTED:
            return UnsupportedError(f"{told or 'the engine has no such API'} ({worker_id})")
        case EndCode.LINK_LOST | EndCode.UNAVAILABLE | EndCode.CANCELLED:
            return NoWorkerError(f"{worker_id} is gone and no other worker could take the request{because}")
        case _ if end.http_status:
            return EngineFailedError(f"the engine of {worker_id} answered {end.http_status}{because}")
        case _:
            return EngineFailedError(f"the engine of {worker_id} failed{because}")


def what_broke(end: End, worker_id: str) -> str:
    """Why an answer that had begun cannot go on."""
    if end.code in {EndCode.LINK_LOST, EndCode.UNAVAILABLE, EndCode.CANCELLED}:
        return f"{worker_id} is gone: {end.message}" if end.message else f"{worker_id} is gone"
    return error_for(end, worker_id).message


def _engine_message(end: End) -> str:
    return end.body[:500].decode("utf-8", "replace").strip()
