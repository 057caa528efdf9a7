"""One HTTP/2 connection that carries one call: what is about the connection as a whole.

Everything happens in the transport's callbacks. Whatever the other side sends, it is taken, or the connection ends once
with a reason; nothing is raised into the event loop, and nothing grows without a bound.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import grpc
import structlog

from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.frames import FrameReader, Http2Error
from neurogate.rpc.http2.headers import Fields, HeaderReader

_CONTROL_BYTES = 64 * 1024
"""What is answered to a side that reads nothing."""
_CLOSING_S = 1.0
"""How long last words may take to be sent."""

_log = structlog.get_logger("neurogate.link")


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How the other side's half of a call ended."""

    code: grpc.StatusCode
    message: str = ""


class Http2Connection(asyncio.Protocol, ABC):
    """Takes frames and says when it is over; what they mean to the call is said by whoever is made of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, first: bytes) -> None:
        """`first` is what the other side's bytes must begin with."""
        self._loop = loop
        self._reader = FrameReader(first)
        self._headers = HeaderReader()
        self._transport: asyncio.Transport | None = None
        self._lost = loop.create_future()
        self._out: list[bytes] | None = None
        """What is said while received bytes are looked at; it is written in one piece afterwards."""
        self._settled = False
        """The other side's SETTINGS have come."""
        self._over = False
        """Nothing is sent any more, and what comes is dropped."""
        self._told = False
        """`_ended` was called, or must not be."""
        self._paused = False
        self._control = 0
        """Bytes of answers since the transport was paused."""
        self._farewell = ""
        """What the other side's GOAWAY said."""
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._over

    def abort(self) -> None:
        """Drop the connection and what was not sent; the owner hears nothing more."""
        self._told = self._over = True
        if self._transport is not None:
            self._transport.abort()

    async def closed(self) -> None:
        """Wait until the connection is gone."""
        await asyncio.shield(self._lost)

    @abstractmethod
    def _opening(self) -> bytes:
        """What is written first."""

    @abstractmethod
    def _data(self, flags: int, stream: int, payload: bytes) -> None: ...

    @abstractmethod
    def _header_list(self, stream: int, fields: Fields, *, last: bool) -> None: ...

    @abstractmethod
    def _reset(self, stream: int, code: int) -> None: ...

    @abstractmethod
    def _configure(self, settings: dict[int, int]) -> None: ...

    @abstractmethod
    def _widen(self, stream: int, more: int) -> None: ...

    @abstractmethod
    def _goodbye(self, last_stream: int, code: int) -> None: ...

    @abstractmethod
    def _go_on(self) -> None:
        """The transport takes more."""

    def _closed_reason(self) -> str:
        """Why the other side may have closed the connection without a word."""
        return "the connection was closed"

    @abstractmethod
    def _ended(self, end: CallEnd) -> None:
        """It is over. Called once, and not after `abort`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        if self._over:  # nobody waits for it any more
            self._transport.abort()
        else:
            self._transport.write(self._opening())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, unless it knows."""
        self._over = True
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._lost.done():
            self._lost.set_result(None)
        reason = self._farewell or (exc is not None and reason_of(exc)) or self._closed_reason()
        self._tell(CallEnd(grpc.StatusCode.UNAVAILABLE, reason))

    def eof_received(self) -> None:
        """The other side writes nothing more, so it is over; whether it reads what we have to say or not."""
        self._over = True
        self._shut()
        self._tell(CallEnd(grpc.StatusCode.UNAVAILABLE, self._farewell or self._closed_reason()))

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._paused = True
        self._control = 0

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._paused = False
        try:
            self._go_on()
        except Exception:  # noqa: BLE001 - the owner's bug costs it this call
            self._failed()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._over:
            return
        out: list[bytes] = []
        self._out = out
        try:
            for kind, flags, stream, payload in self._reader.feed(data):
                if kind == frames.DATA and self._settled and not self._headers.inside:
                    self._data(flags, stream, payload)
                else:
                    self._take(kind, flags, stream, payload)
                if self._over:
                    break
        except Http2Error as error:
            reason = str(error) if self._settled else f"it does not speak HTTP/2: {error}"
            self._end(CallEnd(grpc.StatusCode.INTERNAL, reason), error.code)
        except Exception:  # noqa: BLE001 - a bug, ours or the owner's, costs this call and not the process
            self._failed()
        self._out = None
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))
        if self._over:
            self._shut()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Every frame but the usual DATA."""
        if not self._settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise Http2Error(frames.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if bool(self._headers.inside) != (kind == frames.CONTINUATION):
            raise Http2Error(frames.PROTOCOL_ERROR, "CONTINUATION belongs behind its HEADERS")
        if (kind in _OF_STREAMS and not stream) or (kind in _OF_CONNECTION and stream):
            raise Http2Error(frames.PROTOCOL_ERROR, f"a frame of type {kind} for stream {stream}")
        if kind in {frames.HEADERS, frames.CONTINUATION}:
            self._take_headers(kind, flags, stream, payload)
        elif kind == frames.SETTINGS:
            self._take_settings(flags, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._widen(stream, frames.read_number(payload) & frames.WINDOW_BYTES_MAX)
        elif kind == frames.PING:
            self._take_ping(flags, payload)
        elif kind == frames.RST_STREAM:
            self._reset(stream, frames.read_number(payload))
        elif kind == frames.GOAWAY:
            last, code, text = frames.read_goaway(payload)
            self._farewell = text or (f"the other side ended the connection with code {code}" if code else "")
            self._goodbye(last, code)
        elif kind == frames.PUSH_PROMISE:
            raise Http2Error(frames.PROTOCOL_ERROR, "a push, which was not agreed on")
        # PRIORITY says nothing here, and frames of unknown types are to be ignored.

    def _take_headers(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        read = self._headers.begin if kind == frames.HEADERS else self._headers.go_on
        whole = read(flags, stream, payload)
        if whole is not None:
            of, fields, last = whole
            self._header_list(of, fields, last=last)

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if not flags & frames.ACK:
            self._settled = True
            self._answer(frames.frame(frames.SETTINGS, frames.ACK, 0))
            self._configure(frames.read_settings(payload))
        elif payload:
            raise Http2Error(frames.FRAME_SIZE_ERROR, "an acknowledgement with a payload")

    def _take_ping(self, flags: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise Http2Error(frames.FRAME_SIZE_ERROR, "PING of a strange length")
        if not flags & frames.ACK:
            self._answer(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _write(self, data: bytes) -> None:
        if self._out is not None:
            self._out.append(data)
        elif self._transport is not None:
            self._transport.write(data)

    def _answer(self, data: bytes) -> None:
        """Write what the other side makes us write, which it could do for ever without reading it."""
        if self._paused:
            self._control += len(data)
            if self._control > _CONTROL_BYTES:
                raise Http2Error(frames.ENHANCE_YOUR_CALM, "too many questions and no look at the answers")
        self._write(data)

    def _failed(self) -> None:
        _log.exception("call failed")
        self._end(CallEnd(grpc.StatusCode.INTERNAL, "a bug"), frames.INTERNAL_ERROR)

    def _end(self, end: CallEnd, code: int = frames.NO_ERROR) -> None:
        """End it from here: last words, and the connection is closed behind them."""
        if self._over:
            return
        self._write(frames.goaway(0, code, end.message if code else ""))
        self._over = True
        if self._out is None:
            self._shut()
        self._tell(end)

    def _shut(self) -> None:
        """Close the connection when what was said is sent, or soon."""
        if self._transport is not None and not self._transport.is_closing():
            self._deadline = self._loop.call_later(_CLOSING_S, self._transport.abort)
            self._transport.close()

    def _tell(self, end: CallEnd) -> None:
        if not self._told:
            self._told = True
            try:
                self._ended(end)
            except Exception:  # noqa: BLE001 - the owner's bug, and it is over anyway
                _log.exception("call failed")


def reason_of(error: Exception) -> str:
    """What an error of a socket or of TLS says, without numbers and names of C."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS failed: {error.reason.replace('_', ' ').lower()}"
    if isinstance(error, OSError):
        number = error.errno or 0
        return (os.strerror(number) if number > 0 else error.strerror or str(error)).lower()  # what loops say differs
    return str(error).lower()


_OF_STREAMS = {frames.HEADERS, frames.PRIORITY, frames.RST_STREAM, frames.CONTINUATION, frames.PUSH_PROMISE}
_OF_CONNECTION = {frames.SETTINGS, frames.PING, frames.GOAWAY}
