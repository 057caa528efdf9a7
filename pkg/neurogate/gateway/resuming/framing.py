"""From the bytes of a stream to what each event says, whatever pieces they came in.

Strict on purpose: these bytes come from a worker, which passes whole events on, so anything else in them is something
that nobody here understands, and an answer that is not understood is not continued.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from neurogate.dataplane.recovery import CannotResumeError

EVENT_BYTES_MAX = 16 << 20
"""Of one event that came in parts."""


class Framing(Protocol):
    """How a stream is divided into events."""

    def feed(self, chunks: Iterable[bytes]) -> list[bytes]:
        """The data of the events that these chunks complete. Raises CannotResumeError."""
        ...

    def between_events(self) -> bool:
        """Whether the bytes so far end with a whole event."""
        ...


class Lines:
    """Each line is an event: NDJSON. Empty lines say nothing."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunks: Iterable[bytes]) -> list[bytes]:
        """See Framing.feed."""
        return [line for line in self.all(chunks) if line]

    def all(self, chunks: Iterable[bytes]) -> list[bytes]:
        """The lines that are whole, without their ends, also the empty ones. Raises CannotResumeError."""
        *lines, self._rest = (self._rest + b"".join(chunks)).split(b"\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise CannotResumeError(f"it has an event of more than {EVENT_BYTES_MAX} bytes")
        return [line.removesuffix(b"\r") for line in lines]

    def take_back(self) -> bytes:
        """The part of a line that was fed last, as if it had not been."""
        rest, self._rest = self._rest, b""
        return rest

    def between_events(self) -> bool:
        """See Framing.between_events."""
        return not self._rest


class ServerSentEvents:
    """Data in `data:` lines, ended by an empty one; comments say nothing. No API here names its events."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._data: list[bytes] = []

    def feed(self, chunks: Iterable[bytes]) -> list[bytes]:
        """See Framing.feed."""
        if self._data:
            return self._by_lines(chunks)
        data = self._lines.take_back() + b"".join(chunks)
        if data.startswith(b"data: ") and data.endswith(b"\n\n") and b"\r" not in data:
            events = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(events):  # nothing but events of one line, as engines write them
                return events
        return self._by_lines((data,))

    def between_events(self) -> bool:
        """See Framing.between_events."""
        return not self._data and self._lines.between_events()

    def _by_lines(self, chunks: Iterable[bytes]) -> list[bytes]:
        events = []
        for line in self._lines.all(chunks):
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            elif not line.startswith(b":"):
                raise CannotResumeError("its stream has a line that is not of this API")
        return events
