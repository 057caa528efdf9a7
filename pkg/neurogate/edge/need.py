"""How much time a request must have left to be worth beginning, going by those before it that had waited for a turn.

What is alike is measured together: a lane, and about how many tokens were asked for, so that a short request is not
refused for what long ones take (ADR 0023). Where nothing is known, nothing is needed.
"""

from __future__ import annotations

from collections import OrderedDict

from neurogate.edge.line import Lane

_DOWN, _UP = 0.3, 0.03
"""Steps towards shorter and longer durations: they settle where about one request in ten is quicker."""
_KNOWN_AFTER = 8

_RESERVE_MIN, _RESERVE_MAX = 1.1, 10.0
_RESERVE_STEP = 0.05
_MAY_RUN_OUT = 0.03
"""How many of those that are begun may have too little time: the reserve settles where that is so."""

_SIZE_MAX = 8
"""Steps until all are alike: those that ask for more than 16384 tokens."""
_NEEDS_MAX = 1024


class Need:
    """Of requests that are alike."""

    __slots__ = ("_measured", "_reserve", "_usual_s")

    def __init__(self) -> None:
        self._usual_s = 0.0
        self._measured = 0
        self._reserve = _RESERVE_MIN

    @property
    def usual_s(self) -> float:
        """Seconds that the quicker ones take from their turn to their end; 0 while that is not known."""
        return self._usual_s if self._measured >= _KNOWN_AFTER else 0.0

    @property
    def seconds(self) -> float:
        """Seconds that must be left of a request's time when it is begun; 0 while that is not known."""
        return self._reserve * self.usual_s

    def answered(self, took_s: float) -> None:
        """One was answered whole, so long after its turn."""
        self._measured += 1
        step = _DOWN if took_s < self._usual_s else _UP
        self._usual_s = took_s if self._measured == 1 else self._usual_s + step * (took_s - self._usual_s)
        self._reserve = max(_RESERVE_MIN, self._reserve - _RESERVE_STEP * _MAY_RUN_OUT)

    def ran_out(self) -> None:
        """One was begun, and its own time was over before its answer."""
        self._reserve = min(_RESERVE_MAX, self._reserve + _RESERVE_STEP)


class Needs:
    """Of all requests; those of kinds that were not seen for the longest are forgotten."""

    def __init__(self) -> None:
        self._by_kind: OrderedDict[tuple[Lane, int], Need] = OrderedDict()

    def of(self, lane: Lane, max_tokens: int | None) -> Need:
        """What requests like this one need; `max_tokens` is what it asks for, None when it does not say."""
        kind = (lane, _size(max_tokens))
        need = self._by_kind.get(kind)
        if need is None:
            need = self._by_kind[kind] = Need()
            if len(self._by_kind) > _NEEDS_MAX:
                self._by_kind.popitem(last=False)
        else:
            self._by_kind.move_to_end(kind)
        return need


def _size(max_tokens: int | None) -> int:
    """One step for every four times as many tokens; 0 for those that name no bound."""
    if max_tokens is None:
        return 0
    return 1 + min(_SIZE_MAX, (max(0, max_tokens - 1).bit_length() + 1) // 2)
