"""Header blocks: ours are literals, which need no state; the other side's are read with the `hpack` library."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

from hpack import Decoder, HPACKError

from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.frames import Http2Error

Fields = dict[bytes, bytes]

BLOCK_BYTES = 16_384
"""The most that one header list may have, packed or unpacked."""
_PIECES = 16
"""The most frames that one block may be cut into."""
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that are not indexed."""
    packed = bytearray()
    for pair in fields:
        packed.append(0)
        for text in pair:
            value = text.encode()
            packed += _length(len(value))
            packed += value
    return bytes(packed)


def quoted(message: str) -> str:
    """A message as `grpc-message` carries it."""
    return quote(message, safe=_PRINTABLE)


def unquoted(value: bytes) -> str:
    """What a `grpc-message` says."""
    return unquote_to_bytes(value).decode("utf-8", "replace")


class HeaderReader:
    """Puts header blocks together and unpacks them. Every block must pass here, for their packing has a state."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=BLOCK_BYTES)
        self.inside = 0
        """The stream whose block has begun, and then only CONTINUATION may follow; 0 when there is none."""
        self._pieces: list[bytes] = []
        self._last = False

    def begin(self, flags: int, stream: int, payload: bytes) -> tuple[int, Fields, bool] | None:
        """Take a HEADERS frame: stream, fields and whether the stream ends, once they are whole. Raises Http2Error."""
        payload = frames.unpadded(flags, payload)
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5:
                raise Http2Error(frames.FRAME_SIZE_ERROR, "HEADERS is too short")
            payload = payload[5:]
        self.inside = stream
        self._pieces = []
        self._last = bool(flags & frames.END_STREAM)
        return self._add(flags, payload)

    def go_on(self, flags: int, stream: int, payload: bytes) -> tuple[int, Fields, bool] | None:
        """Take a CONTINUATION frame, as `begin` does."""
        if not self.inside or stream != self.inside:
            raise Http2Error(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        return self._add(flags, payload)

    def _add(self, flags: int, payload: bytes) -> tuple[int, Fields, bool] | None:
        self._pieces.append(payload)
        if len(self._pieces) > _PIECES or sum(map(len, self._pieces)) > BLOCK_BYTES:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "the headers are too large")
        if not flags & frames.END_HEADERS:
            return None
        stream, self.inside = self.inside, 0
        try:
            found = self._decoder.decode(b"".join(self._pieces), raw=True)
        except HPACKError as error:
            raise Http2Error(frames.COMPRESSION_ERROR, f"the headers cannot be read: {error!r}") from error
        self._pieces = []
        return stream, {bytes(pair[0]): bytes(pair[1]) for pair in found}, self._last


def _length(size: int) -> bytes:
    """An HPACK integer of seven bits before it goes on; no Huffman code follows."""
    if size < 0x7F:
        return bytes((size,))
    packed = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:
        packed.append(size & 0x7F | 0x80)
        size >>= 7
    packed.append(size)
    return bytes(packed)
