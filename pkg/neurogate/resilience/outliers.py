"""Outlier ejection: workers that are much worse than their peers are kept out for a while, within bounds.

A breaker judges a worker by itself; whether 8 s to a first token is slow, only its peers can tell. Everything here is a
pure decision on samples (ADR 0023): `take` what each peer did, then `judge` them all, and act on what comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

TTFT_MARGIN_S = 2.0
"""Slower than a factor says, and by so much: five times almost nothing is nothing."""

FAILURES_MARGIN = 0.5
"""How much larger the share of failures must be."""

PEERS_MIN = 3
"""Of fewer peers, nobody knows which is the odd one out."""

_TIMES_MAX = 10
"""Ejections after which the time out grows no longer."""

_REMEMBERED = 256
"""Requests of one sample whose times are kept."""


@dataclass(frozen=True, slots=True)
class OutlierSettings:
    """When a worker is an outlier, and what follows."""

    enabled: bool = True
    factor: float = 5.0
    """Times the peers' median time to first token, or one part of so many of their token rate."""
    max_ejected: float = 0.3
    """The largest share of peers that may be out at once; one of them may be, unless this is 0."""
    requests_min: int = 10
    """Requests a worker must have had to be judged, or compared with."""
    base_s: float = 30.0
    """Seconds out, times the ejections so far."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a worker did in some time; None is for what there were too few requests of."""

    failures: float | None = None
    """Share of its requests that failed."""
    ttft_s: float | None = None
    """Median time to first token."""
    tokens_per_s: float | None = None
    """Median of its streams."""


class Tally:
    """Counts what one worker does, until it is taken."""

    __slots__ = ("_ended", "_failed", "_rates", "_ttfts", "began_at")

    def __init__(self, now: float) -> None:
        self.clear(now)

    def clear(self, now: float) -> None:
        """Forget everything."""
        self.began_at = now
        """Time of the oldest that is counted, or a little before."""
        self._ended = 0
        self._failed = 0
        self._ttfts: list[float] = []
        self._rates: list[float] = []

    def first_token(self, after_s: float) -> None:
        """A stream began."""
        if len(self._ttfts) < _REMEMBERED:
            self._ttfts.append(after_s)

    def streamed(self, tokens: int, seconds: float) -> None:
        """A stream ended that had so many tokens in so many seconds, its first one not counted."""
        if seconds > 0 and len(self._rates) < _REMEMBERED:
            self._rates.append(tokens / seconds)

    def ended(self, *, failed: bool) -> None:
        """A request ended; those that say nothing about the worker are not counted."""
        self._ended += 1
        self._failed += failed

    def take(self, requests_min: int, now: float) -> Sample | None:
        """What it did since the last time; None, and it goes on counting, while nothing was done often enough."""
        if max(self._ended, len(self._ttfts), len(self._rates)) < requests_min:
            return None
        sample = Sample(
            failures=self._failed / self._ended if self._ended >= requests_min else None,
            ttft_s=median(self._ttfts) if len(self._ttfts) >= requests_min else None,
            tokens_per_s=median(self._rates) if len(self._rates) >= requests_min else None,
        )
        self.clear(now)
        return sample


@dataclass(slots=True)
class Record:
    """One worker's past as an outlier."""

    times: int = 0
    """Ejections that are not forgiven yet."""
    out_until: float | None = None
    """Time; None while it is not out."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What one look at a group of peers came to."""

    ejected: dict[str, str] = field(default_factory=dict)
    """Who is out from now on, and why."""
    returned: tuple[str, ...] = ()


def judge(
    records: Mapping[str, Record],
    *,
    fresh: Mapping[str, Sample],
    known: Mapping[str, Sample],
    usable: Sequence[str],
    settings: OutlierSettings,
    now: float,
) -> Changes:
    """Look at one group of peers, and update their records.

    `records` has all that could be asked, ejected or not; `usable` those that may be picked now. Judged are the workers
    with a `fresh` sample, compared with all that are `known`.
    """
    room = _ejected_max(len(records), settings)
    returned = _who_returns(records, room, settings=settings, now=now, none_left=not usable)
    for name in returned:
        records[name].out_until = None
    room -= sum(record.out_until is not None for record in records.values())
    pickable = {*usable, *returned}
    ejected: dict[str, str] = {}
    for name, sample in fresh.items():
        record = records.get(name)
        if record is None or record.out_until is not None or name in returned:
            continue
        why = worse(sample, [peer for other, peer in known.items() if other != name and other in records], settings)
        if not why:
            record.times = max(0, record.times - 1)
        elif room > 0 and pickable - {name}:
            record.times = min(_TIMES_MAX, record.times + 1)
            record.out_until = now + settings.base_s * record.times
            pickable.discard(name)
            ejected[name] = why
            room -= 1
    return Changes(ejected, returned)


def worse(sample: Sample, peers: Sequence[Sample], settings: OutlierSettings) -> str:
    """Why a worker is an outlier among these peers; empty when it is none."""
    if sample.ttft_s is not None:
        usual_s = _median([peer.ttft_s for peer in peers])
        if usual_s is not None and sample.ttft_s > max(settings.factor * usual_s, usual_s + TTFT_MARGIN_S):
            return f"first tokens after {sample.ttft_s:.2f} s, its peers' after {usual_s:.2f} s"
    if sample.failures is not None:
        usual = _median([peer.failures for peer in peers])
        if usual is not None and sample.failures > usual + FAILURES_MARGIN:
            return f"{sample.failures:.0%} of its requests failed, of its peers' {usual:.0%}"
    if sample.tokens_per_s is not None:
        usual = _median([peer.tokens_per_s for peer in peers])
        if usual is not None and sample.tokens_per_s * settings.factor < usual:
            return f"{sample.tokens_per_s:.1f} tokens/s a stream, its peers {usual:.1f}"
    return ""


def _who_returns(
    records: Mapping[str, Record], room: int, *, settings: OutlierSettings, now: float, none_left: bool
) -> tuple[str, ...]:
    """Whose time is over, and those nearest to that where peers went and too many are out, or nobody is left."""
    out = [(record.out_until, name) for name, record in records.items() if record.out_until is not None]
    over = sum(until <= now for until, _ in out) if settings.enabled else len(out)
    count = max(over, len(out) - room, 1 if out and none_left else 0)
    return tuple(name for _, name in sorted(out)[:count])


def _ejected_max(peers: int, settings: OutlierSettings) -> int:
    if not settings.enabled or peers < PEERS_MIN or settings.max_ejected <= 0:
        return 0
    return max(1, int(settings.max_ejected * peers))


def _median(values: Sequence[float | None]) -> float | None:
    """Of the peers that are known; None with too few of them to compare with."""
    found = [value for value in values if value is not None]
    return median(found) if len(found) >= PEERS_MIN - 1 else None
