"""Reading back what a client was sent, so that another worker can continue a broken stream (ADR 0018).

`eligibility` decides from the request whether its answer could be continued; the transcripts, one module for each API,
read the answer. Both raise CannotResumeError with a reason for the client, who then gets the error that it would have
had anyway. How to add an API: a check, a `StreamTranscript`, a line in the table below, and `resumes` in `operations`.
"""

from __future__ import annotations

from collections.abc import Callable

from neurogate.channel import Call
from neurogate.dataplane.recovery import CannotResumeError, Transcript
from neurogate.gateway.resuming import ollama, openai
from neurogate.gateway.resuming.eligibility import check_ollama, check_openai
from neurogate.gateway.resuming.prompt import PromptTranscript


def _anything(_: bytes) -> None:
    """`/prompt` has nothing that could not be continued."""


_APIS: dict[str, tuple[Callable[[bytes], None], Callable[[], Transcript]]] = {
    "/prompt": (_anything, PromptTranscript),
    "/v1/chat/completions": (check_openai, openai.ChatTranscript),
    "/v1/completions": (check_openai, openai.CompletionTranscript),
    "/api/generate": (check_ollama, ollama.GenerateTranscript),
    "/api/chat": (check_ollama, ollama.ChatTranscript),
}


class Transcripts:
    """A `Recovery` for the APIs that `operations` calls resumable."""

    def transcript(self, call: Call) -> Transcript:
        """A transcript for the answer to this call. Raises CannotResumeError."""
        if call.path not in _APIS:
            raise CannotResumeError(f"answers of {call.path} are not continued")
        check, begin = _APIS[call.path]
        check(call.body)
        return begin()
