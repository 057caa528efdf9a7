"""What a stream's receiver has had: kept as it was, or as its text, for who may have to continue it (ADR 0018).

Keeping is an append and an addition for each piece; reading happens when a stream breaks, and when so much is kept that
its text is worth taking out.
"""

from __future__ import annotations

from neurogate.channel import Call, Resume
from neurogate.dataplane.recovery import CannotResumeError, Recovery, Transcript


class Sent:
    """The pieces of one stream."""

    __slots__ = ("_call", "_kept", "_recovery", "_transcript", "_why_not", "size")

    def __init__(self, recovery: Recovery, call: Call) -> None:
        self._recovery = recovery
        self._call = call
        self._kept: list[bytes] | None = []
        """What the transcript has not read; None when the stream cannot be continued."""
        self.size = 0
        """Bytes that are kept as they were."""
        self._transcript: Transcript | None = None
        self._why_not = ""

    def keep(self, data: bytes, limit: int) -> None:
        """Keep a piece; past `limit` bytes their text is taken out, and they are let go."""
        if self._kept is not None:
            self._kept.append(data)
            self.size += len(data)
            if self.size > limit:
                self._read()

    def where_it_stopped(self) -> Resume | None:
        """What the client has; None when that is all, with the end mark. Raises CannotResumeError."""
        self._read()
        if self._transcript is None:
            raise CannotResumeError(self._why_not)
        return self._transcript.resume()

    def _read(self) -> None:
        if self._kept is None:
            return
        kept, self._kept, self.size = self._kept, [], 0
        try:
            if self._transcript is None:
                self._transcript = self._recovery.transcript(self._call)
            self._transcript.take(kept)
        except CannotResumeError as error:
            self._kept = self._transcript = None
            self._why_not = str(error)
