"""What a worker reads of an engine's JSON."""

from __future__ import annotations

import sys

import pytest

from neurogate.engines.payload import MESSAGE_CHARS_MAX, chunk_of, is_json, json_of, message_of


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', "Loading model"),
        (b'{"error":"model \'x\' not found"}', "model 'x' not found"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"]}]}', "[{'loc': ['body']}]"),
        (b"Bad Gateway\n", "Bad Gateway"),
        (b"\xff", "�"),
        (b"{}", ""),
        (b"", ""),
        (b"x" * 1000, "x" * MESSAGE_CHARS_MAX),
    ],
)
def test_an_error_body_of_any_engine_gives_its_message(body: bytes, message: str) -> None:
    assert message_of(body) == message


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"choices": 5}', b"\xff\xfe", b'{"model":"\xff"}', b"[" * 100_000]
)
def test_what_is_no_chunk_is_none(data: bytes) -> None:
    assert chunk_of(data) is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'"\xff"', b"[" * 100_000])
def test_what_is_no_json_is_none(data: bytes) -> None:
    assert json_of(data) is None


@pytest.mark.parametrize("data", [b"{}", b"null", b' [1, "a"] ', b'{"error": 1}', '"ü"'.encode(), b'"\\ud83d"'])
def test_one_whole_value_is_json(data: bytes) -> None:
    assert is_json(data)


@pytest.mark.parametrize("data", [b"", b"{", b"{}{}", b"oops", b'"\xff"', b"[" * 100_000])
def test_a_cut_value_is_not_json(data: bytes) -> None:
    assert not is_json(data)


def test_a_message_that_is_a_knot_is_none() -> None:
    """Reading takes one level less of the stack than wording does."""

    def deep(level: int, depth: int) -> str:
        return deep(level - 1, depth) if level else message_of(b'{"error":' + b"[" * depth + b"]" * depth + b"}")

    told = {deep(level, 400) for level in range(0, sys.getrecursionlimit() - 500, 7)}
    assert all(isinstance(message, str) for message in told)
