"""The client's end of a call."""

from __future__ import annotations

import asyncio

import grpc

from neurogate import __version__
from neurogate.rpc.http2 import call, frames
from neurogate.rpc.http2.call import STREAM, CallOwner, GrpcCall
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.frames import Http2Error
from neurogate.rpc.http2.headers import Fields, block, unquoted

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_STATUS_OF_HTTP = {
    b"400": grpc.StatusCode.INTERNAL,
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
    b"429": grpc.StatusCode.UNAVAILABLE,
    b"502": grpc.StatusCode.UNAVAILABLE,
    b"503": grpc.StatusCode.UNAVAILABLE,
    b"504": grpc.StatusCode.UNAVAILABLE,
}


class ClientCall(GrpcCall):
    """Begins with everything at once, the call's headers among it: a worker knows a link by that."""

    def __init__(
        self,
        owner: CallOwner,
        path: str,
        *,
        authority: str,
        secure: bool,
        loop: asyncio.AbstractEventLoop,
        max_message_bytes: int,
    ) -> None:
        super().__init__(owner, loop=loop, max_message_bytes=max_message_bytes)
        self._secure = secure
        self._request = block(
            (
                (":method", "POST"),
                (":scheme", "https" if secure else "http"),
                (":path", path),
                (":authority", authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", f"neurogate/{__version__}"),
            )
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless the handshake of TLS did not lead to HTTP/2."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._end(CallEnd(grpc.StatusCode.UNAVAILABLE, "it speaks TLS, but no HTTP/2"))

    def _closed_reason(self) -> str:
        reason = super()._closed_reason()
        if self._settled:
            return reason
        hint = "does it know this side's certificate?" if self._secure else "does it want TLS?"
        return f"{reason} before a word was said; {hint}"

    def _opening(self) -> bytes:
        headers = frames.frame(frames.HEADERS, frames.END_HEADERS, STREAM, self._request)
        return frames.PREFACE + call.settings(frames.ENABLE_PUSH, 0) + headers

    def _headers_came(self, fields: Fields, *, last: bool) -> None:
        if self._may_talk:
            if not last:
                raise Http2Error(frames.PROTOCOL_ERROR, "headers in the midst of the stream")
            self._end(_end_of(fields))
            return
        status = fields.get(b":status", b"")
        if status.startswith(b"1") and not last:
            return
        is_grpc = fields.get(b"content-type", b"").startswith(b"application/grpc")
        if status != b"200" and not (last and b"grpc-status" in fields):
            code = _STATUS_OF_HTTP.get(status, grpc.StatusCode.UNKNOWN)
            self._end(CallEnd(code, f"the worker answered with HTTP status {status.decode('ascii', 'replace')}"))
        elif last:
            self._end(_end_of(fields))
        elif not is_grpc:
            self._end(CallEnd(grpc.StatusCode.UNKNOWN, "the worker's answer is not gRPC"))
        else:
            self._may_talk = True

    def _half_closed(self) -> None:
        self._end(CallEnd(grpc.StatusCode.INTERNAL, "the stream ended without a status"))

    def _stranger(self, kind: int, stream: int) -> None:
        raise Http2Error(frames.PROTOCOL_ERROR, f"a frame of type {kind} for stream {stream}, which nobody opened")

    def _goodbye(self, last_stream: int, code: int) -> None:
        if last_stream < STREAM or code:
            self._end(CallEnd(grpc.StatusCode.UNAVAILABLE, self._farewell or "the worker takes no call"))


def _end_of(trailers: Fields) -> CallEnd:
    value = trailers.get(b"grpc-status", b"")
    code = _STATUS.get(int(value)) if value.isdigit() and len(value) < 4 else None
    if code is None:
        return CallEnd(grpc.StatusCode.UNKNOWN, "the stream ended without a status")
    return CallEnd(code, unquoted(trailers.get(b"grpc-message", b"")))
