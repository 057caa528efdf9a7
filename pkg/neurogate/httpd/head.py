"""Which heads are refused that the parser lets through: those that two programs could read differently (RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import httptools

from neurogate.httpd import refusals
from neurogate.httpd.limits import HttpLimits
from neurogate.httpd.refusals import Refusal

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

_SPECIAL = frozenset({b"transfer-encoding", b"expect"})
_HOST = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+;=:\[\]]*")


class RefusedError(Exception):
    """The request must not be served."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def check(version: str, headers: Headers) -> bool:
    """Whether the client waits for leave to send its body (100-continue).

    Raises RefusedError for a head whose version, host, framing or credentials are not beyond doubt.
    """
    if version not in {"1.1", "1.0"}:
        raise RefusedError(refusals.BAD_VERSION if version == "0.9" else refusals.UNSUPPORTED_VERSION)
    found = dict(headers)
    if len(found) < len(headers):
        _check_repeated([name for name, _ in headers])
    host = found.get(b"host")
    if host is None:
        if version == "1.1":
            raise RefusedError(refusals.BAD_HOST)
    elif not _is_host(host):
        raise RefusedError(refusals.BAD_HOST)
    return not _SPECIAL.isdisjoint(found) and _check_special(version, headers)


def _check_repeated(names: Sequence[bytes]) -> None:
    if names.count(b"host") > 1:
        raise RefusedError(refusals.BAD_HOST)
    if names.count(b"authorization") > 1 or names.count(b"x-api-key") > 1:  # whoever is next may read the other one
        raise RefusedError(refusals.TWO_CREDENTIALS)


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _check_special(version: str, headers: Headers) -> bool:
    waits = False
    for name, value in headers:
        if name == b"transfer-encoding":
            if version == "1.0":  # "MUST treat the message as if the framing is faulty"
                raise RefusedError(refusals.AMBIGUOUS_LENGTH)
            if value.lower() != b"chunked":
                raise RefusedError(refusals.UNKNOWN_CODING)
        elif name == b"expect" and version == "1.1":  # HTTP/1.0 knows no such thing
            if value.lower() != b"100-continue":
                raise RefusedError(refusals.EXPECTATION_FAILED)
            waits = True
    return waits


def check_size(url: bytes, headers: Headers, limits: HttpLimits) -> None:
    """Raises RefusedError for a head, whole or not yet, that is too large."""
    if len(url) > limits.url_bytes:
        raise RefusedError(refusals.URL_TOO_LONG)
    if len(headers) > limits.headers:
        raise RefusedError(refusals.TOO_MANY_HEADERS)
    sizes = [len(name) + len(value) for name, value in headers]
    if sizes and max(sizes) > limits.header_bytes:
        raise RefusedError(refusals.HEADER_TOO_LONG)
    if len(url) + sum(sizes) + 4 * len(sizes) > limits.head_bytes:
        raise RefusedError(refusals.HEAD_TOO_LARGE)


def target_of(method: bytes, url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target, in any form that a server must take.

    Raises RefusedError for CONNECT, a fragment, and `*` with anything but OPTIONS.
    """
    if method == b"CONNECT":
        raise RefusedError(refusals.NO_TUNNELS)
    if b"#" in url:
        raise RefusedError(refusals.BAD_TARGET)
    if url[:1] == b"/":
        path, _, query = url.partition(b"?")
        return path, query
    if url == b"*" and method == b"OPTIONS":
        return url, b""
    return _absolute(url)


def _absolute(url: bytes) -> tuple[bytes, bytes]:
    """`http://host/path`: a server "MUST accept the absolute-form" (RFC 9112, section 3.2.2)."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise RefusedError(refusals.BAD_TARGET) from None
    if not parsed.schema or parsed.schema.lower() not in {b"http", b"https"} or not parsed.host:
        raise RefusedError(refusals.BAD_TARGET)
    return parsed.path or b"/", parsed.query or b""


def framing_of(headers: Headers, *, keep_alive: bool) -> bytes:
    """A head that says of the body what these headers say, and nothing else."""
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] in {b"content-length", b"transfer-encoding"}]
    closing = b"" if keep_alive else b"connection: close\r\n"
    return b"POST / HTTP/1.1\r\nhost: x\r\n%b%b\r\n" % (b"".join(lines), closing)
