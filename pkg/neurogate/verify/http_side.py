"""One side of an HTTP verification: makes calls and notes everything of their answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from neurogate.errors import NeuroGateError
from neurogate.tls.trust import advice, trusting
from neurogate.verify.http_calls import HttpCall
from neurogate.verify.masks import canonical, events, masked


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, without its stamps."""

    status: int
    media_type: str
    parts: tuple[bytes, ...]
    """The events of a stream; a whole answer is one part."""
    raw: bytes = field(compare=False)
    failure: str = ""
    """Why it ended early; empty for an answer that ended as HTTP ends one."""

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON."""
        try:
            json.loads(self.raw)
        except ValueError:
            return False
        return True


class HttpSide:
    """A server, and a client of it. Close it."""

    def __init__(self, address: str, *, key: str, tls_ca: str, timeout_s: float) -> None:
        """`address` is host:port or a URL. Raises NeuroGateError for a CA that cannot be read."""
        self.url = address if "://" in address else f"http://{address}"
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout_s,
            verify=trusting(tls_ca),
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def reach(self) -> None:
        """Raises NeuroGateError when nobody answers there."""
        try:
            await self._client.get("/")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said, advised = str(error) or type(error).__name__, advice(error)
            raise NeuroGateError(f"{self.url} does not answer ({said}){advised and f': {advised}'}") from error

    async def send(self, call: HttpCall) -> Answer:
        """The whole answer. Never raises: what went wrong is part of it."""
        status, media_type, received, failure = 0, "", bytearray(), ""
        try:
            async with asyncio.timeout(self._timeout_s), self._stream(call) as response:
                status = response.status_code
                media_type = response.headers.get("content-type", "").partition(";")[0].strip()
                async for data in response.aiter_raw():
                    received += data
        except TimeoutError:
            failure = f"no end within {self._timeout_s:g} s"
        except httpx.HTTPError as error:
            failure = f"{type(error).__name__}: {error}"
        raw = bytes(received)
        hidden = masked(raw)
        is_stream = call.stream and status < 300
        parts = events(hidden, media_type) if is_stream else (canonical(hidden),)
        return Answer(status, media_type, parts, raw, failure)

    async def leave_early(self, call: HttpCall) -> bool:
        """Take the beginning of an answer and hang up. Returns whether there was one."""
        try:
            async with asyncio.timeout(self._timeout_s), self._stream(call) as response:
                async for _ in response.aiter_raw():
                    return bool(response.status_code < 300)
        except (TimeoutError, httpx.HTTPError):
            return False
        return False

    async def busy_slots(self) -> int | None:
        """How many of llama.cpp's slots are at work; None where that cannot be asked."""
        try:
            response = await self._client.get("/slots")
            slots: Any = response.json()
        except (httpx.HTTPError, ValueError):
            return None
        if response.status_code != 200 or not isinstance(slots, list):
            return None
        return sum(bool(slot.get("is_processing")) for slot in slots)

    def _stream(self, call: HttpCall) -> Any:
        return self._client.stream(
            call.method, call.path, content=call.body or None, headers={"Content-Type": "application/json"}
        )
