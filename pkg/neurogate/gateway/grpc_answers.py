"""Receivers for gRPC: what an exchange says in callbacks, for a handler that awaits.

A streamed answer that its client does not read is held up to a bound; past it the handler, which waits for the client,
is interrupted, and with it the exchange ends. It is the rule of `gateway/response.py`, told in gRPC's words.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from neurogate.channel import End
from neurogate.errors import EngineFailedError, GatewayError, StreamBrokenError, UnsupportedError
from neurogate.gateway.dialects.dialect import refused
from neurogate.prompt_api import UNDECODABLE, PromptAnswer
from neurogate.rpc.public_backend import PromptEvent
from neurogate.rpc.status import SlowClientError

_decode_answer = msgspec.json.Decoder(PromptAnswer).decode
_decode_event = msgspec.json.Decoder(PromptEvent).decode

_BUFFER_BYTES_MIN = 64 * 1024
"""gRPC takes a turn of the loop for every write, so something is always held."""

_EVENT_BYTES_MAX = 4 * 1024 * 1024
"""Of one event that comes in parts; it is a token."""


class WholeAnswer:
    """The receiver of an unstreamed prompt."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._said: asyncio.Future[PromptAnswer | GatewayError] = loop.create_future()

    async def wait(self) -> PromptAnswer:
        """The answer. Raises GatewayError."""
        said = await self._said
        if isinstance(said, GatewayError):
            raise said
        return said

    def on_chunk(self, data: bytes) -> None:
        """An unstreamed answer has none."""

    def on_resume(self) -> None:
        """An unstreamed answer is never continued."""

    def on_answer(self, end: End, body: bytes) -> None:
        """Take the answer, or the engine's refusal."""
        if end.http_status >= 300:
            self._say(refusal(end, body))
            return
        try:
            self._say(_decode_answer(body))
        except UNDECODABLE:
            self._say(EngineFailedError("the worker's answer was not what this API gives"))

    def on_complete(self) -> None:
        """An unstreamed answer ends with `on_answer`."""

    def on_error(self, error: GatewayError) -> None:
        """There is no answer."""
        self._say(error)

    def _say(self, said: PromptAnswer | GatewayError) -> None:
        if not self._said.done():
            self._said.set_result(said)


class StreamedAnswer:
    """The receiver of a streamed prompt."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, buffer_bytes: int, flush_timeout_s: float) -> None:
        self._loop = loop
        self._buffer_bytes = max(buffer_bytes, _BUFFER_BYTES_MIN)
        self._flush_timeout_s = flush_timeout_s
        self._patience = asyncio.timeout(None)
        self._pieces: deque[tuple[bytes, int]] = deque()
        """Each with the part of `_held` that it is."""
        self._held = 0
        """Bytes that came while the handler was writing."""
        self._reading = False
        """The handler waits for us, and not for its client."""
        self._news = asyncio.Event()
        self._over = False
        self._error: GatewayError | None = None
        self._rest = b""
        self.too_slow = False
        """The client was given up."""

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """The time in which events are written. Raises SlowClientError when it was cut short."""
        try:
            async with self._patience:
                yield
        except TimeoutError:
            if not self._patience.expired():
                raise
            raise SlowClientError("the client reads too slowly: more waits for it than may") from None

    async def events(self) -> AsyncGenerator[PromptEvent, None]:
        """Events as they come, the last of them `done`. Raises GatewayError; then none was."""
        done = False
        while not done:
            if not self._pieces and not self._over:
                self._reading = True
                await self._news.wait()
                self._reading = False
            self._news.clear()
            while self._pieces:
                piece, held = self._pieces.popleft()
                self._held -= held
                for event in self._parse(piece):
                    done = done or event.done
                    yield event
            if self._over and not self._pieces:
                break
        if self._error is not None and not done:
            raise self._error
        if not done:
            raise StreamBrokenError("the answer broke off before its end")

    def on_chunk(self, data: bytes) -> None:
        """Take whole events."""
        if self.too_slow:
            return
        held = 0 if self._reading else len(data)
        self._held += held
        if self._held > self._buffer_bytes:
            self._give_up()
            return
        self._pieces.append((data, held))
        self._news.set()

    def on_resume(self) -> None:
        """The stream goes on elsewhere; its events go on as they were."""

    def on_answer(self, end: End, body: bytes) -> None:
        """Take the engine's refusal."""
        self._end(refusal(end, body))

    def on_complete(self) -> None:
        """All is said."""
        self._end(None)

    def on_error(self, error: GatewayError) -> None:
        """There is no more to come."""
        self._end(error)

    def _end(self, error: GatewayError | None) -> None:
        self._over = True
        self._error = error
        self._news.set()
        if not self.too_slow:
            self._patience.reschedule(self._loop.time() + self._flush_timeout_s)

    def _give_up(self) -> None:
        self.too_slow = True
        self._pieces.clear()
        self._patience.reschedule(self._loop.time())

    def _parse(self, piece: bytes) -> list[PromptEvent]:
        *whole, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > _EVENT_BYTES_MAX:
            raise StreamBrokenError("the worker's answer was not what this API gives")
        try:
            return [_decode_event(event[6:]) for event in whole if event.startswith(b"data: ")]
        except UNDECODABLE:
            raise StreamBrokenError("the worker's answer was not what this API gives") from None


def refusal(end: End, body: bytes) -> GatewayError:
    """The engine's own refusal as an error."""
    message = end.message or body[:500].decode("utf-8", "replace").strip()
    if end.http_status == 501:
        return UnsupportedError(message or "the engine has no such API")
    return refused(end, message)
