"""What an endpoint may ask of its client's connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """The connection of a request: `scope["extensions"]["neurogate.connection"]`.

    ASGI's own way to hear of a disconnect costs a coroutine, a future and an event for every request.
    """

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        """Call back when the connection is lost; None takes it back. One callback at a time."""
        ...

    def abort(self) -> None:
        """Cut the connection now, dropping what is unsent: a slow client's bytes must not outlive its request."""
        ...
