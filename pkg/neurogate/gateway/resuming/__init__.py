"""Reading back what a client was sent, so that another worker can continue a broken stream (ADR 0018)."""

from __future__ import annotations

from neurogate.channel import Call
from neurogate.dataplane.recovery import CannotResumeError, Transcript


class Transcripts:
    """A `Recovery` for the APIs that `operations` calls resumable."""

    def transcript(self, call: Call) -> Transcript:
        """A transcript for the answer to this call. Raises CannotResumeError."""
        raise CannotResumeError(f"answers of {call.path} are not read back")
