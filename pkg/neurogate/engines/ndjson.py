"""Ollama's streams as bytes, without I/O: whole lines out, and at the end what they amounted to.

The counterpart of `sse`: a stream passes through `NdjsonTap` untouched and costs a few byte searches and a walk over
its JSON a piece. A quote inside a JSON string is escaped, so a line that holds `"done":true` or `"error"` does so
outside of any text; only such lines are decoded, to see whether they mean themselves or the arguments of a tool call.
"""

from __future__ import annotations

import re

import msgspec

from neurogate.engines.engine import EngineBrokenError
from neurogate.engines.payload import is_json, json_of, message_of
from neurogate.engines.sse import Ending, no_event
from neurogate.inference import Usage
from neurogate.prompt_api import UNDECODABLE

LINE_BYTES_MAX = 16 << 20
"""The last line of `/api/generate` holds the whole context as numbers."""

_DONE = re.compile(rb'"done"\s*:\s*true')


class Summary(msgspec.Struct):
    """What the last line of an answer, or a whole answer, says of it; Ollama leaves out what is zero."""

    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None

    @property
    def usage(self) -> Usage:
        """The tokens as Ollama counted them."""
        return Usage(self.prompt_eval_count or 0, self.eval_count or 0)


_SUMMARIES = msgspec.json.Decoder(Summary, strict=False)


def summary_of(answer: bytes) -> Summary | None:
    """What an object says of an answer; None when it is no such object."""
    try:
        return _SUMMARIES.decode(answer)
    except UNDECODABLE:
        return None


class NdjsonTap:
    """Watches one stream go by. Not reusable."""

    __slots__ = ("_last", "_rest", "_strange", "error", "events")

    def __init__(self) -> None:
        self.error: str | None = None
        """The engine's message once its error line came, or what it said that is no object; nothing passes then."""
        self._strange = ""
        self._rest = bytearray()
        self.events = 0
        """Lines that passed, without the last: about the tokens generated so far."""
        self._last: Summary | None = None

    def feed(self, data: bytes) -> bytes:
        """The lines that `data` completes, in order and unchanged; possibly none.

        An error line is not among them, nor what comes after it. A line that is no object of JSON does not pass either,
        and `finish` tells of it; behind the last line it is only left out. Raises EngineBrokenError for a line of more
        than LINE_BYTES_MAX.
        """
        if self.error is not None or self._strange:
            return b""
        whole = data if not self._rest and data.endswith(b"\n") else self._join(data)
        if not whole:
            return b""
        if b'"error"' in whole:
            whole = self._cut_at_error(whole)
        if (sound := _sound(whole)) < len(whole):
            self._strange = no_event(whole[sound:])
            whole = whole[:sound]
        count = whole.count(b"\n")
        if _DONE.search(whole):
            count -= self._look_for_end(whole)
        self.events += count
        if self._strange and self._last is None:
            self.error = self._strange
        return whole

    def finish(self) -> Ending:
        """What the stream amounted to. Call it once, when the body has ended.

        Raises EngineBrokenError for a stream with a line in it that is no object.
        """
        if self._strange and self._last is None:
            raise EngineBrokenError(f"the engine sent {self._strange}")
        last = self._last
        usage = last.usage if last is not None else None
        return Ending(
            complete=last is not None and self.error is None,
            error=self.error,
            usage=usage,
            finish_reason=(last.done_reason or "") if last is not None else "",
            tokens=usage.completion_tokens if usage is not None else self.events,
        )

    def _join(self, data: bytes) -> bytes:
        rest = self._rest
        end = data.rfind(b"\n") + 1
        if end:
            whole = bytes(rest) + data[:end]
            rest[:] = data[end:]
        else:
            whole = b""
            rest += data
        if len(rest) > LINE_BYTES_MAX:
            raise EngineBrokenError(f"the engine sent a line of more than {LINE_BYTES_MAX} bytes")
        return whole

    def _look_for_end(self, whole: bytes) -> int:
        found = 0
        for line in whole.splitlines():
            if _DONE.search(line) and (summary := summary_of(line)) is not None and summary.done:
                self._last = summary
                found += 1
        return found

    def _cut_at_error(self, whole: bytes) -> bytes:
        start = 0
        for line in whole.splitlines(keepends=True):
            if b'"error"' in line:
                value = json_of(line)
                if isinstance(value, dict) and value.get("error"):
                    self.error = message_of(line) or "the engine reported an error without a message"
                    return whole[:start]
            start += len(line)
        return whole


def _sound(whole: bytes) -> int:
    """How many of the bytes of whole lines come before one that is no object; a blank line is nothing."""
    if whole.count(b"\n") == 1 and _is_line(whole):
        return len(whole)
    start = 0
    while start < len(whole):
        end = whole.index(b"\n", start) + 1
        if not _is_line(whole[start:end]):
            return start
        start = end
    return start


def _is_line(line: bytes) -> bool:
    told = line.strip()
    return not told or (told.startswith(b"{") and is_json(told))
