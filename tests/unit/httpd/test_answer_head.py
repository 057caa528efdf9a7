"""The head of an answer as bytes: no header's name or value leaves its line."""

from __future__ import annotations

import pytest

from neurogate.httpd.answer_head import LINES, encode_headers, lines_of, status_line, with_headers


def test_a_header_is_a_line_with_its_name_in_lower_case() -> None:
    assert lines_of([(b"X-One", b"1"), (b"x-two", b"a\tb")]) == b"x-one: 1\r\nx-two: a\tb\r\n"
    assert lines_of([]) == b""


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb", b"a\0b", b"\x1b[31m", b"a\x7f"])
def test_a_value_that_would_leave_its_line_is_refused(value: bytes) -> None:
    with pytest.raises(RuntimeError, match="value"):
        lines_of([(b"x-one", value)])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\n", b'a"', b"a{"])
def test_a_name_that_is_none_is_refused(name: bytes) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="name"):
            lines_of([(name, b"1")])


@pytest.mark.parametrize(
    ("headers", "length", "closes"),
    [
        ([], None, False),
        ([(b"Content-Length", b"12")], 12, False),
        ([(b"Connection", b"close")], None, True),
        ([(b"connection", b"keep-alive, Close")], None, True),
        ([(b"connection", b"keep-alive")], None, False),
    ],
)
def test_framing_is_read_off_the_headers(
    headers: list[tuple[bytes, bytes]], length: int | None, *, closes: bool
) -> None:
    assert encode_headers(headers) == (lines_of(headers), length, closes)


def test_the_transfer_coding_is_the_listeners_own() -> None:
    assert encode_headers([(b"Transfer-Encoding", b"chunked"), (b"x-one", b"1")]) == (b"x-one: 1\r\n", None, False)


def test_a_status_without_a_name_is_told_all_the_same() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(299) == b"HTTP/1.1 299 \r\n"


def test_headers_are_added_to_either_kind_of_head() -> None:
    more = [(b"vary", b"Origin")]
    assert with_headers({"type": "http.response.start", LINES: b"x-one: 1\r\n"}, more)[LINES] == (
        b"x-one: 1\r\nvary: Origin\r\n"
    )
    assert with_headers({"type": "http.response.start", "headers": [(b"x-one", b"1")]}, more)["headers"] == [
        (b"x-one", b"1"),
        *more,
    ]
