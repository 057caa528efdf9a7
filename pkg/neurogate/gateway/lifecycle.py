"""Where a gateway is in its life: ready, draining or neither; and who must hear of it."""

from __future__ import annotations

import enum
from collections.abc import Callable


class Why(enum.Enum):
    """Who has the gateway drain. Each takes back its own word only."""

    ADMIN = "an admin"
    STOP = "the process stops"


class Lifecycle:
    """What `/ready` tells."""

    def __init__(self) -> None:
        self.ready = False
        """Everything has started."""
        self._why: set[Why] = set()
        self._followers: list[Callable[[bool], None]] = []

    @property
    def draining(self) -> bool:
        """Clients should go elsewhere; requests are served all the same."""
        return bool(self._why)

    def follow(self, follower: Callable[[bool], None]) -> None:
        """Call back with `draining` whenever it changes."""
        self._followers.append(follower)

    def drain(self, why: Why) -> None:
        """Draining from now on, for this reason. Idempotent."""
        self._change(self._why | {why})

    def undrain(self, why: Why) -> None:
        """No longer for this reason; another one may go on. Idempotent."""
        self._change(self._why - {why})

    def _change(self, why: set[Why]) -> None:
        before, self._why = self.draining, why
        if self.draining != before:
            for follower in self._followers:
                follower(self.draining)
