"""Server-sent events as bytes, without I/O: whole events out, and at the end what they amounted to.

A stream of tokens passes through `SseTap` untouched. Per piece it costs a few byte searches, and a walk over its JSON
that builds nothing: what is no event of any API must not reach a client, who could make nothing of it, nor of what
another engine would add. A raw line break cannot occur inside a JSON string, so `data:` after a line break is an event,
and text that merely talks about `[DONE]` or errors cannot be mistaken for one. How a stream of each API ends is
`operations.Ending`; what the events say is parsed once, at the end, from the first and the last ones.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from neurogate.engines import accounting
from neurogate.engines.engine import EngineBrokenError
from neurogate.engines.payload import is_json, is_sound, json_of, message_of
from neurogate.inference import Usage
from neurogate.operations import Ending as EndMark

EVENT_BYTES_MAX = 1 << 20
DONE = b"[DONE]"

_EDGE_PIECES = 4
"""Pieces kept for the end: engines send finish reason, usage and [DONE] last, together or each in its own piece."""

_END_BYTES = 128
"""A short end mark is looked for only here, at the end of a piece: nothing but a comment follows it."""

SHOWN_BYTES = 100
"""How much of what makes no sense is told."""

_WORDS = frozenset({DONE, b"null"})
"""Data that is no object: the end mark, and what llama.cpp says between several completions in one stream."""
_SILENT_FIELDS = frozenset({b"", b"event", b"id", b"retry"})
"""What a line may be that is no data; a comment is a field without a name."""

_ERROR = re.compile(rb"error")
"""Found twice as fast as with `in`, which raises an error of its own first where bytes are looked for."""
_CR, _LF = b"\r\n"
_BLANK_LINE = re.compile(rb"\n\r?\n")
_DONE_EVENT = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_MESSAGE_STOP = re.compile(rb"^event: ?message_stop", re.MULTILINE)
_MESSAGE_DELTA = re.compile(rb"^event: ?content_block_delta", re.MULTILINE)
_RESPONSE_END = re.compile(rb"^event: ?response\.(?:completed|incomplete|failed)\b", re.MULTILINE)
_RESPONSE_DELTA = re.compile(rb"^event: ?response\.[a-z_.]+\.delta\b", re.MULTILINE)
_STOP = re.compile(rb'"stop": ?true')
"""A quote inside a JSON string is escaped, so this is a key."""


class Event(NamedTuple):
    """One event that carries data."""

    name: str
    """Empty for the default event type."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """What a finished stream amounted to."""

    complete: bool
    """The engine's own end mark came, and no error. Anything else was cut."""
    error: str | None
    """The message of the engine's error event; None when there was none, also for a stream that just broke off."""
    usage: Usage | None
    """None when the engine did not tell."""
    finish_reason: str
    """Empty when none came."""
    tokens: int
    """Tokens generated: as the engine counted them, else the events that carried some."""


def events(whole: bytes) -> Iterator[Event]:
    """The events in whole event bytes; comments and events without data are left out."""
    for block in _blocks(whole):
        if _is_line(block) and block.startswith(b"data: "):
            yield Event("", block[6:])
            continue
        name = ""
        data = []
        for line in block.splitlines():
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode(errors="replace")
        if data:
            yield Event(name, b"\n".join(data))


def _blocks(whole: bytes) -> list[bytes]:
    """What blank lines part."""
    return _BLANK_LINE.split(whole) if _CR in whole else whole.split(b"\n\n")


def _is_line(block: bytes) -> bool:
    return _LF not in block and _CR not in block


class _Form(NamedTuple):
    """How one API's stream shows its tokens and its end, in whole events."""

    tokens: re.Pattern[bytes] | None
    """Events that carry a token; None counts every event with data, the end mark too."""
    hint: bytes
    """Without these bytes there is no end mark."""
    within: int
    """Where to look for them: from here on."""
    mark: re.Pattern[bytes]
    """An end mark."""
    plain: bool = False
    """An event of one line that is an object carries a token, and is no end."""


class SseTap:
    """Watches one stream go by. Not reusable.

    `mark` is how a whole stream ends, `marks` how many times: llama.cpp ends every choice of `/completion` on its own.
    """

    __slots__ = (
        "_edge", "_first", "_form", "_mark", "_marks", "_marks_wanted", "_plain", "_rest", "_strange", "error", "events"
    )  # fmt: skip

    def __init__(self, mark: EndMark = EndMark.DONE, *, marks: int = 1) -> None:
        self.error: str | None = None
        """The engine's message once its error event came, or what it said that is no event; nothing passes then."""
        self._strange = ""
        self._mark = mark
        self._form = _FORMS[mark]
        self._marks_wanted = marks
        self._plain = self._form.plain
        """What comes next may be a plain event: nothing of one waits, and nothing went wrong."""
        self._rest = bytearray()
        self.events = 0
        """Events with tokens that passed: within one or two of the tokens generated so far."""
        self._marks = 0
        self._first: bytes | None = None
        self._edge: deque[bytes] = deque(maxlen=_EDGE_PIECES)

    @property
    def _failed(self) -> bool:
        return self.error is not None or bool(self._strange)

    @property
    def done(self) -> bool:
        """Whether the engine's own end mark passed."""
        return self._marks >= self._marks_wanted

    def feed(self, data: bytes) -> bytes:
        """The events that `data` completes, in order and unchanged; possibly none.

        An error event is not among them: it is held in `error` for the caller to report in its own way. So is what is
        neither JSON nor an end mark, and `finish` tells of it; behind the end of the stream it is only left out. Raises
        EngineBrokenError for an event of more than 1 MiB.
        """
        if (
            self._plain
            and data[-2:] == b"\n\n"
            and data[:6] == b"data: "
            and _LF not in (told := data[6:-2])
            and _CR not in told
            and is_sound(told)
        ):  # one event of one line, which carries a token
            self.events += 1
            self._edge.append(data)
            if self._first is None:
                self._first = data
            return data
        if self._failed:
            return b""
        passing = self._pass(data)
        self._plain = self._form.plain and not (self._rest or self._failed)
        return passing

    def _pass(self, data: bytes) -> bytes:
        if not self._rest and data.endswith(b"\n\n"):
            whole = data
        else:
            whole = self._join(data)
            if not whole:
                return b""
        if _ERROR.search(whole):
            whole = self._cut_at_error(whole)
        if (sound := _sound(whole)) < len(whole):
            self._strange = no_event(whole[sound:])
            whole = whole[:sound]
        count = whole.count(b"\ndata:") + whole.startswith(b"data:")
        if count:
            form = self._form
            marks = len(form.mark.findall(whole)) if whole.find(form.hint, form.within) >= 0 else 0
            self._marks += marks
            self.events += count - marks if form.tokens is None else len(form.tokens.findall(whole))
            self._edge.append(whole)
            if self._first is None:
                self._first = whole
        if self._strange and not self.done:
            self.error = self._strange
        return whole

    def finish(self) -> Ending:
        """Parse what the stream amounted to. Call it once, when the body has ended.

        Raises EngineBrokenError for a stream with something in it that is no event.
        """
        if self._strange and not self.done:
            raise EngineBrokenError(f"the engine sent {self._strange}")
        edge = list(self._edge)
        if self._first is not None and self._first is not edge[0]:
            edge.insert(0, self._first)
        told = [event.data for piece in edge for event in events(piece) if event.data != DONE]
        account, silent = accounting.summed(self._mark, told, self.events)
        usage = account.usage
        return Ending(
            complete=self.done and self.error is None,
            error=self.error,
            usage=usage,
            finish_reason=account.finish_reason,
            tokens=usage.completion_tokens if usage is not None else self._generated(silent),
        )

    def _generated(self, silent: int) -> int:
        """Events with tokens; where every event counts as one, those that were none are taken off."""
        return max(0, self.events - silent) if self._form.tokens is None else self.events

    def _join(self, data: bytes) -> bytes:
        rest = self._rest
        seam = max(0, len(rest) - 2)  # a blank line may straddle two pieces
        rest += data
        bare = rest.rfind(b"\n\n", seam)
        returned = rest.rfind(b"\n\r\n", seam)
        end = max(bare + 2 if bare >= 0 else 0, returned + 3 if returned >= 0 else 0)
        whole = bytes(rest[:end])
        del rest[:end]
        if len(rest) > EVENT_BYTES_MAX:
            raise EngineBrokenError(f"the engine sent an event of more than {EVENT_BYTES_MAX} bytes")
        return whole

    def _cut_at_error(self, whole: bytes) -> bytes:
        start = 0
        for blank in _BLANK_LINE.finditer(whole):
            for event in events(whole[start : blank.end()]):
                if (message := _error_of(event)) is not None:
                    self.error = message
                    return whole[:start]
            start = blank.end()
        return whole


def no_event(data: bytes) -> str:
    """What a person is told of bytes that an API would never say."""
    return f"something that is no event: {data[:SHOWN_BYTES].decode(errors='replace')!r}"


def _sound(whole: bytes) -> int:
    """How many of the bytes of whole events come before one that is none."""
    if _is_plain(whole):
        return len(whole)
    start = 0
    if _CR not in whole:
        for block in whole.split(b"\n\n"):
            if not _is_event(block):
                return start
            start += len(block) + 2
        return len(whole)
    for blank in _BLANK_LINE.finditer(whole):
        if not _is_event(whole[start : blank.start()]):
            return start
        start = blank.end()
    return len(whole)


def _is_plain(data: bytes) -> bool:
    """Whether bytes that end in a blank line are one event of one line, an object: nearly all that engines send."""
    return data.startswith(b"data: {") and data.find(b"\n") == len(data) - 2 and _CR not in data and is_json(data[6:])


def _is_event(block: bytes) -> bool:
    if block.startswith(b"data: {") and _is_line(block):
        return is_json(block[6:])
    data = []
    for line in block.splitlines():
        field, colon, value = line.partition(b":")
        if field == b"data" and colon:
            data.append(value)
        elif field not in _SILENT_FIELDS:
            return False
    if not data:
        return True
    told = b"\n".join(data).strip()
    return told in _WORDS or (told.startswith((b"{", b"[")) and is_json(told))


def _error_of(event: Event) -> str | None:
    if event.name == "error":
        return message_of(event.data) or "the engine reported an error without a message"
    if b'"error"' not in event.data:
        return None
    value = json_of(event.data)
    if isinstance(value, dict) and (value.get("error") or value.get("object") == "error"):
        return message_of(event.data) or "the engine reported an error without a message"
    return None


_FORMS = {
    EndMark.DONE: _Form(None, DONE, -_END_BYTES, _DONE_EVENT, plain=True),
    EndMark.MESSAGE_STOP: _Form(_MESSAGE_DELTA, b"message_stop", -_END_BYTES, _MESSAGE_STOP),
    EndMark.RESPONSE_COMPLETED: _Form(_RESPONSE_DELTA, b'"response"', 0, _RESPONSE_END),
    EndMark.STOP: _Form(None, b'"stop"', 0, _STOP),
}

MARKS = frozenset(_FORMS)
"""The end marks that a tap knows."""
