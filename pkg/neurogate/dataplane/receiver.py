"""Who takes an answer: the client's side of an exchange, told by callbacks."""

from __future__ import annotations

from typing import Protocol

from neurogate.channel import End
from neurogate.errors import GatewayError


class Receiver(Protocol):
    """Takes the answer of one request. Called on the event loop; must not block and must not raise."""

    def on_chunk(self, data: bytes) -> None:
        """Take a piece of a streamed answer: whole events."""
        ...

    def on_resume(self) -> None:
        """The stream broke, and another worker continues it from here."""
        ...

    def on_answer(self, end: End, body: bytes) -> None:
        """Take a whole answer: an unstreamed one, or the engine's own refusal (4xx) of either kind."""
        ...

    def on_complete(self) -> None:
        """The streamed answer is complete."""
        ...

    def on_error(self, error: GatewayError) -> None:
        """There is no answer, or what came of it so far is all there is."""
        ...
