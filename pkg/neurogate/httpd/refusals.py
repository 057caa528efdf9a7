"""Answers that the listener gives itself, to what is no request it can hand on."""

from __future__ import annotations

import http

import msgspec


class Refusal:
    """One such answer. The connection is closed behind it."""

    __slots__ = ("_body", "_extra", "status")

    def __init__(self, status: int, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self._body = msgspec.json.encode({"error": kind, "code": code, "message": message})
        self._extra = b"" if retry_after_s is None else b"retry-after: %d\r\n" % retry_after_s

    def __repr__(self) -> str:
        return f"<Refusal {self.status} {self._body.decode()}>"

    def encode(self, lines: bytes) -> bytes:
        """The answer, with the lines of the server's own headers."""
        phrase = http.HTTPStatus(self.status).phrase.encode()
        return (
            b"HTTP/1.1 %d %b\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
            % (self.status, phrase, lines, len(self._body), self._extra, self._body)
        )


def _malformed(message: str) -> Refusal:
    return Refusal(400, "malformed_request", message)


MALFORMED = _malformed("this is not an HTTP request")
BAD_TARGET = _malformed("the request's target is not one that a server takes (RFC 9112, section 3.2)")
TWO_CREDENTIALS = _malformed("Authorization and X-Api-Key may be given once each")
BAD_HOST = _malformed("a request has exactly one Host header, with a host in it")
BAD_VERSION = _malformed("HTTP/1.1 and HTTP/1.0 are spoken here")
AMBIGUOUS_LENGTH = _malformed("HTTP/1.0 has no Transfer-Encoding: where the body ends is ambiguous")
INCOMPLETE = _malformed("the request ended before it was whole")
TOO_MUCH_FRAMING = _malformed("too many bytes between two pieces of the body, or behind it")
TOO_MANY_PIPELINED = _malformed("too many requests were sent without waiting for an answer")
HEAD_TIMEOUT = Refusal(408, "head_timeout", "the request's head did not arrive in time")
BODY_TIMEOUT = Refusal(408, "body_timeout", "the request's body did not arrive in time")
BODY_TOO_LARGE = Refusal(413, "request_too_large", "the body is too large")
URL_TOO_LONG = Refusal(414, "url_too_long", "the URL is too long")
EXPECTATION_FAILED = Refusal(417, "expectation_failed", "only 100-continue can be expected")
HEADER_TOO_LONG = Refusal(431, "header_too_large", "a header is too large")
TOO_MANY_HEADERS = Refusal(431, "too_many_headers", "the request has too many headers")
HEAD_TOO_LARGE = Refusal(431, "head_too_large", "the request's head is too large")
NO_TUNNELS = Refusal(501, "not_supported", "CONNECT is not supported: this is no proxy")
UNKNOWN_CODING = Refusal(501, "not_supported", "chunked is the only Transfer-Encoding that is supported")
TOO_MANY_CONNECTIONS = Refusal(503, "too_many_connections", "too many connections; try again soon", retry_after_s=1)
UNSUPPORTED_VERSION = Refusal(505, "version_not_supported", "HTTP/1.1 and HTTP/1.0 are spoken here")
