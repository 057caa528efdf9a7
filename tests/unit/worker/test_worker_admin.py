"""What an admin may do through a worker's ops port."""

from __future__ import annotations

import asyncio
from typing import cast

import httpx
import pytest
from starlette.applications import Starlette

from neurogate.worker.draining import Draining
from neurogate.worker.ops_admin import admin_routes

KEY = "an-admin-key-of-ops"
AUTH = {"Authorization": f"Bearer {KEY}"}


def put(content: bytes, *, headers: dict[str, str] | None = None) -> tuple[httpx.Response, list[str]]:
    """The answer to PUT /loglevel, and the levels that were set."""
    levels: list[str] = []
    routes = admin_routes([KEY], cast("Draining", None), grace_s=0, set_level=levels.append)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=Starlette(routes=routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.put("/loglevel", content=content, headers=AUTH if headers is None else headers)

    return asyncio.run(main()), levels


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_an_admin_has_a_worker_log_more_or_less(level: str) -> None:
    answer, levels = put(b'{"level":"%s"}' % level.encode())
    assert (answer.status_code, answer.json(), levels) == (200, {"status": "ok", "level": level}, [level])


@pytest.mark.parametrize("body", [b"", b"debug", b"{}", b'{"level":"loud"}', b'{"level":"info","x":1}', b" " * 2000])
def test_what_is_no_level_changes_nothing(body: bytes) -> None:
    answer, levels = put(body)
    assert (answer.status_code, answer.json()["code"], levels) == (400, "invalid_request", [])


def test_nobody_else_may() -> None:
    answer, levels = put(b'{"level":"debug"}', headers={"Authorization": "Bearer another-key-of-nobody"})
    assert (answer.status_code, levels) == (401, [])


def test_without_admin_keys_there_is_nothing_to_call() -> None:
    assert admin_routes([], cast("Draining", None), grace_s=0) == []
