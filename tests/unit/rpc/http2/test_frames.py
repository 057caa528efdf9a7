"""Frames, header blocks and messages: pure functions of bytes."""

from __future__ import annotations

import random

import pytest
from hpack import Encoder

from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.frames import FrameReader, Http2Error
from neurogate.rpc.http2.headers import BLOCK_BYTES, HeaderReader, block, quoted, unquoted
from neurogate.rpc.http2.messages import MessageReader, MessageWriter


def test_frames_come_whole_however_their_bytes_arrive() -> None:
    sent = [(frames.DATA, 1, 1, b"a" * 300), (frames.PING, 0, 0, b"12345678"), (0xEE, 0xFF, 7, b""), (0, 0, 1, b"x")]
    wire = frames.PREFACE + b"".join(frames.frame(*each) for each in sent)
    for cut in range(len(wire) + 1):
        reader = FrameReader(frames.PREFACE)
        assert [*reader.feed(wire[:cut]), *reader.feed(wire[cut:])] == sent
    reader = FrameReader(frames.PREFACE)
    assert [frame for at in range(len(wire)) for frame in reader.feed(wire[at : at + 1])] == sent


def test_a_frame_that_is_too_large_or_another_preface_is_an_error() -> None:
    whole = frames.frame(frames.DATA, 0, 1, bytes(frames.FRAME_BYTES))
    assert len(list(FrameReader().feed(whole))) == 1
    with pytest.raises(Http2Error) as caught:
        list(FrameReader().feed(frames.frame(frames.DATA, 0, 1, bytes(frames.FRAME_BYTES + 1))[:9]))
    assert caught.value.code == frames.FRAME_SIZE_ERROR
    with pytest.raises(Http2Error, match="preface"):
        list(FrameReader(frames.PREFACE).feed(b"GET"))


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"12345", frames.FRAME_SIZE_ERROR),
        (b"\0\4\xff\xff\xff\xff", frames.FLOW_CONTROL_ERROR),
        (b"\0\5\0\0\0\1", frames.PROTOCOL_ERROR),
        (b"\0\5\1\0\0\0", frames.PROTOCOL_ERROR),
    ],
)
def test_settings_that_cannot_be_are_refused(payload: bytes, code: int) -> None:
    with pytest.raises(Http2Error) as caught:
        frames.read_settings(payload)
    assert caught.value.code == code


def test_padding_is_taken_off_and_never_more_than_there_is() -> None:
    assert frames.unpadded(0, b"\5abc") == b"\5abc"
    assert frames.unpadded(frames.PADDED, b"\2abc\0\0") == b"abc"
    assert frames.unpadded(frames.PADDED, b"\0") == b""
    for bad in (b"", b"\1", b"\7abc"):
        with pytest.raises(Http2Error):
            frames.unpadded(frames.PADDED, bad)


def test_our_header_blocks_are_read_by_others_whatever_their_length() -> None:
    for size in (0, 1, 126, 127, 128, 254, 255, 256, 5000):
        fields = ((":path", "p" * size), ("n" * (size or 1), "ü"))
        found = HeaderReader().begin(frames.END_HEADERS, 1, block(fields))
        assert found == (1, {name.encode(): value.encode() for name, value in fields}, False)


def test_header_blocks_keep_their_state_and_come_in_pieces() -> None:
    encoder, reader = Encoder(), HeaderReader()
    for _ in range(3):
        packed = encoder.encode([(b"content-type", b"application/grpc"), (b"grpc-status", b"0")])
        assert reader.begin(frames.END_STREAM, 1, packed[:1]) is None
        assert reader.inside
        found = reader.go_on(frames.END_HEADERS, 1, packed[1:])
        assert found == (1, {b"content-type": b"application/grpc", b"grpc-status": b"0"}, True)
        assert not reader.inside


def test_header_blocks_without_a_bound_are_refused() -> None:
    with pytest.raises(Http2Error):
        HeaderReader().go_on(0, 1, b"")
    large, many, swollen = HeaderReader(), HeaderReader(), HeaderReader()
    large.begin(0, 1, bytes(BLOCK_BYTES))
    many.begin(0, 1, b"")
    with pytest.raises(Http2Error):
        large.go_on(0, 1, b"x")
    assert [many.go_on(0, 1, b"") for _ in range(15)] == [None] * 15
    with pytest.raises(Http2Error):
        many.go_on(0, 1, b"")
    swollen.begin(frames.END_HEADERS, 1, Encoder().encode([(b"a", b"b" * 3000)]))
    with pytest.raises(Http2Error):
        swollen.begin(frames.END_HEADERS, 1, b"\xbe" * 10)


def test_grpc_messages_are_quoted() -> None:
    for text in ("", "plain text, 100 %", "Grüße\n", "%41"):
        assert unquoted(quoted(text).encode()) == text
        assert quoted(text).isascii()
    assert unquoted(b"%zz%ff") == "%zz�"


def test_messages_come_whole_however_frames_cut_them() -> None:
    rng = random.Random(1)
    sent = [rng.randbytes(rng.choice((0, 1, 4, 5, 80, 300, 2000))) for _ in range(60)]
    wire = b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in sent)
    for longest in (1, 3, 7, 90, 5000, len(wire)):
        reader, at = MessageReader(2000), 0
        found: list[bytes] = []
        while at < len(wire):
            size = rng.randint(1, longest)
            found += reader.feed(wire[at : at + size])
            at += size
        assert found == sent
        assert not reader.inside


def test_messages_too_large_or_compressed_are_refused_at_their_prefix() -> None:
    with pytest.raises(Http2Error, match="more than 10"):
        list(MessageReader(10).feed(b"\0\0\0\0\x0b"))
    with pytest.raises(Http2Error, match="compressed"):
        list(MessageReader(10).feed(b"\1\0\0\0\1"))


def _payloads(wire: bytes) -> list[bytes]:
    return [payload for _, _, _, payload in FrameReader().feed(wire)]


def test_messages_go_as_far_as_both_windows_let_them() -> None:
    writer = MessageWriter(1)
    writer.configure({frames.INITIAL_WINDOW_SIZE: 20})
    assert _payloads(writer.put(b"0123456789")) == [b"\0\0\0\0\x0a0123456789"]
    assert _payloads(writer.put(b"abcdef")) == [b"\0\0\0\0\6"]
    assert writer
    assert writer.put(b"later") == b""
    writer.configure({frames.INITIAL_WINDOW_SIZE: 0})  # 20 bytes below zero now
    writer.widen(1, 20)
    assert writer.more() == b""
    writer.widen(1, 3)
    assert _payloads(writer.more()) == [b"abc"]
    writer.configure({frames.INITIAL_WINDOW_SIZE: 100})
    assert _payloads(writer.more()) == [b"def", b"\0\0\0\0\5later"]
    assert not writer


def test_large_messages_are_cut_to_the_other_sides_frames_and_the_connections_window() -> None:
    writer = MessageWriter(1)
    writer.configure({frames.INITIAL_WINDOW_SIZE: 1 << 20, frames.MAX_FRAME_SIZE: 20_000})
    sent = bytes(70_000)
    found = [payload for _, _, _, payload in _big(writer.put(sent))]
    assert [len(each) for each in found] == [20_000, 20_000, 20_000, 5535]
    writer.widen(0, 100_000)
    found += [payload for _, _, _, payload in _big(writer.more())]
    assert b"".join(found)[5:] == sent


def _big(wire: bytes) -> list[tuple[int, int, int, bytes]]:
    found, at = [], 0
    while at < len(wire):
        size = int.from_bytes(wire[at : at + 3], "big")
        found.append((wire[at + 3], wire[at + 4], 1, wire[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def test_windows_have_a_bound() -> None:
    with pytest.raises(Http2Error, match="nothing"):
        MessageWriter(1).widen(0, 0)
    for stream in (0, 1):
        with pytest.raises(Http2Error, match="too large"):
            MessageWriter(1).widen(stream, frames.WINDOW_BYTES_MAX)
    writer = MessageWriter(1)
    writer.widen(1, frames.WINDOW_BYTES_MAX - frames.WINDOW_BYTES)
    with pytest.raises(Http2Error, match="too large"):
        writer.configure({frames.INITIAL_WINDOW_SIZE: frames.WINDOW_BYTES + 1})
