"""A Kubernetes API server that knows the EndpointSlices of one Service, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import ssl
from types import TracebackType
from typing import Self

from aiohttp import web

from neurogate.testing.sources import SliceStore


class FakeKubernetes:
    """Lists and watches as the real one does, and fails when it is told to. Use as an async context manager."""

    def __init__(
        self,
        *,
        versions: tuple[str, ...] = ("v1", "v1beta1"),
        namespace: str = "neurogate",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.store = SliceStore()
        self.versions = versions
        self.token = ""
        """The one that is taken; empty takes everybody."""
        self.refuses: dict[str, tuple[int, str | bytes]] = {}
        """(status, body) in place of an answer, by verb: list, watch."""
        self.asked: list[tuple[str, str, str]] = []
        """(verb, API version, token) of every question."""
        self.queries: list[dict[str, str]] = []
        self.watchers = 0
        self.url = ""
        self._namespace = namespace
        self._tls = tls
        self._cut = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/apis/discovery.k8s.io/{version}/namespaces/{namespace}/endpointslices", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()
        assert self._runner is not None  # noqa: S101 - entered
        await self._runner.cleanup()

    def cut(self) -> None:
        """Break every watch in the middle of what it says."""
        self._cut.set()
        self._cut = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        verb = "watch" if request.query.get("watch") == "1" else "list"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked.append((verb, request.match_info["version"], token))
        self.queries.append(dict(request.query))
        if request.match_info["version"] not in self.versions:
            return web.Response(status=404, text="404 page not found")
        if self.token and token != self.token:
            return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)
        if verb in self.refuses:
            status, body = self.refuses[verb]
            return web.Response(status=status, body=body.encode() if isinstance(body, str) else body)
        if request.match_info["namespace"] != self._namespace:
            return web.json_response({"kind": "EndpointSliceList", "metadata": {"resourceVersion": "1"}, "items": None})
        return await self._watch(request) if verb == "watch" else self._list()

    def _list(self) -> web.Response:
        metadata = {"resourceVersion": str(self.store.version)}
        return web.json_response(
            {"kind": "EndpointSliceList", "metadata": metadata, "items": list(self.store.objects.values())}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        seen, cut = int(request.query["resourceVersion"]), self._cut
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self.watchers += 1
        try:
            while True:
                changed = self.store.changed
                events = self.store.since(seen)
                if events is None:
                    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
                    await response.write(_line("ERROR", gone))
                    return response
                for seen, kind, object_ in events:  # noqa: B007 - kept for the next look
                    await response.write(_line(kind, object_))
                if not await _either(changed, cut):
                    await response.write(b'{"type": "MODIF')
                    if request.transport is not None:
                        request.transport.abort()
                    return response
        finally:
            self.watchers -= 1


def _line(kind: str, object_: dict[str, object]) -> bytes:
    return json.dumps({"type": kind, "object": object_}).encode() + b"\n"


async def _either(changed: asyncio.Event, cut: asyncio.Event) -> bool:
    """Wait for one of the two; whether it was the first alone."""
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(event.wait()) for event in (changed, cut)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
    return not cut.is_set()
