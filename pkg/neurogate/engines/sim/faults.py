"""What goes wrong in the simulated engine, on demand.

The one idea: a fault is decided when a request begins, from a seeded random source or from the answer's length, so a
run with the same seed fails in the same places.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass

from neurogate.errors import ConfigError

KEY = "NEUROGATE_SIM_FAULTS"


class Break(enum.Enum):
    """How an answer breaks off after it began."""

    CUT = "cut_after"
    """It ends without its end mark."""
    ERROR = "error_after"
    """It ends with the API's error event."""
    HANG = "hang_after"
    """No more bytes come, and the slot stays taken, until the request is cancelled."""
    EXIT = "exit_after"
    """The process dies."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults to inject; the defaults inject none."""

    error: float = 0.0
    """Probability that a request is answered 500 before its first byte."""
    busy: float = 0.0
    """Probability that a request is answered 503 with Retry-After."""
    cut_after: int | None = None
    """Tokens after which every answer that gets so far breaks off; so for the next three."""
    error_after: int | None = None
    hang_after: int | None = None
    exit_after: int | None = None
    slow_after: int | None = None
    """Tokens after which an answer drags: every further one takes `token_every_s`. Its slot stays taken meanwhile."""
    token_every_s: float = 60.0
    refuse: bool = False
    """Never be ready, and refuse every request."""
    slow_start_s: float = 0.0
    """Seconds after the start during which it is not ready."""

    def draw(self, rng: random.Random) -> str:
        """Which fault meets a new request: `error`, `busy`, or nothing."""
        if self.error and rng.random() < self.error:
            return "error"
        if self.busy and rng.random() < self.busy:
            return "busy"
        return ""

    def breaks(self, length: int) -> tuple[int, Break | None]:
        """Where and how an answer of `length` tokens ends: (length, None) undisturbed, otherwise the earliest fault."""
        planned = (
            (self.cut_after, Break.CUT),
            (self.error_after, Break.ERROR),
            (self.hang_after, Break.HANG),
            (self.exit_after, Break.EXIT),
        )
        reached = [(after, kind) for after, kind in planned if after is not None and after <= length]
        return min(reached, key=lambda planned_break: planned_break[0], default=(length, None))


def parse(text: str) -> Faults:
    """Read faults such as `error=0.1,cut_after=5`; an empty text is none.

    Raises ConfigError that names the setting and what it takes.
    """
    values: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in _READERS:
            raise ConfigError(f"{KEY}: unknown fault {name!r}; valid are {', '.join(sorted(_READERS))}")
        field, expected, read = _READERS[name]
        if field in values:
            raise ConfigError(f"{KEY}: {name} is given twice")
        try:
            values[field] = read(value)
        except ValueError as error:
            raise ConfigError(f"{KEY}: {name} must be {expected} (got {value!r})") from error
    return Faults(**values)  # type: ignore[arg-type]


def _probability(value: str) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(value)
    return number


def _tokens(value: str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError(value)
    return number


def _seconds(value: str) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(value)
    return number


def _switch(value: str) -> bool:
    if value not in {"0", "1"}:
        raise ValueError(value)
    return value == "1"


_READERS: dict[str, tuple[str, str, Callable[[str], object]]] = {
    "error": ("error", "a probability from 0 to 1", _probability),
    "busy": ("busy", "a probability from 0 to 1", _probability),
    "cut_after": ("cut_after", "a number of tokens", _tokens),
    "error_after": ("error_after", "a number of tokens", _tokens),
    "hang_after": ("hang_after", "a number of tokens", _tokens),
    "exit_after": ("exit_after", "a number of tokens", _tokens),
    "slow_after": ("slow_after", "a number of tokens", _tokens),
    "token_every": ("token_every_s", "seconds", _seconds),
    "refuse": ("refuse", "0 or 1", _switch),
    "slow_start": ("slow_start_s", "seconds", _seconds),
}
