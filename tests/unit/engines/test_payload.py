"""What a worker reads of an engine's JSON."""

from __future__ import annotations

import pytest

from neurogate.engines.payload import MESSAGE_CHARS_MAX, chunk_of, json_of, message_of


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


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"choices": 5}', b"\xff\xfe"])
def test_what_is_no_chunk_is_none(data: bytes) -> None:
    assert chunk_of(data) is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'"\xff"'])
def test_what_is_no_json_is_none(data: bytes) -> None:
    assert json_of(data) is None
