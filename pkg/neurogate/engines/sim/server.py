"""The simulated engine as a server of its own: llama.cpp's API and Ollama's on one port.

It stands in for either engine where a worker must meet one over HTTP. While it is not ready every path answers 503, as
llama.cpp does while it loads.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from neurogate.engines.settings import SimSettings
from neurogate.engines.sim import apis, llamacpp_api, ollama_api
from neurogate.engines.sim.core import SimCore, SimRefusedError
from neurogate.engines.sim.reply import JSON_TYPE
from neurogate.httpd import HttpServer

_GRACE_S = 5


class _ReadyGate:
    """Answers 503 for everything while the engine is not ready."""

    def __init__(self, app: ASGIApp, core: SimCore) -> None:
        self._app = app
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and (reason := self._core.unready_reason()):
            app = _refused(scope["path"], SimRefusedError(503, reason, code="unavailable"))
        await app(scope, receive, send)


def build_app(
    settings: SimSettings,
    *,
    model: str = "sim",
    rng: random.Random,
    now: Callable[[], float],
    exit_process: Callable[[int], None] = os._exit,
) -> Starlette:
    """The server's ASGI app; its lifespan starts and stops the engine.

    `rng` decides faults only, `now` is the wall clock in Unix seconds. Raises ConfigError for faults that do not exist.
    """
    core = SimCore(settings, model=model, rng=rng, now=now, exit_process=exit_process)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        core.start()
        yield
        core.stop()

    async def not_found(request: Request, error: Exception) -> Response:
        del error
        return _refused(request.url.path, SimRefusedError(404, "File Not Found", code="not_found"))

    return Starlette(
        routes=[*apis.routes(core), *llamacpp_api.routes(core), *ollama_api.OllamaApi(core).routes()],
        middleware=[Middleware(_ReadyGate, core=core)],
        exception_handlers={404: not_found, 405: not_found},
        lifespan=lifespan,
    )


def _write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def serve(
    settings: SimSettings,
    *,
    host: str,
    port: int,
    model: str = "sim",
    seed: int = 0,
    now: Callable[[], float] = time.time,  # noqa: TID251 -- the composition root of a process
    announce: Callable[[str], None] = _write_line,
) -> None:
    """Serve until SIGTERM or SIGINT, or until cancelled; answers under way then have 5 s to finish.

    `seed` decides faults only. `announce` is told `listening on http://HOST:PORT` once, when it is so; port 0 takes a
    free one. Outside the main thread, which alone may handle signals, only cancelling ends it. Raises OSError when the
    address cannot be bound, and ConfigError for faults that do not exist.
    """
    app = build_app(settings, model=model, rng=random.Random(seed), now=now)  # noqa: S311 -- decides faults
    server = HttpServer(app, name="sim-engine", host=host, port=port)
    async with app.router.lifespan_context(app), asyncio.TaskGroup() as tasks:
        bound = await server.start(tasks)
        stopping = asyncio.Event()
        with _on_signals(stopping.set):
            shown = f"[{host}]" if ":" in host else host
            announce(f"listening on http://{shown}:{bound}")
            try:
                await stopping.wait()
            finally:
                await server.stop(_GRACE_S)


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _refused(path: str, error: SimRefusedError) -> Response:
    is_ollama = path == "/" or path.startswith("/api/")
    body = ollama_api.refusal(error) if is_ollama else llamacpp_api.refusal(error)
    return Response(body, error.status, media_type=JSON_TYPE)
