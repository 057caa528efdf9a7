"""An asyncio loop that jumps to its next timer instead of waiting: for tests and the simulator.

Real sockets do not work on it (their readiness takes real time), which is why the data plane talks to workers through
`neurogate.channel` only.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Asks for readiness without waiting, and moves the clock by what it would have waited."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("deadlock: every task waits and no timer is set")
        if timeout > 0:
            self.loop.advance(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` starts at 0 and passes only while every task waits."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._now += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a fresh virtual-time loop.

    Raises RuntimeError when every task waits for something that no timer will bring.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
