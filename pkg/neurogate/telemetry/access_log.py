"""The access log: one line for each request, for people or for programs.

An entry is a handful of fields, taken on the hot path; the line is made in the writer's thread. Everything in an entry
that a client chose is bounded and stripped of characters that could start another line or steer a terminal. There is no
field for a key, and a prompt is written only where that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from neurogate.errors import ConfigError
from neurogate.telemetry.line_writer import LineFile, LineWriter
from neurogate.telemetry.rotating_file import STANDARD_OUTPUT, RotatingFile
from neurogate.telemetry.writable import check_file

Format = Literal["text", "json"]
NOBODY = "-"
"""The key id of a request without a key."""

_CHARS_MAX = 256
_PATH_CHARS_MAX = 2048
_PROMPT_CHARS_MAX = 8192
_RESTS = 128
"""Lines without their time that are remembered: some 3 MB at most, were all of them of the longest paths."""
_PATH_CHARS = "/:@!$&'()*+,;=~-._[]"
"""Beside letters and digits, what a path keeps; anything else is percent-encoded, as it was on the wire."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request that is over."""

    at: float
    """Seconds since 1970."""
    method: str
    path: str
    status: int
    key_id: str = ""
    request_id: str = ""
    trace_id: str = ""
    """Of its trace context, sampled or not; empty without one."""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_s: float | None = None
    """To the first byte of a streamed answer."""
    duration_s: float = 0.0
    worker: str = ""
    attempts: int = 0
    bytes: int = 0
    """Of the answer's body."""
    outcome: str = ""
    client: str = ""
    """Its address."""
    prompt: str = ""
    """Written only by a log that was told to."""


class AccessLog:
    """Writes entries without ever blocking whoever has them.

    Raises ConfigError when the file cannot be opened.
    """

    def __init__(
        self,
        path: str,
        *,
        form: Format,
        max_bytes: int,
        keep: int,
        max_waiting: int,
        prompts: bool = False,
        on_loss: Callable[[int], None],
        file: LineFile | None = None,
    ) -> None:
        if file is None:
            try:
                file = RotatingFile(Path(path), max_bytes=max_bytes, keep=keep)
            except OSError as error:
                raise _unopened(path, error) from error
        self.prompts = prompts
        """Whether the log takes prompts: whoever makes entries need not find them otherwise."""
        self._writer = LineWriter(
            file,
            text_line if form == "text" else self._json_line,
            name="access log",
            max_waiting=max_waiting,
            on_loss=on_loss,
        )
        self.write: Callable[[Entry], None] = self._writer.write
        """Take an entry; never blocks."""

    def __repr__(self) -> str:
        return f"<AccessLog {self._writer!r}>"

    @property
    def lost(self) -> int:
        """Lines that could not be written so far."""
        return self._writer.lost

    def start(self) -> None:
        """Start to write, once."""
        self._writer.start()

    def reopen(self) -> None:
        """Go on in the file that has the name now; for whoever moves log files away."""
        self._writer.reopen()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and end. Blocks, at most for `timeout_s`."""
        self._writer.close(timeout_s)

    def _json_line(self, entry: Entry) -> bytes:
        return json_line(entry, prompts=self.prompts)


def check(path: str) -> None:
    """Raise ConfigError when the file could not be opened; nothing is written. An empty path is none."""
    if path and Path(path) != STANDARD_OUTPUT:
        try:
            check_file(Path(path))
        except OSError as error:
            raise _unopened(path, error) from error


def _unopened(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"NEUROGATE_ACCESS_LOG: {path} cannot be opened: {error.strerror}")


def text_line(entry: Entry) -> bytes:
    """`ISO | key_id | METHOD path | status`."""
    rest = _rest(entry.key_id or NOBODY, entry.method, entry.path[:_PATH_CHARS_MAX], entry.status)
    return f"{_iso(entry.at)}{rest}".encode()


@lru_cache(maxsize=_RESTS)
def _rest(key_id: str, method: str, path: str, status: int) -> str:
    """Most lines differ from others by their time alone."""
    key_id, method = (clean(text).replace("|", "%7C") for text in (key_id, method))
    return f" | {key_id} | {method} {_path(path)} | {status}\n"


def json_line(entry: Entry, *, prompts: bool = False) -> bytes:
    """One JSON object."""
    fields: dict[str, object] = {
        "ts": _iso(entry.at),
        "key_id": clean(entry.key_id) or NOBODY,
        "method": clean(entry.method),
        "path": _path(entry.path),
        "status": entry.status,
        "request_id": clean(entry.request_id),
        "trace_id": entry.trace_id,
        "model": clean(entry.model),
        "prompt_tokens": entry.prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "ttft_ms": _ms(entry.ttft_s),
        "duration_ms": _ms(entry.duration_s),
        "worker": clean(entry.worker),
        "attempts": entry.attempts,
        "bytes": entry.bytes,
        "outcome": clean(entry.outcome),
        "client": clean(entry.client),
    }
    if prompts and entry.prompt:
        fields["prompt"] = clean(entry.prompt, _PROMPT_CHARS_MAX)
    return msgspec.json.encode(fields) + b"\n"


def clean(text: str, chars_max: int = _CHARS_MAX) -> str:
    r"""At most so many characters, with `\x1b` and the like written out where one would not be printed."""
    text = text[:chars_max]
    return text if text.isprintable() else "".join(map(_written_out, text))


def _written_out(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _path(path: str) -> str:
    return quote(path[:_PATH_CHARS_MAX], safe=_PATH_CHARS, errors="replace")


def _iso(at: float) -> str:
    seconds, millis = divmod(round(at * 1_000_000) // 1000, 1000)
    return f"{_second(seconds)}.{millis:03}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
