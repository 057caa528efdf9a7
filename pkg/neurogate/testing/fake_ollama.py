"""An Ollama server that says what it is told to say, and fails when it is told to fail.

It speaks HTTP on a real socket and keeps Ollama's habits: one JSON object a line, zeros left out, an error before the
first byte as a status with JSON, an error after it as a line with the status still 200, and a bounded queue in front of
its slots. A raw prompt that ends within the answer is answered with the rest of it. What the next generations do is a
`Script`; there is a ready-made one for each moment an engine can fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

BUSY_MESSAGE = "server busy, please try again.  maximum pending requests exceeded"
CREATED_AT = "2026-01-02T03:04:05.678901234Z"
_CREATED = 1767323045
_GIB = 1 << 30
_DETAILS = {"format": "gguf", "family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
EMBEDDING = [0.6, 0.8]
ANSWER_MARK = "<|assistant|>"
"""Begins the answer in a conversation as it renders one."""
_RENDERS_SINCE = (0, 11, 5)


@dataclass(frozen=True, slots=True)
class Script:
    """What the server does with a generation."""

    tokens: tuple[str, ...] = ("Hello", " from", " Ollama", ".")
    status: int = 200
    """Anything else refuses before the first byte."""
    error: str = ""
    """The message of the refusal, or of `error_after`."""
    hangs: bool = False
    """Never send the head."""
    holds_after: int | None = None
    """Send nothing after so many tokens until the client leaves or `release` is called."""
    error_after: int | None = None
    """Report an error in the answer after so many tokens."""
    ends_after: int | None = None
    """End the answer properly as HTTP goes after so many tokens, without the line that says `done`."""
    dies_after: int | None = None
    """Cut the connection after so many tokens."""
    done_reason: str = "stop"
    prompt_tokens: int = 26
    """0 is left out, as on a full cache hit."""
    prompt_ms: int = 130
    decode_ms: int = 400


ANSWERS = Script()
REFUSES = Script(status=500, error="llama runner process has terminated: exit status 2")
HANGS = Script(hangs=True)
HOLDS = Script(holds_after=2)
REPORTS_ERROR = Script(error_after=2, error="an error was encountered while running the model: unexpected EOF")
TRUNCATES = Script(ends_after=2)
DIES = Script(dies_after=2)
TERSE = Script(prompt_tokens=0, prompt_ms=0, decode_ms=0)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class FakeOllama:
    """The server; use it as a context manager. Its state is there to be asserted on."""

    def __init__(
        self,
        *,
        models: tuple[str, ...] = ("llama3.2:latest", "qwen3:0.6b"),
        loaded: tuple[str, ...] = ("llama3.2:latest",),
        version: str = "0.12.9",
        slots: int = 1,
        queue_max: int = 512,
    ) -> None:
        self.models = models
        self.loaded = loaded
        self.version = version
        self.shown: dict[str, Any] = {}
        """What `/api/show` tells beside the usual, or instead of it."""
        self.script = ANSWERS
        """For every generation that begins from now on."""
        self.asked: list[Asked] = []
        """Generations, oldest first."""
        self.running = 0
        """Generations that have a slot."""
        self.url = ""
        """Where it listens, while it does."""
        self._queue_max = queue_max
        self._slots = asyncio.Semaphore(slots)
        self._held = 0
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/api/version", self._version),
                web.get("/api/tags", self._tags),
                web.get("/api/ps", self._ps),
                web.post("/api/chat", self._chat),
                web.post("/api/generate", self._generate),
                web.post("/api/embed", self._embed),
                web.post("/api/embeddings", self._embeddings),
                web.post("/api/show", self._show),
                web.get("/v1/models", self._openai_models),
                web.post("/v1/chat/completions", self._openai_chat),
                web.post("/v1/embeddings", self._openai_embeddings),
            ]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        host, bound = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{bound}"

    async def stop(self) -> None:
        """Close every connection and the socket. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def release(self) -> None:
        """Let answers that hold go on."""
        self._released.set()

    async def until_running(self, count: int) -> None:
        """Wait until exactly so many generations have a slot."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.running == count)

    async def _root(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="Ollama is running")

    async def _version(self, request: web.Request) -> web.Response:
        del request
        return _json({"version": self.version})

    async def _tags(self, request: web.Request) -> web.Response:
        del request
        return _json({"models": [{**_model(name), "modified_at": CREATED_AT} for name in self.models]})

    async def _ps(self, request: web.Request) -> web.Response:
        del request
        running = {"expires_at": CREATED_AT, "size_vram": 2 * _GIB, "context_length": 4096}
        return _json({"models": [{**_model(name), **running} for name in self.loaded]})

    async def _openai_models(self, request: web.Request) -> web.Response:
        del request
        models = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "library"} for name in self.models]
        return _json({"object": "list", "data": models})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._native(request, lambda text: {"message": {"role": "assistant", "content": text}})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return await self._native(request, lambda text: {"response": text})

    async def _embed(self, request: web.Request) -> web.Response:
        body = await self._ask(request)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = [EMBEDDING for _ in texts]
        durations = {"total_duration": 14_000_000, "load_duration": 1_000_000, "prompt_eval_count": len(texts)}
        return self._about_model(body, {"model": body["model"], "embeddings": vectors, **durations})

    async def _embeddings(self, request: web.Request) -> web.Response:
        return self._about_model(await self._ask(request), {"embedding": EMBEDDING})

    async def _show(self, request: web.Request) -> web.Response:
        info = {"general.architecture": "llama", "llama.context_length": 131072}
        about = {"template": "{{ .Prompt }}", "details": _DETAILS, "model_info": info, "capabilities": ["completion"]}
        about |= self.shown
        return self._about_model(await self._ask(request), {**about, "modified_at": CREATED_AT})

    def _about_model(self, body: dict[str, Any], answer: dict[str, Any]) -> web.Response:
        model = str(body.get("model", ""))
        return _json(answer) if self._has(model) else _json({"error": f"model '{model}' not found"}, status=404)

    def _ungenerated(self, body: dict[str, Any], said: Any) -> dict[str, Any] | None:
        """The answer to what asks for no tokens; None for what does."""
        head = {"model": body.get("model", ""), "created_at": CREATED_AT, **said("")}
        if not self._has(head["model"]) or not (body.get("prompt") or body.get("messages")):
            return {**head, "done": True, "done_reason": "unload" if body.get("keep_alive") == 0 else "load"}
        if body.get("_debug_render_only") and tuple(map(int, self.version.split("."))) >= _RENDERS_SINCE:
            return {**head, "done": False, "_debug_info": {"rendered_template": rendered(body)}}
        return None

    async def _native(self, request: web.Request, said: Any) -> web.StreamResponse:
        body = await self._ask(request)
        model = str(body.get("model", ""))
        if (ungenerated := self._ungenerated(body, said)) is not None:
            return self._about_model(body, ungenerated)
        script = _going_on(self.script, body) if body.get("raw") else self.script
        async with self._slot() as admitted:
            if not admitted:
                return _json({"error": BUSY_MESSAGE}, status=503)
            if script.status != 200:
                return _json({"error": script.error}, status=script.status)
            if script.hangs:
                await self._released.wait()
            head = {"model": model, "created_at": CREATED_AT}
            last = _line({**head, **said(""), "done": True, "done_reason": script.done_reason, **_summary(script)})
            if body.get("stream") is False:
                await self._come_to_end(request, script)
                if script.error_after is not None:
                    return _json({"error": script.error}, status=500)
                whole = {**said("".join(script.tokens)), "done": True, "done_reason": script.done_reason}
                return _json({**head, **whole, **_summary(script)})
            lines = [_line({**head, **said(token), "done": False}) for token in script.tokens]
            return await self._send(
                request, "application/x-ndjson", lines, last, error=_line({"error": script.error}), script=script
            )

    async def _openai_chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._ask(request)
        model = str(body.get("model", ""))
        if not self._has(model):
            return _json(_openai_error(f"model '{model}' not found", "not_found_error"), status=404)
        script = self.script
        async with self._slot() as admitted:
            if not admitted:
                return _json(_openai_error(BUSY_MESSAGE, "api_error"), status=503)
            if script.status != 200:
                return _json(_openai_error(script.error, "api_error"), status=script.status)
            if script.hangs:
                await self._released.wait()
            head = {"id": "chatcmpl-1", "created": _CREATED, "model": model, "system_fingerprint": "fp_ollama"}
            usage = {"usage": _usage(script)}
            if not body.get("stream"):
                await self._come_to_end(request, script)
                if script.error_after is not None:
                    return _json(_openai_error(script.error, "api_error"), status=500)
                message = {"role": "assistant", "content": "".join(script.tokens)}
                choice = {"index": 0, "message": message, "finish_reason": script.done_reason}
                return _json({**head, "object": "chat.completion", "choices": [choice], **usage})
            chunk = {**head, "object": "chat.completion.chunk"}
            pieces = [_event({**chunk, "choices": [_delta(token, None)]}) for token in script.tokens]
            last = _event({**chunk, "choices": [_delta("", script.done_reason)]})
            if (body.get("stream_options") or {}).get("include_usage"):
                last += _event({**chunk, "choices": [], **usage})
            error = _event(_openai_error(script.error, "api_error"))
            return await self._send(
                request, "text/event-stream", pieces, last + b"data: [DONE]\n\n", error=error, script=script
            )

    async def _openai_embeddings(self, request: web.Request) -> web.Response:
        body = await self._ask(request)
        model = str(body.get("model", ""))
        if not self._has(model):
            return _json(_openai_error(f"model '{model}' not found", "not_found_error"), status=404)
        data = [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]
        return _json({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 1, "total_tokens": 1}})

    async def _come_to_end(self, request: web.Request, script: Script) -> None:
        """What happens to a whole answer before it is there."""
        if script.holds_after is not None:
            await self._released.wait()
        if script.dies_after is not None and request.transport is not None:
            request.transport.abort()

    async def _send(
        self,
        request: web.Request,
        content_type: str,
        pieces: list[bytes],
        last: bytes,
        *,
        error: bytes,
        script: Script,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for sent in range(len(pieces) + 1):
            if sent == script.error_after:
                await response.write(error)
                return response
            if sent == script.ends_after:
                return response
            if sent == script.dies_after and request.transport is not None:
                request.transport.abort()
                return response
            if sent == script.holds_after:
                await self._released.wait()
            if sent < len(pieces):
                await response.write(pieces[sent])
        await response.write(last)
        return response

    async def _ask(self, request: web.Request) -> dict[str, Any]:
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
        self.asked.append(Asked(request.path, body, dict(request.headers)))
        return body

    def _has(self, model: str) -> bool:
        return model in self.models or f"{model}:latest" in self.models

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[bool]:
        """One of the slots, after a wait in the queue; False when the queue is full."""
        if self._slots.locked() and self._held - self.running >= self._queue_max:
            yield False
            return
        self._held += 1
        try:
            async with self._slots:
                await self._count(1)
                try:
                    yield True
                finally:
                    await self._count(-1)
        finally:
            self._held -= 1

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.running += change
            self._changed.notify_all()


def rendered(body: dict[str, Any]) -> str:
    """A conversation, or a prompt, as the server gives it to its model."""
    messages = body.get("messages") or [{"role": "user", "content": body.get("prompt", "")}]
    return "".join(f"<|{message['role']}|>{message['content']}" for message in messages) + ANSWER_MARK


def _going_on(script: Script, body: dict[str, Any]) -> Script:
    """What is left to say after a raw prompt, which may have the beginning of the answer at its end."""
    _, _, text = body["prompt"].rpartition(ANSWER_MARK)
    heard = next((n for n in range(len(script.tokens) + 1) if "".join(script.tokens[:n]) == text), 0)
    left = script.tokens[heard:]
    limit = body.get("options", {}).get("num_predict", -1)
    if 0 < limit < len(left):
        script, left = replace(script, done_reason="length"), left[:limit]
    return replace(script, tokens=left, prompt_tokens=script.prompt_tokens and script.prompt_tokens + heard)


def _model(name: str) -> dict[str, Any]:
    return {"name": name, "model": name, "size": 2 * _GIB, "digest": "a80c4f17acd5", "details": _DETAILS}


def _summary(script: Script) -> dict[str, int]:
    """The counts and durations of the last line, in nanoseconds, without those that are zero."""
    prompt_ns, decode_ns = script.prompt_ms * 1_000_000, script.decode_ms * 1_000_000
    counts = {
        "total_duration": prompt_ns + decode_ns + 1_000_000,
        "prompt_eval_count": script.prompt_tokens,
        "prompt_eval_duration": prompt_ns,
        "eval_count": len(script.tokens),
        "eval_duration": decode_ns,
    }
    return {name: count for name, count in counts.items() if count}


def _usage(script: Script) -> dict[str, int]:
    said = len(script.tokens)
    return {
        "prompt_tokens": script.prompt_tokens,
        "completion_tokens": said,
        "total_tokens": script.prompt_tokens + said,
    }


def _delta(text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish_reason}


def _openai_error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _json(value: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers={"Content-Type": "application/json; charset=utf-8"}
    )


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
