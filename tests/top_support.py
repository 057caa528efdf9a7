"""The ops port of a gateway as far as `neurogate top` asks it, and pictures to show there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from neurogate.dataplane.phase import Phase
from neurogate.gateway.in_flight import Row
from neurogate.gateway.live.picture import FleetNow, Happening, Picture, WorkerNow
from neurogate.httpd import HttpServer


def worker(number: int = 0, **fields: Any) -> WorkerNow:
    known: dict[str, Any] = {
        "id": f"worker-{number}", "address": "host:1", "state": "ready", "why": "", "breaker": "closed", "failures": 0,
        "in_flight": 3, "slots_busy": 2, "slots_total": 4, "running": 2, "queued": 1, "tokens_per_s": 40.4,
        "history": (None, 20.0, 40.4), "kv_used": None, "models": ("tiny",), "models_more": 0, "engine": "sim",
        "engine_version": "1", "engine_restarts": 0, "version": "1", "uptime_s": 9.0, "reported_s": 0.2,
        "last_words": "", "leaving": False,
    }  # fmt: skip
    return WorkerNow(**{**known, **fields})


def picture(*workers: WorkerNow, requests: int = 1, recent: int = 1, **fields: Any) -> Picture:
    rows = tuple(
        Row(f"req-{n}", "key-1", "", "/prompt", Phase.DECODE, 65.0, "worker-0", 2, 1, 17, stream=True, number=n)
        for n in range(requests)
    )
    happenings = tuple(Happening("resume", 90.0, "worker-1", "link_lost", f"old-{n}", 2) for n in range(recent))
    fleet = FleetNow(len(workers), {"ready": len(workers)}, requests, 0, 2.5, 40.4, 0.25, 1.5, (), (), ())
    known: dict[str, Any] = {
        "at": 100.0, "gateway": "here", "version": "1", "uptime_s": 3700.0, "ready": True, "draining": False,
        "fleet": fleet, "workers": workers, "workers_more": 0, "requests": rows, "requests_more": 0,
        "recent": happenings,
    }  # fmt: skip
    return Picture(**{**known, **fields})


class OpsPort:
    """A gateway's ops port as far as top asks it."""

    def __init__(self) -> None:
        self.status = 200
        self.body = msgspec.json.encode(picture(worker()))
        self.keys: list[str] = []
        self.url = ""
        self.ending = asyncio.Event()
        """Until then streams stay open."""

    async def picture(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization", ""))
        return Response(self.body, self.status)

    async def events(self, request: Request) -> Response:
        if self.status != 200:
            return Response(self.body, self.status)

        async def stream() -> AsyncIterator[bytes]:
            for _ in range(2):
                yield b"event: picture\ndata: %b\n\n" % self.body
            await self.ending.wait()

        return StreamingResponse(stream())


@asynccontextmanager
async def ops_port() -> AsyncIterator[OpsPort]:
    made = OpsPort()
    app = Starlette(routes=[Route("/dashboard/picture", made.picture), Route("/dashboard/events", made.events)])
    server = HttpServer(app, name="METRICS_PORT", host="127.0.0.1", port=0)
    async with asyncio.TaskGroup() as tasks:
        made.url = f"http://127.0.0.1:{await server.start(tasks)}"
        yield made
        made.ending.set()
        await server.stop(1)
