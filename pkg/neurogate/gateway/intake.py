"""Taking a request in: its headers of interest, its id, its body within bounds."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from starlette.types import Message, Receive

from neurogate.errors import BadRequestError, BusyError
from neurogate.gateway.arrival import arrived, too_large
from neurogate.gateway.pending import Resumed
from neurogate.httpd.at_once import Ready
from neurogate.telemetry.trace_context import well_formed_state

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")
_CHOICE_CHARS_MAX = 40
_OFF = frozenset({b"off", b"false", b"no", b"0"})
_ON = frozenset({b"on", b"true", b"yes", b"1"})


class Headers(NamedTuple):
    """The request headers the hot path reads; each empty when absent."""

    authorization: bytes = b""
    api_key: bytes = b""
    request_id: bytes = b""
    traceparent: bytes = b""
    content_length: bytes = b""
    priority: bytes = b""
    queue_comments: bytes = b""
    forwarded_for: bytes = b""
    resume: bytes = b""
    timeout: bytes = b""
    explain: bytes = b""


_FIELDS = {
    b"authorization": 0,
    b"x-api-key": 1,
    b"x-request-id": 2,
    b"traceparent": 3,
    b"content-length": 4,
    b"x-neurogate-priority": 5,
    b"x-neurogate-queue-comments": 6,
    b"x-forwarded-for": 7,
    b"x-neurogate-resume": 8,
    b"x-neurogate-timeout": 9,
    b"x-neurogate-explain": 10,
}


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """One pass over the headers."""
    found = [b""] * len(_FIELDS)
    for name, value in headers:
        field = _FIELDS.get(name)
        if field is not None:
            found[field] = value
    return tuple.__new__(Headers, found)  # what Headers(*found) makes, at a third of the cost


class BodyBudget:
    """Memory for request bodies, of all requests together: taken as they arrive, given back when a request is over."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0
        """Bytes taken."""

    def configure(self, limit: int) -> None:
        """Hold up to another number of bytes from now on."""
        self._limit = limit

    def take(self, size: int) -> None:
        """Take memory. Raises BusyError when there is not enough left."""
        if self.held + size > self._limit:
            raise BusyError(
                f"the bodies of other requests fill NEUROGATE_MAX_BODIES_BYTES ({self._limit}); try again soon"
            )
        self.held += size

    def give(self, size: int) -> None:
        """Give memory back."""
        self.held -= size


class RequestIds:
    """Ids of requests: the client's own when it is well-formed, else `req-` and the wall clock in nanoseconds."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._last = 0

    def choose(self, offered: bytes) -> str:
        """The id of a request; made ones never repeat."""
        if offered and _REQUEST_ID.fullmatch(offered):
            return offered.decode()
        self._last = max(self._last + 1, self._now_ns())
        return f"req-{self._last}"


def switched_off(value: bytes, header: str) -> bool:
    """Whether a header says that its client does not want something. Raises BadRequestError for what says neither."""
    if not value:
        return False
    word = value.strip().lower()
    if word not in _OFF and word not in _ON:
        said = value[:_CHOICE_CHARS_MAX].decode("latin-1")
        raise BadRequestError(f"{header}: {said!r} is not a choice: it takes on or off, 1 or 0")
    return word in _OFF


def trace_state(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The tracestate that goes on with a request's trace context."""
    return well_formed_state([value for name, value in headers if name == b"tracestate"])


def time_allowed_s(headers: Headers, limit_s: float) -> float:
    """Seconds that the request may take: what its client gives it, and `limit_s` at most. Raises BadRequestError."""
    if not headers.timeout:
        return limit_s
    if not _SECONDS.fullmatch(headers.timeout) or not float(headers.timeout):
        raise BadRequestError("X-NeuroGate-Timeout: must be a number of seconds above 0")
    return min(limit_s, float(headers.timeout))


def announced_size(headers: Headers, limit: int) -> int:
    """The size a body is announced with; `limit` when it is not.

    Raises TooLargeError, and BadRequestError for a broken Content-Length.
    """
    if not headers.content_length:
        return limit
    if not headers.content_length.isdigit():
        raise BadRequestError("Content-Length: must be a number")
    size = int(headers.content_length[:20])
    if size > limit:
        raise too_large(limit)
    return size


def at_hand(arriving: object, limit: int, take: Callable[[int], None]) -> bytes | None:
    """The body that came with its head as a whole, which is the usual case; None when `rest_of` must wait for it.

    `arriving` is what `receive` gave; `take` as for `read_body`. Raises TooLargeError.
    """
    if not isinstance(arriving, Ready):
        return None
    message = arriving.message
    if message["type"] != "http.request" or message.get("more_body"):
        return None
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise too_large(limit)
    take(len(body))
    return body


async def rest_of(
    arriving: Awaitable[Message], receive: Receive, limit: int, timeout_s: float, take: Callable[[int], None]
) -> bytes:
    """The body whose first piece is `arriving`, whether it is `at_hand` or not. Raises what `read_body` does."""
    if not isinstance(arriving, Ready):
        try:
            waits_for = arriving.send(None)  # type: ignore[attr-defined]
        except StopIteration as end:
            arriving = Ready(end.value)
        else:
            arriving = Resumed(arriving, waits_for)  # type: ignore[arg-type]
    body = at_hand(arriving, limit, take)  # it needs no timer when it is there after one step
    return body if body is not None else await arrived(arriving, receive, limit, timeout_s, take)


async def read_body(
    receive: Receive, *, limit: int, timeout_s: float, take: Callable[[int], None] = lambda _: None
) -> bytes:
    """The whole body. `take` hears the size of each piece as it arrives, and may refuse it with an error of its own.

    Raises TooLargeError, BodyTimeoutError and ClientGoneError.
    """
    return await rest_of(receive(), receive, limit, timeout_s, take)
