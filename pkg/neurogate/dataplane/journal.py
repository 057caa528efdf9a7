"""What becomes of one exchange, told to whoever traces or explains it (ADR 0026, 0027).

Most exchanges have no journal: that costs them a comparison at each of these moments, and nothing for a token.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from neurogate.channel import Call, End
from neurogate.endpoint import ModelIdentity


class Journal(Protocol):
    """Hears of one exchange. Called on the event loop; must not block and must not raise."""

    def looks(self, call: Call, tried: Collection[str], like: ModelIdentity | None) -> None:
        """A worker is about to be picked that is none of those tried; `like` is the model of an answer to continue."""
        ...

    def waits(self) -> None:
        """There is none: one may come."""
        ...

    def asked(self, worker_id: str, *, resumed: bool = False, beside: bool = False) -> str:
        """This worker is asked: to continue the answer (`resumed`), or as a hedge (`beside`).

        Gives the trace context for its call; empty for the request's own.
        """
        ...

    def answered(self, worker_id: str) -> None:
        """The first piece of a streamed answer came from this worker."""
        ...

    def left(self, worker_id: str, end: End | None) -> None:
        """The attempt on this worker is over: it ended so, or (None) was taken back."""
        ...
