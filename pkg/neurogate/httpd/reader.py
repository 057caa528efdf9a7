"""Bytes in, requests out: the parser of one connection, what it may keep in memory, and where in a request it is."""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol
from urllib.parse import unquote

import httptools

from neurogate.httpd import head, refusals
from neurogate.httpd.commons import Commons
from neurogate.httpd.head import RefusedError


class Phase(Enum):
    """What the next bytes are."""

    BETWEEN = 0
    """The beginning of a request: the last one is whole."""
    HEAD = 1
    BODY = 2
    AGAIN = 3
    """A head of our own, which tells a new parser where the body ends."""


_BETWEEN, _HEAD, _BODY, _AGAIN = Phase

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Requests(Protocol):
    """Who takes the requests. Each may raise RefusedError, and then hears no more."""

    def head_began(self) -> None:
        """There will be a request."""
        ...

    def request_began(self, scope: dict[str, Any], *, keep_alive: bool, expects_continue: bool) -> None:
        """A head is whole, and nothing is wrong with it."""
        ...

    def body_came(self, body: bytes) -> None:
        """A piece of the last request's body."""
        ...

    def request_ended(self) -> None:
        """The last request is whole."""
        ...


class RequestReader:
    """Reads the requests of one connection. Its methods named `on_...` are the parser's callbacks."""

    def __init__(self, requests: Requests, commons: Commons) -> None:
        self._requests = requests
        self._commons = commons
        self._parser = self._new_parser()
        self.phase = _HEAD
        self.since = commons.now
        """When the phase began, by the sweep's clock; later for whoever had to wait for us."""
        self._head_bytes = 0
        """Received of a head, unless it began behind another request; then `_began_behind`."""
        self._began_behind = False
        self._gap_bytes = 0
        """Received since the last piece of a body."""
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._keep_alive = True
        self._upgrading = False

    @property
    def begun(self) -> bool:
        """Whether anything came of the head that is awaited."""
        return self._began_behind or self._head_bytes > 0

    def feed(self, data: bytes) -> None:
        """Read what came. Raises RefusedError when it must be refused: then no more may be fed."""
        if self.phase is _BETWEEN:
            self._begin_head(behind=False)
        self._head_bytes += len(data)
        self._gap_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            raise (cause if isinstance(cause, RefusedError) else RefusedError(refusals.MALFORMED)) from None
        self._check_unfinished()

    def close(self) -> None:
        """Let go of what refers back to us. Nothing may be fed any more."""
        self._parser = self._requests = None  # type: ignore[assignment]

    def on_message_begin(self) -> None:
        """A head begins; maybe in the data that ended another request."""
        if self.phase is _BETWEEN:
            self._begin_head(behind=True)
        if self.phase is _HEAD:
            self._requests.head_began()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        if self.phase is _HEAD:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody asked for."""
        if self.phase is _HEAD:
            self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """The head is whole: refuse it, or hand the request on."""
        if self.phase is _AGAIN:
            self.phase = _BODY
            return
        parser, headers, limits = self._parser, self._headers, self._commons.limits
        if self._began_behind or self._head_bytes > limits.header_bytes or len(headers) > limits.headers:
            head.check_size(self._url, headers, limits)
        method = parser.get_method()
        version = parser.get_http_version()
        waits = head.check(version, headers)
        raw_path, query = head.target_of(method, self._url)
        path = raw_path.decode("ascii")
        self._keep_alive = parser.should_keep_alive()
        self._upgrading = parser.should_upgrade()
        self.phase = _BODY
        self.since = self._commons.now
        self._gap_bytes = 0
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method.decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
        }
        self._requests.request_began(scope, keep_alive=self._keep_alive, expects_continue=waits)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._gap_bytes = 0
        self._requests.body_came(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._upgrading:
            self.phase = _BETWEEN
            self.since = self._commons.now
            self._requests.request_ended()

    def _begin_head(self, *, behind: bool) -> None:
        self.phase = _HEAD
        self.since = self._commons.now
        self._head_bytes = 0
        self._began_behind = behind
        self._url = b""
        self._headers = []

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # it is ignored, as RFC 9112 section 9.6 has it
        return parser

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            else:
                return

    def _ignore_upgrade(self) -> None:
        """Go on as if nobody had asked for another protocol (RFC 9110, section 7.8).

        The parser takes all that follows for that protocol; a new one is told what it must know of the request.
        """
        self._upgrading = False
        self.phase = _AGAIN
        self._parser = self._new_parser()
        self._parser.feed_data(head.framing_of(self._headers, keep_alive=self._keep_alive))

    def _check_unfinished(self) -> None:
        """Bound what the parser keeps of a head, and what it skips within a body."""
        limits = self._commons.limits
        if self.phase is _HEAD:
            if self._head_bytes > limits.header_bytes or self._began_behind:
                head.check_size(self._url, self._headers, limits)
            if self._head_bytes > limits.head_bytes:
                raise RefusedError(refusals.HEAD_TOO_LARGE)
        elif self.phase is _BODY and self._gap_bytes > limits.head_bytes:
            raise RefusedError(refusals.TOO_MUCH_FRAMING)
