"""What a stream's receiver has had: kept as it was, or as its text, for who may have to continue it (ADR 0018).

Keeping is an append and an addition for each piece; reading happens when a stream breaks, and when so much is kept that
its text is worth taking out.
"""

from __future__ import annotations

from neurogate.channel import Call, Resume
from neurogate.dataplane.recovery import CannotResumeError, Recovery, Transcript


class Sent:
    """The pieces of one stream."""

    __slots__ = ("_call", "_recovery", "_transcript", "_why_not", "kept", "size")

    def __init__(self, recovery: Recovery, call: Call) -> None:
        self._recovery = recovery
        self._call = call
        self.kept: list[bytes] | None = []
        """What the transcript has not read; None when the stream cannot be continued.

        Whoever forwards a piece appends it here and adds to `size`, for that happens for every token.
        """
        self.size = 0
        """Bytes of `kept`."""
        self._transcript: Transcript | None = None
        self._why_not = ""

    def where_it_stopped(self) -> Resume | None:
        """What the client has; None when that is all, with the end mark. Raises CannotResumeError."""
        self.read()
        if self._transcript is None:
            raise CannotResumeError(self._why_not)
        return self._transcript.resume()

    def read(self) -> None:
        """Take out the text of what is kept, and let the bytes go."""
        if self.kept is None:
            return
        kept, self.kept, self.size = self.kept, [], 0
        try:
            if self._transcript is None:
                self._transcript = self._recovery.transcript(self._call)
            self._transcript.take(kept)
        except CannotResumeError as error:
            self.kept = self._transcript = None
            self._why_not = str(error)
