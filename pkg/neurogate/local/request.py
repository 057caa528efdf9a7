"""Requests of the demo, sent by the real curl where there is one.

What is shown is what is run: the same words, only laid out over several lines.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from neurogate.config import child_environment
from neurogate.errors import NeuroGateError

_TIMEOUT_S = 120
_LINE_BYTES = 1 << 20


class RequestError(NeuroGateError):
    """The request was not answered as it should be."""


@dataclass(frozen=True, slots=True)
class Post:
    """A JSON request to the gateway."""

    url: str
    key: str
    body: Mapping[str, Any]
    show_head: bool = False
    """The lines of the answer's head come before those of its body."""

    @property
    def headers(self) -> dict[str, str]:
        """What the gateway wants to know beside the body."""
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    @property
    def content(self) -> str:
        """The body as it is sent."""
        return json.dumps(self.body)

    @property
    def command(self) -> list[str]:
        """The curl command; -N shows a streamed answer as it arrives."""
        stream = [*(["-i"] if self.show_head else []), *(["-N"] if self.body.get("stream") else [])]
        headers = [word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")]
        return ["curl", "-sS", *stream, "-X", "POST", self.url, *headers, "-d", self.content]

    def shown(self) -> str:
        """The command for a narrow terminal, ready to be pasted into a shell."""
        lines: list[list[str]] = [[]]
        for word in self.command:
            if word in {"-H", "-d"}:
                lines.append([])
            lines[-1].append(shlex.quote(word))
        return " \\\n    ".join(" ".join(line) for line in lines)


def has_curl() -> bool:
    """Whether this machine has curl."""
    return shutil.which("curl") is not None


async def send(
    post: Post, *, curl: bool, on_line: Callable[[bytes], None] = lambda _: None, timeout_s: float = _TIMEOUT_S
) -> bytes:
    """The whole answer; `on_line` gets each of its lines as it arrives.

    Raises RequestError when it cannot be sent, breaks off or takes longer than `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await (_by_curl if curl else _by_httpx)(post, on_line)
    except TimeoutError:
        raise RequestError(f"POST {post.url} took longer than {timeout_s:g} s") from None


async def _by_curl(post: Post, on_line: Callable[[bytes], None]) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *post.command,
        env=child_environment({"no_proxy": "*"}),  # it is for this machine
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
    body = b""
    try:
        async for line in process.stdout:
            on_line(line)
            body += line
        errors = await process.stderr.read()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        raise RequestError(f"POST {post.url}: {errors.decode('utf-8', 'replace').strip()}")
    return body


async def _by_httpx(post: Post, on_line: Callable[[bytes], None]) -> bytes:
    body = b""
    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", post.url, content=post.content, headers=post.headers) as answer,
        ):
            if post.show_head:
                for name, value in answer.headers.items():
                    on_line(f"{name}: {value}\r\n".encode())
            async for line in answer.aiter_lines():
                encoded = line.encode() + b"\n"
                on_line(encoded)
                body += encoded
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RequestError(f"POST {post.url}: {str(error) or type(error).__name__}") from error
    return body
