"""What all transcripts share: the text so far, bounded, and what the first events said of the answer.

A transcript knows the words of one API. It is strict: it raises for whatever it does not understand, since a client
must never get a continuation of something else than what it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from neurogate.channel import Resume
from neurogate.dataplane.recovery import CannotResumeError
from neurogate.gateway.resuming.framing import Framing
from neurogate.prompt_api import UNDECODABLE

TEXT_BYTES_MAX = 1 << 20
"""The longest text that another worker is sent to continue."""

_INT64_MAX = (1 << 63) - 1
_UNKNOWN = 255
"""An event's text of so many characters or more, which has no length in a byte."""


class StreamTranscript(ABC):
    """A `Transcript`.

    Nearly all events say a piece of text and nothing else. `_word` reads those in one step, `_read` whatever there is.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._folded: list[str] = []
        """The text of each `take`: one string and not one for each token, so that a long stream costs its text."""
        self._pieces: list[str] = []
        self._lengths = bytearray()
        self._text_bytes = 0
        self._tokens = 0
        self._id = ""
        self._model = ""
        self._created = 0
        self._fingerprint = ""
        self._finish_reason = ""
        self._usage_sent = False
        self._ended = False

    def take(self, chunks: Iterable[bytes]) -> None:
        """Read chunks that follow those before. Raises CannotResumeError."""
        pieces, word = self._pieces, self._word_now()
        for data in self._framing.feed(chunks):
            if word is not None:
                try:
                    pieces.append(word(data))
                    continue
                except UNDECODABLE:
                    pass  # there is more to it
            if self._ended:
                raise CannotResumeError("its stream goes on after its end")
            try:
                self._read(data)
            except UNDECODABLE as error:
                raise CannotResumeError("its stream has an event that is not of this API") from error
            word = self._word_now()
        self._fold()

    def resume(self) -> Resume | None:
        """Where the answer stopped; None when its end mark was sent. Raises CannotResumeError."""
        if not self._framing.between_events():
            raise CannotResumeError("its last event came in part only")
        if self._ended:
            return None
        return Resume(
            text="".join(self._folded),
            tokens=self._tokens,
            completion_id=self._id,
            created=self._created,
            model=self._model,
            finish_reason=self._finish_reason,
            usage_sent=self._usage_sent,
            lengths=b"" if _UNKNOWN in self._lengths else bytes(self._lengths),
            system_fingerprint=self._fingerprint,
        )

    @staticmethod
    @abstractmethod
    def _word(data: bytes) -> str:
        """The text of an event that says nothing else. Raises what a decoder raises for any other."""

    @abstractmethod
    def _read(self, data: bytes) -> None:
        """Read one event. Raises CannotResumeError, or what a decoder raises."""

    def _word_now(self) -> Callable[[bytes], str] | None:
        """`_word` for events in the middle: the first ones also say what the answer is called, the last how it ends."""
        began = bool(self._tokens or self._pieces)
        return self._word if began and not self._finish_reason and not self._ended else None

    def _say(self, text: object) -> None:
        """Add what an event says; None and the empty text say nothing."""
        if text is None or text == "":
            return
        if not isinstance(text, str):
            raise CannotResumeError("it says something that is no text")
        if self._finish_reason:
            raise CannotResumeError("its text goes on after its end")
        self._pieces.append(text)

    def _fold(self) -> None:
        """One string of those that were read, and an account of them."""
        pieces, self._pieces = list(filter(None, self._pieces)), []
        if not pieces:
            return
        text = "".join(pieces)
        self._text_bytes += len(text) if text.isascii() else len(text.encode())
        if self._text_bytes > TEXT_BYTES_MAX:
            raise CannotResumeError(f"its text is longer than {TEXT_BYTES_MAX} bytes")
        self._folded.append(text)
        try:
            self._lengths += bytes(map(len, pieces))
        except ValueError:
            self._lengths.append(_UNKNOWN)
        self._tokens += len(pieces)

    def _introduce(
        self,
        *,
        completion_id: object = None,
        model: object = None,
        created: object = None,
        fingerprint: object = None,
    ) -> None:
        """Keep what the first events that tell it call the answer."""
        if not self._id and isinstance(completion_id, str):
            self._id = completion_id
        if not self._model and isinstance(model, str):
            self._model = model
        if not self._created and type(created) is int and 0 < created <= _INT64_MAX:
            self._created = created
        if not self._fingerprint and isinstance(fingerprint, str):
            self._fingerprint = fingerprint


def only(said: dict[str, object], known: frozenset[str]) -> None:
    """Raises CannotResumeError for anything that is said beside what is known; empty values say nothing."""
    for name, value in said.items():
        if value and name not in known:
            raise CannotResumeError(_BESIDE.get(name) or f"it has {name[:50]!r} beside its text")


_BESIDE = {
    "tool_calls": "it calls tools",
    "function_call": "it calls tools",
    "reasoning_content": "it has reasoning beside its text",
    "reasoning": "it has reasoning beside its text",
    "thinking": "it has reasoning beside its text",
    "logprobs": "it has logprobs",
    "refusal": "it is a refusal",
}
