"""What an exchange needs to continue a broken stream: the text in the bytes that its client has (ADR 0018).

The data plane knows no API's words. It keeps what it forwarded and, only when the stream breaks or the bytes grow,
hands it to a transcript, which knows them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from neurogate.channel import Call, Resume


class CannotResumeError(Exception):
    """The answer cannot be continued faithfully. The text says why, for the client."""


class Transcript(Protocol):
    """The text of one answer, read from the chunks of its stream."""

    def take(self, chunks: Iterable[bytes]) -> None:
        """Read chunks that follow those before. Raises CannotResumeError."""
        ...

    def resume(self) -> Resume | None:
        """Where the answer stopped; None when its end mark was sent, too. Raises CannotResumeError."""
        ...


class Recovery(Protocol):
    """Begins transcripts."""

    def transcript(self, call: Call) -> Transcript:
        """One for the answer to this call. Raises CannotResumeError when what it asks for cannot be continued."""
        ...


class NoRecovery:
    """Continues nothing."""

    def transcript(self, call: Call) -> Transcript:
        """Raises CannotResumeError."""
        raise CannotResumeError(f"this gateway does not continue answers of {call.path}")
