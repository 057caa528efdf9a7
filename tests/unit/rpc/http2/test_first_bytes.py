"""Whose a connection to a worker is, cut at every byte."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from http2_support import data, message, opening
from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.first_bytes import LINK, Whose, whose
from neurogate.rpc.http2.frames import PREFACE
from neurogate.rpc.http2.headers import block

GRPC = PREFACE + frames.settings({4: 4 << 20, 6: 16384, 0xFE03: 1}) + frames.window_update(0, 4 << 20)
"""What gRPC's own clients begin with."""
AGENT = ("user-agent", "neurogate/1.2.3")


METHOD = (":method", "POST")


def headers(*fields: tuple[str, str], flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(frames.HEADERS, flags, 1, block((METHOD, *fields)))


def test_a_gateways_link_is_ours_as_soon_as_its_headers_are_whole() -> None:
    sent = opening()
    boundary = sent.index(PREFACE) + len(PREFACE)
    boundaries = set()
    while boundary < len(sent):
        boundary += frames.HEAD_BYTES + int.from_bytes(sent[boundary : boundary + 3], "big")
        boundaries.add(boundary)
    for cut in range(len(sent)):
        expected = Whose.GRPC if cut in boundaries else Whose.UNCLEAR
        assert whose(sent[:cut]) is expected, cut
    assert whose(sent) is Whose.OURS
    assert whose(sent + data(message(b"hello"))) is Whose.OURS
    assert whose(sent + data(message(bytes(100_000)))) is Whose.OURS
    assert whose(PREFACE + headers((":path", LINK.decode()), AGENT)) is Whose.OURS


def test_a_client_of_grpcs_never_waits_for_us_where_it_waits_for_the_server() -> None:
    settings = GRPC.index(frames.window_update(0, 4 << 20))
    for cut in range(len(GRPC) + 1):
        assert whose(GRPC[:cut]) is (Whose.GRPC if cut in {settings, len(GRPC)} else Whose.UNCLEAR), cut


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/1.1\r\n",
        opening("/neurogate.v1.Worker/Generate"),
        PREFACE + headers((":path", LINK.decode())),
        PREFACE + headers((":path", LINK.decode()), ("user-agent", "grpc-java-netty/1.70")),
        PREFACE + headers((":path", LINK.decode()), AGENT, flags=frames.END_HEADERS | frames.END_STREAM),
        PREFACE + headers((":path", LINK.decode()), AGENT, flags=0),
        PREFACE + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        PREFACE + frames.frame(frames.PING, 0, 0, bytes(8)),
        PREFACE + b"\xff\xff\xff\x04\x00\x00\x00\x00\x00",
        PREFACE + frames.settings({}) * 4000 + headers((":path", LINK.decode()), AGENT),
    ],
    ids=range(12),
)
def test_everything_else_is_grpcs(sent: bytes) -> None:
    assert whose(sent) is Whose.GRPC


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_a_link_whose_headers_somebody_else_wrote_is_grpcs(order: tuple[int, ...], *, huffman: bool) -> None:
    """A proxy: it may have other calls for the connection, which is to carry them all."""
    fields = [METHOD, (":path", LINK.decode()), AGENT]
    packed = Encoder().encode([fields[place] for place in order], huffman=huffman)
    assert whose(PREFACE + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, packed)) is Whose.GRPC


@given(st.binary(max_size=200))
def test_any_bytes_have_an_answer(sent: bytes) -> None:
    assert whose(PREFACE + sent) in Whose
    assert whose(sent) is not Whose.OURS
