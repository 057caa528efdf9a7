"""Why this worker: the picks of one request, written down because it asked with `X-NeuroGate-Explain` (ADR 0027).

`Explanation` is the journal of such a request: at each attempt who could have been asked, who not and why, who was, and
how that ended. `Explainer` keeps the latest of them. A request that does not ask costs nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection

import msgspec

from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.consider import Considered
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.journal import Journal
from neurogate.endpoint import ModelIdentity
from neurogate.gateway.intake import switched_off

KEPT_MAX = 256
"""Explained requests that are remembered."""

ATTEMPTS_MAX = 16
"""Attempts of one request that are remembered: the first, and the latest."""

CONSIDERED_MAX = 32
"""Workers of one attempt that are remembered by name, candidates first; of the others the reasons are counted."""

SHORT_BYTES_MAX = 1024
"""Of the answer's header."""

_NAMED_MAX = 12
"""Workers that the header names for one attempt and one list."""

_UNFIT = re.compile(r"[^!#-+\--:<-~]")
"""Characters that the header has for other ends, or may not have."""


class Attempt(msgspec.Struct):
    """One pick, and what came of it. Times are in seconds since the request came."""

    at_s: float
    kind: str = "first"
    """first, retry, resume or hedge."""
    worker: str = ""
    """Who was asked; empty when nobody could be."""
    considered: tuple[Considered, ...] = ()
    """Empty for a hedge, which goes to a free slot or nowhere."""
    others: dict[str, int] = {}
    """Those that are not in `considered`, counted by why they were left out; under the empty name the candidates."""
    last_resort: bool = False
    """There was no candidate: the least bad one was asked."""
    looks: int = 1
    """How often it looked: more than once where it had to wait for a worker."""
    first_s: float | None = None
    """When the first piece of a stream came."""
    ended_s: float | None = None
    ended: str = ""
    """The engine's HTTP status, how the attempt broke off, or `taken_back`; empty while it goes on."""
    detail: str = ""
    """What the gateway saw of a lost link."""


class Record(msgspec.Struct, frozen=True):
    """All that is known of why a request went where it went."""

    id: str
    key_id: str
    path: str
    model: str
    at: float
    """Unix seconds at which the request came."""
    attempts: tuple[Attempt, ...]
    omitted: int
    """Attempts between the first and the others that are not remembered."""


class Explanation:
    """The journal of one request that wants to know."""

    def __init__(
        self,
        explain: Callable[[Call, Collection[str], ModelIdentity | None], tuple[Considered, ...]],
        *,
        request_id: str,
        key_id: str,
        at: float,
        age_s: Callable[[], float],
    ) -> None:
        """`at` is Unix time, `age_s` the seconds since then."""
        self._explain = explain
        self._request_id = request_id
        self._key_id = key_id
        self._at = at
        self._age_s = age_s
        self._path = self._model = ""
        self._attempts: list[Attempt] = []
        self._omitted = 0

    @property
    def record(self) -> Record:
        """As far as it got."""
        return Record(
            self._request_id, self._key_id, self._path, self._model, self._at, tuple(self._attempts), self._omitted
        )

    def looks(self, call: Call, tried: Collection[str], like: ModelIdentity | None) -> None:
        """Write down how the fleet looks to this pick."""
        self._path, self._model = call.path, call.model
        found = sorted(self._explain(call, tried, like), key=lambda each: bool(each.excluded_because))
        attempt = self._attempts[-1] if self._attempts and not self._attempts[-1].worker else None
        if attempt is None:
            attempt = self._begin(Attempt(self._now(), "retry" if self._attempts else "first"))
        else:
            attempt.looks += 1
        attempt.considered = tuple(found[:CONSIDERED_MAX])
        attempt.others = dict(Counter(each.excluded_because for each in found[CONSIDERED_MAX:]))

    def waits(self) -> None:
        """Nothing: the next look tells that it had to."""

    def asked(self, worker_id: str, *, resumed: bool = False, beside: bool = False) -> str:
        """Write down who was asked."""
        if beside or not self._attempts or self._attempts[-1].worker:
            self._begin(Attempt(self._now(), "hedge" if beside else "retry"))
        attempt = self._attempts[-1]
        attempt.worker, attempt.at_s = worker_id, self._now()
        if resumed:
            attempt.kind = "resume"
        attempt.last_resort = any(each.worker_id == worker_id and each.excluded_because for each in attempt.considered)
        return ""

    def answered(self, worker_id: str) -> None:
        """Write down when the first piece came."""
        attempt = self._latest(worker_id)
        if attempt is not None:
            attempt.first_s = self._now()

    def left(self, worker_id: str, end: End | None) -> None:
        """Write down how it ended."""
        attempt = self._latest(worker_id)
        if attempt is None:
            return
        attempt.ended_s = self._now()
        attempt.ended = _how(end)
        if end is not None and end.code is EndCode.LINK_LOST:
            attempt.detail = end.message

    def short(self) -> bytes:
        """The header: `attempt=2; kind=retry; picked=worker-1; candidates="worker-1:0"; excluded="worker-0:tried"`.

        A candidate has its load behind it, one left out the reason, an attempt that is over how it `ended`. Attempts
        are parted by commas; the earliest are left out when it would be longer than SHORT_BYTES_MAX. Empty before the
        first pick.
        """
        told: list[str] = []
        size = 5
        for number, attempt in reversed(list(enumerate(self._attempts, 1))):
            part = _told(number + (self._omitted if number > 1 else 0), attempt)
            size += len(part) + 2
            if told and size > SHORT_BYTES_MAX:
                told.append("...")
                break
            told.append(part)
        return ", ".join(reversed(told)).encode("ascii")[:SHORT_BYTES_MAX]

    def _begin(self, attempt: Attempt) -> Attempt:
        if len(self._attempts) == ATTEMPTS_MAX:
            del self._attempts[1]
            self._omitted += 1
        self._attempts.append(attempt)
        return attempt

    def _latest(self, worker_id: str) -> Attempt | None:
        """The attempt on that worker that is not over."""
        going_on = (each for each in reversed(self._attempts) if each.worker == worker_id and not each.ended)
        return next(going_on, None)

    def _now(self) -> float:
        return round(self._age_s(), 4)


class Explainer:
    """Explains requests that ask for it, and remembers the latest KEPT_MAX."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        loop: asyncio.AbstractEventLoop,
        wall: Callable[[], float],
        enabled: bool = True,
    ) -> None:
        """`wall` tells seconds since 1970. Unless `enabled`, nothing is explained."""
        self._dispatcher = dispatcher
        self._loop = loop
        self._wall = wall
        self._enabled = enabled
        self._kept: dict[tuple[str, str], Explanation] = {}
        """By key id and request id: clients choose ids, and nobody is to replace what is another's."""

    def configure(self, *, enabled: bool) -> None:
        """Explain requests from now on, or do not."""
        self._enabled = enabled

    def begin(self, wanted: bytes, request_id: str, key_id: str) -> Explanation | None:
        """The journal of a request with that header; None when it wants none, or gets none.

        Raises BadRequestError for a header that says neither.
        """
        if not wanted or switched_off(wanted, "X-NeuroGate-Explain") or not self._enabled:
            return None
        began_at = self._loop.time()
        explanation = Explanation(
            self._dispatcher.explain,
            request_id=request_id,
            key_id=key_id,
            at=self._wall(),
            age_s=lambda: self._loop.time() - began_at,
        )
        self._kept.pop((key_id, request_id), None)
        if len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[key_id, request_id] = explanation
        return explanation

    def find(self, request_id: str) -> tuple[Record, ...]:
        """What is known of requests of that id, one for each key, the latest first.

        Empty when none asked, or that was too long ago.
        """
        return tuple(kept.record for (_, each), kept in reversed(self._kept.items()) if each == request_id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the requests that it remembers, the latest first, each once."""
        return tuple(dict.fromkeys(request_id for _, request_id in reversed(self._kept)))


class Both:
    """Two journals of one request; the first says in which trace context an attempt goes."""

    def __init__(self, first: Journal, second: Journal) -> None:
        self._first = first
        self._second = second

    def looks(self, call: Call, tried: Collection[str], like: ModelIdentity | None) -> None:
        """Tell both."""
        self._first.looks(call, tried, like)
        self._second.looks(call, tried, like)

    def waits(self) -> None:
        """Tell both."""
        self._first.waits()
        self._second.waits()

    def asked(self, worker_id: str, *, resumed: bool = False, beside: bool = False) -> str:
        """Tell both."""
        self._second.asked(worker_id, resumed=resumed, beside=beside)
        return self._first.asked(worker_id, resumed=resumed, beside=beside)

    def answered(self, worker_id: str) -> None:
        """Tell both."""
        self._first.answered(worker_id)
        self._second.answered(worker_id)

    def left(self, worker_id: str, end: End | None) -> None:
        """Tell both."""
        self._first.left(worker_id, end)
        self._second.left(worker_id, end)


def both(first: Journal | None, second: Journal | None) -> Journal | None:
    """A journal for whichever there are."""
    if first is None or second is None:
        return second if first is None else first
    return Both(first, second)


def _how(end: End | None) -> str:
    if end is None:
        return "taken_back"
    return str(end.http_status) if end.code is EndCode.ANSWERED else end.code.name.lower()


def _told(number: int, attempt: Attempt) -> str:
    candidates = [f"{each.worker_id}:{each.load}" for each in attempt.considered if not each.excluded_because]
    excluded = [f"{each.worker_id}:{each.excluded_because}" for each in attempt.considered if each.excluded_because]
    more = sum(count for reason, count in attempt.others.items() if reason)
    parts = [
        f"attempt={number}",
        f"kind={attempt.kind}",
        f"picked={_UNFIT.sub('?', attempt.worker) or 'nobody'}",
        *_listed("candidates", candidates, attempt.others.get("", 0)),
        *_listed("excluded", excluded, more),
        *(["last_resort"] if attempt.last_resort else []),
        *([f"ended={attempt.ended}"] if attempt.ended else []),
    ]
    return "; ".join(parts)


def _listed(name: str, items: list[str], more: int) -> list[str]:
    named = [_UNFIT.sub("?", item)[:64] for item in items[:_NAMED_MAX]]
    more += len(items) - len(named)
    return [f'{name}="{" ".join([*named, *([f"+{more}"] if more else [])])}"'] if named or more else []
