"""A recovery for data planes in memory, where a chunk is the text that it says."""

from __future__ import annotations

from collections.abc import Iterable

from neurogate.channel import Call, Resume
from neurogate.dataplane.recovery import CannotResumeError, Transcript

END_MARK = b"[DONE]"
"""The chunk that ends a whole stream."""

NO_TEXT = b"?"
"""A chunk that is not understood."""


class PlainTranscript:
    """A `Transcript`: the text is the chunks."""

    def __init__(self) -> None:
        self.takes: list[int] = []
        """Bytes of each `take`."""
        self._chunks: list[bytes] = []

    def take(self, chunks: Iterable[bytes]) -> None:
        """Read chunks. Raises CannotResumeError for NO_TEXT."""
        taken = list(chunks)
        self.takes.append(sum(map(len, taken)))
        if NO_TEXT in taken:
            raise CannotResumeError("it is not understood")
        self._chunks += taken

    def resume(self) -> Resume | None:
        """Where the answer stopped; None once END_MARK came."""
        if END_MARK in self._chunks:
            return None
        return Resume(b"".join(self._chunks).decode(), len(self._chunks))


class PlainRecovery:
    """A `Recovery` that refuses the bodies it is told to."""

    def __init__(self, refused: bytes = b"tools") -> None:
        self.transcripts: list[PlainTranscript] = []
        """Those it began, in order."""
        self._refused = refused

    def transcript(self, call: Call) -> Transcript:
        """Raises CannotResumeError for a body with the refused word."""
        if self._refused in call.body:
            raise CannotResumeError(f"the request asks for {self._refused.decode()}")
        self.transcripts.append(PlainTranscript())
        return self.transcripts[-1]
