"""Two hundred requests that are none: what each is, and what must come of it.

Each request that could be taken for a generation carries its name in the prompt, so that a test can count how often it
reached an engine. `{key}` stands for the bearer key.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

PATH = b"/v1/chat/completions"
REFUSED = frozenset({400, 408, 413, 414, 417, 431, 501, 505})


@dataclass(frozen=True)
class RawRequest:
    """What is sent, and what must come back before the server closes the connection."""

    name: str
    sent: bytes
    statuses: tuple[frozenset[int], ...]
    """What the answers' statuses may be, one by one; none is a connection closed without a word."""
    calls: int = 0
    """How often it reaches an engine."""
    eof: bool = False
    """Whether the client ends its side."""


def marker(name: str) -> bytes:
    """What an engine sees of a request."""
    return json.dumps(f"case {name}").encode()


def body_of(name: str) -> bytes:
    return b'{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":%b}]}' % marker(name)


def _only(*statuses: int) -> tuple[frozenset[int], ...]:
    return (frozenset(statuses),)


def _head(*lines: bytes, start: bytes = b"POST " + PATH + b" HTTP/1.1", host: bool = True) -> bytes:
    all_lines = [start, *([b"Host: x"] if host else []), b"Authorization: Bearer {key}", *lines]
    return b"\r\n".join(all_lines) + b"\r\n\r\n"


def _length(name: str) -> bytes:
    return b"Content-Length: %d" % len(body_of(name))


def _with(name: str, *lines: bytes, statuses: tuple[frozenset[int], ...] = (), **request: object) -> RawRequest:
    """A generation with these headers instead of its Content-Length."""
    return RawRequest(name, _head(*lines) + body_of(name), statuses or _only(400), **request)  # type: ignore[arg-type]


def _sized(name: str, *lines: bytes, statuses: tuple[frozenset[int], ...] = (), calls: int = 0) -> RawRequest:
    """A generation with its Content-Length and these headers."""
    return RawRequest(name, _head(_length(name), *lines) + body_of(name), statuses or _only(400), calls)


def _started(name: str, start: bytes, *, statuses: tuple[frozenset[int], ...] = (), calls: int = 0) -> RawRequest:
    """A generation with this request line."""
    return RawRequest(name, _head(_length(name), start=start) + body_of(name), statuses or _only(400), calls)


def _chunked(name: str, body: bytes, *, statuses: tuple[frozenset[int], ...] = (), calls: int = 0) -> RawRequest:
    return RawRequest(name, _head(b"Transfer-Encoding: chunked") + body, statuses or _only(400), calls)


def _whole_chunk(name: str) -> bytes:
    body = body_of(name)
    return b"%x\r\n%b\r\n" % (len(body), body)


def _lengths() -> Iterator[RawRequest]:
    for value in ("+5", "-5", "-0", "0x5", "5 5", "5,5", "5, 5", "5;5", "5.0", "1e3", "five", '"5"', "\u0665", "5\x0b"):
        yield _with(f"length {value!r}", b"Content-Length: " + value.encode())
    yield _with("length empty", b"Content-Length:")
    yield _with("length blank", b"Content-Length:   ")
    yield _with("length overflow", b"Content-Length: 18446744073709551616")
    yield _with("length of a hundred digits", b"Content-Length: " + b"9" * 100)
    yield _with("length twice, the same", _length("length twice, the same"), _length("length twice, the same"))
    yield _with("length twice, other", _length("length twice, other"), b"Content-Length: 3")
    yield _with("length twice, other case", b"content-length: 3", b"CONTENT-LENGTH: 4")
    yield _with("length and coding", _length("length and coding"), b"Transfer-Encoding: chunked")
    yield _with("coding and length", b"Transfer-Encoding: chunked", _length("coding and length"))
    yield _with("length nought and coding", b"Content-Length: 0", b"Transfer-Encoding: chunked")
    yield _with("length before a space", b"Content-Length : 5")
    yield _with("length before a tab", b"Content-Length\t: 5")
    yield _with("length folded", b"Content-Length:\r\n 5")
    yield _with("length in underscores", b"Content_Length: 5", b"Content-Length: 5x")
    yield _with("length too large to take", b"Content-Length: 99999999999", statuses=_only(413))
    yield RawRequest("length shorter than the body", _head(b"Content-Length: 2") + b"{}x" * 9, _only(*REFUSED) * 2)


def _codings() -> Iterator[RawRequest]:
    for value in (
        b"identity", b"xchunked", b"chunkedx", b"chunked, gzip", b"gzip, identity", b"chunked, chunked",
        b"chunked, identity", b"'chunked'", b'"chunked"', b"chunked;a=b", b"\x0bchunked", b"chunked\x0b",
        b"chunked\x00", b", chunked", b"chunked,", b"chunk ed", b"\xef\xbb\xbfchunked", b"nchunked", b"cow", b"",
    ):  # fmt: skip
        statuses = _only(400, 501)
        yield _with(f"coding {value!r}", b"Transfer-Encoding: " + value, statuses=statuses)
    yield _with("coding gzip", b"Transfer-Encoding: gzip, chunked", statuses=_only(501))
    yield _with("coding twice", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")
    yield _with("coding twice, other", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", statuses=_only(400, 501))
    yield _with("coding before a space", b"Transfer-Encoding : chunked")
    yield _with("coding folded", b"Transfer-Encoding:\r\n chunked")
    yield _with("coding behind a bare LF", b"A: b\nTransfer-Encoding: chunked")
    yield _with("coding behind a bare CR", b"A: b\rTransfer-Encoding: chunked")
    name = "coding in HTTP/1.0"
    head = _head(b"Transfer-Encoding: chunked", start=b"POST " + PATH + b" HTTP/1.0")
    yield RawRequest(name, head + _whole_chunk(name) + b"0\r\n\r\n", _only(400))


def _chunks() -> Iterator[RawRequest]:
    for size in (
        b"0x10",
        b"+10",
        b"-1",
        b"g",
        b" 10",
        b"10 ",
        b"1_0",
        b"",
        b"f" * 17,
        b"1" + b"0" * 16,
        b"\x00",
        b"10,",
    ):
        yield _chunked(f"chunk of size {size!r}", size + b"\r\n" + body_of("x") + b"\r\n0\r\n\r\n")
    for extension in (b";a\x00b", b";a\rb", b";a\nb", b";a=\x7f", b"; a=b\x0b"):
        name = f"chunk extension {extension!r}"
        body = body_of(name)
        yield _chunked(name, b"%x%b\r\n%b\r\n0\r\n\r\n" % (len(body), extension, body))
    for name, line, after in (
        ("chunk size and LF", b"\n", b"\r\n"),
        ("chunk size and CR", b"\r", b"\r\n"),
        ("chunk and LF", b"\r\n", b"\n"),
        ("chunk and CR", b"\r\n", b"\r"),
        ("chunk and nothing", b"\r\n", b""),
        ("chunk and more", b"\r\n", b"more\r\n"),
    ):
        body = body_of(name)
        yield _chunked(name, b"%x%b%b%b0\r\n\r\n" % (len(body), line, body, after))
    name = "chunk extension of a megabyte"
    body = body_of(name)
    yield _chunked(name, b"%x;%b\r\n%b\r\n0\r\n\r\n" % (len(body), b"a" * (1 << 20), body))
    name = "trailer of a megabyte"
    yield _chunked(name, _whole_chunk(name) + b"0\r\nX-Trailer: " + b"a" * (1 << 20) + b"\r\n\r\n")
    name = "last chunk and LF"
    yield _chunked(name, _whole_chunk(name) + b"0\r\n\n")
    for name, trailer in (
        ("trailer that is a length", b"Content-Length: 4"),
        ("trailer before a space", b"X-T : a"),
        ("trailer without a colon", b"X-T"),
        ("trailer with a NUL", b"X-T: \x00"),
        ("trailer with a bare LF", b"X-T: a\nX-U: b"),
    ):
        yield _chunked(name, _whole_chunk(name) + b"0\r\n" + trailer + b"\r\n\r\n")
    name = "chunks that never end"
    yield _chunked(name, _whole_chunk(name), statuses=_only(408))
    yield _chunked("chunk that never ends", b"ffffff\r\nabc", statuses=_only(408))
    yield _chunked("chunk without any end in sight", b"ffffffffffffffff\r\nabc", statuses=_only(408))


def _headers() -> Iterator[RawRequest]:
    for byte in (*range(9), *range(10, 32), 127):
        yield _sized(f"header value with {byte:#04x}", b"X-A: a" + bytes([byte]) + b"b")
    for byte in b'()<>@,;\\"/[]?={} \t\x80\xff':
        yield _sized(f"header name with {byte:#04x}", b"X-" + bytes([byte]) + b"A: b")
    yield _sized("header without a name", b": b")
    yield _sized("header without a colon", b"X-A")
    yield _sized("header before a space", b"X-A : b")
    yield _sized("header folded", b"X-A: b", b" c")
    yield _sized("header folded with a tab", b"X-A: b", b"\tc")
    name = "header folded at once"
    yield RawRequest(name, b"POST %b HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n" % PATH, _only(400))
    name = "lines of LF"
    yield RawRequest(name, (_head(_length(name)) + body_of(name)).replace(b"\r\n", b"\n"), _only(400))
    name = "lines of CR"
    yield RawRequest(name, (_head(_length(name)) + body_of(name)).replace(b"\r\n", b"\r"), _only(400))
    name = "no host"
    yield RawRequest(name, _head(_length(name), host=False) + body_of(name), _only(400))
    yield _sized("two hosts", b"Host: y")
    yield _sized("two hosts, the same", b"host: x")
    yield _sized("two credentials", b"Authorization: Bearer another")
    for host in (b"a b", b"a/b", b"a,b", b"u@h", b"a\xff", b"a?b", b"<a>"):
        name = f"host {host!r}"
        yield RawRequest(name, _head(b"Host: " + host, _length(name), host=False) + body_of(name), _only(400))
    yield _sized("expectation", b"Expect: 200-ok", statuses=_only(417))
    yield _sized("expectations", b"Expect: 100-continue, more", statuses=_only(417))
    yield _sized("header too long", b"X-A: " + b"a" * 9000, statuses=_only(431))
    yield _sized("header name too long", b"X" * 9000 + b": a", statuses=_only(431))
    yield _sized("headers too many", *[b"X-%d: a" % number for number in range(200)], statuses=_only(431))
    yield _sized("head too large", *[b"X-%d: %b" % (number, b"a" * 1000) for number in range(70)], statuses=_only(431))
    yield RawRequest("head without end", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 20_000, _only(431))


def _starts() -> Iterator[RawRequest]:
    for version in (
        b"HTTP/1.2", b"HTTP/1.10", b"HTTP/1", b"HTTP/1.", b"HTTP/11", b"HTTP/x.1", b"http/1.1", b"HTTP/1.1 ",
        b"HTTP 1.1", b"HTTP/1,1", b"HTTP/-1.1", b"TTP/1.1", b"HTTP/9.9", b"HTTP/1.1\t", b"ICE/1.0",
    ):  # fmt: skip
        yield _started(f"version {version!r}", b"POST " + PATH + b" " + version)
    yield _started("version 2.0", b"POST " + PATH + b" HTTP/2.0", statuses=_only(505))
    yield _started("version 0.9", b"POST " + PATH + b" HTTP/0.9")
    yield RawRequest("request of HTTP/0.9", b"GET /health\r\n\r\n", _only(400))
    for method in (
        b"post",
        b"FOO",
        b"",
        b"POST\x00",
        b"P\xffST",
        b"POST\tPOST",
        b"POS T",
        b"(POST)",
        b"GETPOST",
        b"\r\rX",
    ):
        yield _started(f"method {method!r}", method + b" " + PATH + b" HTTP/1.1")
    yield _started("tunnel", b"CONNECT x:80 HTTP/1.1", statuses=_only(501))
    yield _started("tunnel to a path", b"CONNECT / HTTP/1.1", statuses=_only(501))
    for target in (
        b"x:80", b"*", b"http://", b"ftp://x/", b"\\", b"?a", b"/a#b", b"/\x00", b"/\xc3\xa9", b"/a b",
        b"http://x y/", b"http://[::1/", b"/\x7f", b"#", b"http:/x", b"/a\x01", b"javascript:1",
    ):  # fmt: skip
        yield _started(f"target {target!r}", b"POST " + target + b" HTTP/1.1")
    yield _started("target too long", b"POST /" + b"a" * 9000 + b" HTTP/1.1", statuses=_only(414))
    yield RawRequest("target without end", b"POST /" + b"a" * 300_000, _only(414))
    yield _started("tabs between", b"POST\t" + PATH + b"\tHTTP/1.1")
    yield _started("no target", b"POST HTTP/1.1")
    yield _started("nothing but a method", b"POST")


def _others() -> Iterator[RawRequest]:
    random_bytes = random.Random(7)
    for number in range(10):
        yield RawRequest(f"garbage {number}", b"\xff" + random_bytes.randbytes(200 * (number + 1)), _only(400))
    yield RawRequest("TLS", bytes.fromhex("16030100f1010000ed0303") + random_bytes.randbytes(230), _only(400))
    yield RawRequest("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), _only(400))
    yield RawRequest("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", _only(400))
    yield RawRequest("SMTP", b"EHLO example.org\r\n", _only(400))
    yield RawRequest("SOCKS", b"\x05\x01\x00", _only(400))
    yield RawRequest(
        "PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", _only(400)
    )
    yield RawRequest("NULs", bytes(100), _only(400))
    yield RawRequest("nothing", b"", ())
    yield RawRequest("nothing, and the end", b"", (), eof=True)
    yield RawRequest("empty lines", b"\r\n" * 50, _only(408))
    yield RawRequest("empty lines without end", b"\r\n" * 50_000, _only(431))
    name = "whole"
    whole = _head(_length(name)) + body_of(name)
    for number, at in enumerate((1, 4, 20, 40, 60, len(whole) - len(body_of(name)) - 2)):
        yield RawRequest(f"half a head {number}", whole[:at], _only(408))
        yield RawRequest(f"half a head {number}, and the end", whole[:at], _only(400), eof=True)
    for number, at in enumerate((0, 1, 30)):
        cut = whole[: len(whole) - len(body_of(name)) + at]
        yield RawRequest(f"half a body {number}", cut, _only(408))
        yield RawRequest(f"half a body {number}, and the end", cut, _only(400), eof=True)
    for name, behind in (
        ("answered, then garbage", b"\x00garbage\r\n\r\n"),
        ("answered, then half a head", b"GET / HT"),
        ("answered, then a smuggled length", _head(b"Content-Length: 3", b"Content-Length: 4") + b"abc"),
        ("answered, then a broken chunk", _head(b"Transfer-Encoding: chunked") + b"0x1\r\na\r\n"),
    ):
        first = _head(_length(name)) + body_of(name)
        yield RawRequest(name, first + behind, (frozenset({200}), REFUSED), calls=1)


def table() -> list[RawRequest]:
    """All of them."""
    return [*_lengths(), *_codings(), *_chunks(), *_headers(), *_starts(), *_others()]
