"""Server-sent events as bytes, without I/O: whole events out, and at the end what they amounted to.

A stream of tokens passes through `SseTap` untouched. Per piece it costs a few byte searches and no JSON: a raw line
break cannot occur inside a JSON string, so `data:` after a line break is an event, and text that merely talks about
`[DONE]` or errors cannot be mistaken for one. What the events say is parsed once, at the end, from the first and the
last ones.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from neurogate.engines.engine import EngineBrokenError
from neurogate.engines.payload import Chunk, chunk_of, json_of, message_of
from neurogate.inference import Usage

EVENT_BYTES_MAX = 1 << 20
DONE = b"[DONE]"

_EDGE_PIECES = 4
"""Pieces kept for the end: engines send finish reason, usage and [DONE] last, together or each in its own piece."""

_END_BYTES = 64
"""The end mark is looked for only here, at the end of a piece: nothing but a comment follows it."""

_BLANK_LINE = re.compile(rb"\n\r?\n")
_DONE_EVENT = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)


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
    for block in _BLANK_LINE.split(whole):
        name = ""
        data = []
        for line in block.splitlines():
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode(errors="replace")
        if data:
            yield Event(name, b"\n".join(data))


class SseTap:
    """Watches one stream go by. Not reusable."""

    __slots__ = ("_done", "_edge", "_events", "_first", "_rest", "error")

    def __init__(self) -> None:
        self.error: str | None = None
        """The engine's message once its error event came; nothing passes from then on."""
        self._rest = bytearray()
        self._events = 0
        self._done = False
        self._first: bytes | None = None
        self._edge: deque[bytes] = deque(maxlen=_EDGE_PIECES)

    @property
    def events(self) -> int:
        """Events with data that passed, without the end mark: within one or two of the tokens generated so far."""
        return self._events - self._done

    @property
    def done(self) -> bool:
        """Whether the engine's own end mark passed."""
        return self._done

    def feed(self, data: bytes) -> bytes:
        """The events that `data` completes, in order and unchanged; possibly none.

        An error event is not among them: it is held in `error` for the caller to report in its own way. Raises
        EngineBrokenError for an event of more than 1 MiB.
        """
        if self.error is not None:
            return b""
        if not self._rest and data.endswith(b"\n\n"):
            whole = data
        else:
            whole = self._join(data)
            if not whole:
                return b""
        count = whole.count(b"\ndata:") + whole.startswith(b"data:")
        if b"error" in whole:
            whole, count = self._cut_at_error(whole, count)
        if count:
            self._events += count
            self._edge.append(whole)
            if self._first is None:
                self._first = whole
            if whole.find(DONE, -_END_BYTES) >= 0 and _DONE_EVENT.search(whole):
                self._done = True
        return whole

    def finish(self) -> Ending:
        """Parse what the stream amounted to. Call it once, when the body has ended."""
        edge = list(self._edge)
        if self._first is not None and self._first is not edge[0]:
            edge.insert(0, self._first)
        chunks = [chunk_of(event.data) or Chunk() for piece in edge for event in events(piece) if event.data != DONE]
        totals = [total for chunk in chunks if (total := chunk.total()) is not None]
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        usage = totals[-1] if totals else None
        silent = sum(not chunk.generated for chunk in chunks)
        return Ending(
            complete=self._done and self.error is None,
            error=self.error,
            usage=usage,
            finish_reason=reasons[-1] if reasons else "",
            tokens=usage.completion_tokens if usage is not None else self.events - silent,
        )

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

    def _cut_at_error(self, whole: bytes, count: int) -> tuple[bytes, int]:
        start = 0
        passed = 0
        for blank in _BLANK_LINE.finditer(whole):
            for event in events(whole[start : blank.end()]):
                if (message := _error_of(event)) is not None:
                    self.error = message
                    return whole[:start], passed
                passed += 1
            start = blank.end()
        return whole, count


def _error_of(event: Event) -> str | None:
    if event.name == "error":
        return message_of(event.data) or "the engine reported an error without a message"
    if b'"error"' not in event.data:
        return None
    value = json_of(event.data)
    if isinstance(value, dict) and (value.get("error") or value.get("object") == "error"):
        return message_of(event.data) or "the engine reported an error without a message"
    return None
