"""What all engines behind an HTTP API have in common: bytes in, bytes out, and every failure in its place.

The data path has as many connections as there are requests (connections.py); what the engine is asked of itself goes
through an aiohttp session. A request's life is its connection's life: leaving `forward` before the answer's end closes
the connection, which is how every engine learns that nobody wants the rest. Failures before the head of the answer mean
"ask another worker", failures after it mean the answer broke, and vendor exceptions are mapped here and nowhere else.
"""

from __future__ import annotations

import asyncio
import math
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from functools import lru_cache
from typing import Any

import aiohttp
import msgspec
from msgspec.structs import replace

from neurogate import __version__, urls
from neurogate.channel import Resume
from neurogate.engines.connection import Connection
from neurogate.engines.connections import KEEPALIVE_S, Connections, Origin
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineFatalError,
    EngineRefusedError,
    EngineReply,
    EngineUnavailableError,
    EngineUnsupportedError,
    Figures,
    Observation,
)
from neurogate.engines.exchange import Exchange, ReplyBody
from neurogate.engines.lost import reason_of
from neurogate.engines.payload import chunk_of, is_json, json_of, message_of
from neurogate.engines.sse import DONE, SseTap, events
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage
from neurogate.telemetry.concern import current

CHAT_PATH = "/v1/chat/completions"
OPENAI_PATHS = frozenset({CHAT_PATH, "/v1/completions"})

STREAM_TYPE = "text/event-stream"

OBSERVE_TIMEOUT_S = 2.0
ERROR_BYTES_MAX = 64 * 1024
CONTROL_BYTES_MAX = 4 << 20

_UNTYPED = b"application/octet-stream"
"""What an answer is that does not say."""
_NO_ROUTE = frozenset({404, 405, 501})
_ROUTE_MISSING = re.compile(r"(file |404 page )?not found|method not allowed", re.IGNORECASE)
"""How servers word it: llama.cpp, Ollama and those on FastAPI. What else has a message is about the request."""

UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


class HttpEngine(ABC):
    """An engine at a base URL. Subclasses say how it is observed, and what to check when it cannot be reached."""

    _reuses_connections = True
    """False for a server that closes a connection after a streamed answer without having said so: the next request on
    it would be lost."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str = "",
        api_key: str = "",
        slots: int = 0,
        connect_timeout_s: float = 5.0,
        paths: frozenset[str] = OPENAI_PATHS,
    ) -> None:
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self.shown_url = urls.shown(self._base_url)
        """The base URL as it may be told to anybody."""
        self._has_key = bool(api_key)
        self._model = model
        self._slots = slots
        self._paths = paths
        self._connect_timeout_s = connect_timeout_s
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None
        self._connections: Connections | None = None
        self._head = ("", "")
        """Of every request, before the path and after it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shown_url} [{'started' if self._session else 'stopped'}]>"

    @property
    @abstractmethod
    def kind(self) -> str:
        """The engine's name in the settings."""

    @abstractmethod
    async def observe(self) -> Observation:
        """Ask the engine how it is; takes at most 2 s and never raises."""

    def check(self) -> None:
        """Raise EngineFatalError for something that is no HTTP URL, and for two credentials."""
        if not _is_http(self._base_url):
            raise EngineFatalError(
                f"{self.shown_url!r} is no URL of an engine: {self._where()} must look like http://host:port"
            )
        if self._has_key and urls.userinfo(self._base_url):
            raise EngineFatalError(f"NEUROGATE_ENGINE_API_KEY: {self._where()} has a user already, give one of the two")

    async def start(self) -> None:
        """Open the session. Raises EngineFatalError as `check` does."""
        self.check()
        origin = Origin.of(self._base_url)
        lines = {"Host": origin.authority, "User-Agent": f"neurogate/{__version__}", "Accept": "*/*", **self._headers}
        if origin.authorization:
            lines["Authorization"] = origin.authorization
        if not self._reuses_connections:
            lines["Connection"] = "close"
        fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._head = (f"POST {origin.prefix}", f" HTTP/1.1\r\n{fields}")
        self._connections = Connections(
            origin, connect_timeout_s=self._connect_timeout_s, reuses=self._reuses_connections
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
        )

    async def run(self) -> None:
        """Wait until cancelled: an engine that somebody else runs needs no supervision."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Close every connection, and with them every generation under way."""
        session, self._session = self._session, None
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()
        if session is not None:
            await session.close()

    def forward(self, call: EngineCall) -> AbstractAsyncContextManager[EngineReply]:
        """Send the client's bytes and give the engine's bytes back; see Engine.forward."""
        if call.path not in self._paths:
            raise EngineUnsupportedError(f"the engine {self.kind} has no {call.path}")
        return Exchange(call, self._forwarded, self._give_back)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        """Generate text through the engine's chat API; see Engine.generate."""
        call = EngineCall(CHAT_PATH, chat_body(prompt, prompt.model or self._default_model()))
        async with aclosing(self._answered(call, prompt.model or self._model)) as answer:
            async for event in answer:
                yield event

    async def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Continue an answer; see Engine.resume."""
        raise EngineUnsupportedError(f"the engine {self.kind} does not continue answers of {call.path}")
        yield Token(said.text)

    async def figures(self) -> Figures:
        """None, where the engine does not tell; see Engine.figures."""
        return Figures()

    async def heal(self, reason: str) -> bool:
        """Nothing: it is not this worker's to restart."""
        del reason
        return False

    async def _anew(self, call: EngineCall, request: dict[str, Any]) -> AsyncGenerator[GenerationEvent, None]:
        """The answer to a request for chat or completions of which the client has no text yet.

        Raises EngineUnsupportedError for an answer that begins with reasoning, which is no text.
        """
        streamed = request | {"stream": True, "stream_options": {"include_usage": True}}
        asked = EngineCall(call.path, msgspec.json.encode(streamed), call.request_id)
        async with aclosing(self._answered(asked, self._model, reasons=False)) as answer:
            async for event in answer:
                yield event

    async def _answered(
        self, call: EngineCall, model: str, *, reasons: bool = True
    ) -> AsyncGenerator[GenerationEvent, None]:
        """The text of a streamed answer of OpenAI's chat or completions; reasoning is left out, or unsupported."""
        started = asyncio.get_running_loop().time()
        tap = SseTap()
        prompt_ms = predicted_ms = 0.0
        async with self._exchange(call) as reply:
            if reply.status != 200:
                raise await refusal(reply)
            async with aclosing(_chunks(reply, tap)) as pieces:
                async for data in pieces:
                    chunk = chunk_of(data)
                    if chunk is None:
                        raise EngineBrokenError("the engine streams something that is no chat completion")
                    model = chunk.model or model
                    if chunk.timings is not None:
                        prompt_ms, predicted_ms = chunk.timings.prompt_ms, chunk.timings.predicted_ms
                    for choice in chunk.choices:
                        if choice.content:
                            yield Token(choice.content)
                        elif choice.generated and not reasons:
                            raise EngineUnsupportedError("an answer with reasoning is not continued")
        ending = tap.finish()
        if ending.error is not None:
            raise EngineBrokenError(f"the engine reported an error in its answer: {ending.error}")
        if not ending.complete:
            raise EngineBrokenError("the engine's answer ended without its end mark [DONE]")
        elapsed_ms = (asyncio.get_running_loop().time() - started) * 1000
        told_ms = prompt_ms + predicted_ms
        yield Finished(
            usage=ending.usage or Usage(completion_tokens=ending.tokens),
            finish_reason=ending.finish_reason or "stop",
            model=model,
            inference_time_ms=round(told_ms if 0 < told_ms < math.inf else elapsed_ms),
        )

    def _connector(self) -> aiohttp.TCPConnector:
        if self._reuses_connections:
            return aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        return aiohttp.TCPConnector(limit=0, force_close=True)

    def _default_model(self) -> str:
        return self._model

    def _where(self) -> str:
        return "NEUROGATE_ENGINE_URL"

    def _unreachable(self, error: BaseException) -> str:
        return (
            f"no engine answers at {self.shown_url} ({self._reason(error)}): "
            f"check that it runs and that {self._where()} is right"
        )

    def _reason(self, error: BaseException) -> str:
        """What went wrong; a client's error may quote the URL it was given."""
        return reason_of(error).replace(self._base_url, self.shown_url)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineUnavailableError(f"the engine {self.kind} is not started")
        return self._session

    def _exchange(self, call: EngineCall) -> AbstractAsyncContextManager[EngineReply]:
        """Ask something of the server's API; also what clients cannot."""
        return Exchange(call, self._asked, self._give_back)

    async def _forwarded(self, call: EngineCall) -> tuple[Connection, EngineReply]:
        """The beginning of an exchange for a client, whose path the server may not have."""
        connection, reply = await self._asked(call)
        if reply.status in _NO_ROUTE:
            try:
                reply = await self._routed(reply, call)
            except BaseException:
                connection.close()
                raise
        return connection, reply

    async def _asked(self, call: EngineCall) -> tuple[Connection, EngineReply]:
        """The beginning of an exchange: the request is sent, and the head of the answer is there."""
        if self._connections is None:
            raise EngineUnavailableError(f"the engine {self.kind} is not started")
        request = self._request(call)
        connection = None
        try:
            connection = await self._connections.take()
            await connection.ask(*request)
            reply = EngineReply(
                status=connection.status,
                content_type=_content_type(connection.headers.get(b"content-type", _UNTYPED)),
                body=ReplyBody(connection),
                retry_after_s=self._retry_after_s(connection.status, connection.headers.get(b"retry-after")),
            )
            return connection, reply if reply.status < 400 else await self._judged(reply, connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, OSError):
                raise EngineUnavailableError(self._unreachable(error)) from error
            raise

    def _give_back(self, connection: Connection) -> None:
        """Into the pool when the answer was read to its end, else it is cut."""
        if self._connections is None:
            connection.close()
        else:
            self._connections.give_back(connection)

    def _request(self, call: EngineCall) -> tuple[bytes, bytes]:
        """The head and the body of a request."""
        told = current().headers()
        if call.request_id:
            told["X-Request-Id"] = call.request_id
        lines = "".join([f"{name}: {value}\r\n" for name, value in told.items()])
        if not all(map(str.isprintable, told.values())):
            raise ValueError("a header of the request is no text")
        before, after = self._head
        head = f"{before}{call.path}{after}{lines}Content-Length: {len(call.body)}\r\n\r\n"
        return head.encode(), call.body

    def _retry_after_s(self, status: int, told: bytes | None) -> float | None:
        """When to ask again, as `told` by the server."""
        del status
        return _seconds(told) if told is not None else None

    async def _judged(self, reply: EngineReply, connection: Connection) -> EngineReply:
        """A refusal, unless it says that the server loads its model: then EngineUnavailableError.

        Raises OSError for one that breaks off.
        """
        if reply.status != 503 or b"retry-after" in connection.headers:
            return reply
        first = bytearray()
        while len(first) < ERROR_BYTES_MAX and (piece := await connection.read()):
            first += piece
        if _is_loading(bytes(first)):
            raise EngineUnavailableError(f"the engine at {self.shown_url} is not ready: {message_of(bytes(first))}")
        return replace(reply, body=ReplyBody(connection, first=bytes(first)))

    async def _routed(self, reply: EngineReply, call: EngineCall) -> EngineReply:
        """The reply, unless it says that the server has no such path: then EngineUnsupportedError."""
        body = await read_reply(reply, ERROR_BYTES_MAX)
        message = message_of(body)
        if reply.status == 405 or not is_json(body) or _ROUTE_MISSING.fullmatch(message.strip()):
            raise EngineUnsupportedError(f"the engine at {self.shown_url} has no {call.path} (HTTP {reply.status})")
        if reply.status == 501:
            raise EngineUnsupportedError(f"the engine at {self.shown_url} has no {call.path}: {message}")
        return replace(reply, body=once(body))

    async def _get(self, path: str, *, timeout_s: float = OBSERVE_TIMEOUT_S) -> tuple[int, bytes]:
        """One control call: status and body. Raises EngineUnavailableError."""
        return await self._control("GET", path, timeout_s)

    async def _post(self, path: str, body: bytes, *, timeout_s: float = OBSERVE_TIMEOUT_S) -> tuple[int, bytes]:
        """The same with a body."""
        return await self._control("POST", path, timeout_s, body)

    async def _control(self, method: str, path: str, timeout_s: float, body: bytes | None = None) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._opened().request(method, self._base_url + path, data=body) as response,
            ):
                return response.status, await read_at_most(response.content, CONTROL_BYTES_MAX)
        except UNREACHABLE as error:
            raise EngineUnavailableError(self._unreachable(error)) from error


async def refusal(reply: EngineReply) -> EngineRefusedError:
    """The error for an answer that is none: the engine's own status and message."""
    message = message_of(await read_reply(reply, ERROR_BYTES_MAX)) or "no message"
    return EngineRefusedError(
        reply.status,
        f"the engine refused the request with HTTP {reply.status}: {message}",
        retry_after_s=reply.retry_after_s,
    )


async def read_reply(reply: EngineReply, limit: int) -> bytes:
    """The body of a reply up to `limit` bytes and a piece more."""
    body = bytearray()
    async for piece in reply.body:
        body += piece
        if len(body) > limit:
            break
    return bytes(body)


async def once(body: bytes) -> AsyncGenerator[bytes, None]:
    """A body that is there already."""
    yield body


async def read_at_most(content: aiohttp.StreamReader, limit: int) -> bytes:
    """The body up to `limit` bytes and a piece more."""
    body = bytearray()
    while len(body) < limit and (piece := await content.readany()):
        body += piece
    return bytes(body)


def chat_body(prompt: Prompt, model: str) -> bytes:
    """A prompt as a streamed OpenAI chat request; what the prompt leaves open is left out."""
    messages = [{"role": "user", "content": prompt.text}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    body: dict[str, object] = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    if model:
        body["model"] = model
    if prompt.max_tokens is not None:
        body["max_tokens"] = prompt.max_tokens
    if prompt.temperature is not None:
        body["temperature"] = prompt.temperature
    return msgspec.json.encode(body)


async def _chunks(reply: EngineReply, tap: SseTap) -> AsyncGenerator[bytes, None]:
    async for piece in reply.body:
        for event in events(tap.feed(piece)):
            if event.data != DONE:
                yield event.data
        if tap.error is not None:
            return


def _is_http(url: str) -> bool:
    try:
        parts = urls.split(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _is_loading(body: bytes) -> bool:
    value = json_of(body)
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and error.get("type") == "unavailable_error"


@lru_cache(maxsize=64)
def _content_type(told: bytes) -> str:
    """Without parameters."""
    return told.partition(b";")[0].strip().lower().decode("latin-1")


def _seconds(retry_after: bytes) -> float | None:
    """Retry-After in seconds; its other form, a date, would need the engine's clock to be right."""
    try:
        seconds = float(retry_after)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
