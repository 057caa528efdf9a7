"""The live page in a real browser, before a gateway with workers that die and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from browser_support import Page, browser, found
from fleet_in_process import Fleet, fleet
from neurogate.engines.settings import SimSettings
from neurogate.httpd import HttpServer
from real_loop import eventually, run_real

pytestmark = [
    pytest.mark.skipif(found() is None, reason="no Chromium here: install chromium to click through the live page"),
    pytest.mark.timeout(300),
]

KEY = "a-secret-admin-key"
ROWS = "[...document.querySelectorAll('#workers-table tr.row')]"
ORDER = f"{ROWS}.map(row => row.querySelector('.name').innerText).join()"


@dataclass
class Ops:
    """The ops port of a fleet's gateway, which can go away and come back."""

    fleet: Fleet
    tasks: asyncio.TaskGroup
    server: HttpServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dashboard"

    async def start(self) -> None:
        self.server = HttpServer(self.fleet.gateway.ops_app, name="METRICS_PORT", host="127.0.0.1", port=self.port)
        self.port = await self.server.start(self.tasks)


@asynccontextmanager
async def ops(workers: int = 3, **settings: Any) -> AsyncIterator[Ops]:
    sim = SimSettings(prefill_tps=0, decode_tps=50, slots=4)
    async with fleet(workers, sim=sim, **settings) as made, asyncio.TaskGroup() as tasks:
        made.gateway.lifecycle.ready = True
        showing = tasks.create_task(made.gateway.live.run())
        port = Ops(made, tasks, None, 0)  # type: ignore[arg-type]
        await port.start()
        yield port
        made.gateway.live.stop()
        await port.server.stop(1)
        await showing
    assert made.gateway.live.viewers == 0


@asynccontextmanager
async def looking(made: Ops, folder: Path) -> AsyncIterator[Page]:
    """A browser on the page, which must have had no problem with it at the end."""
    async with browser(folder) as page:
        await page.size(1280, 900)
        await page.open(made.url)
        yield page
        assert [problem for problem in page.problems if "ERR_" not in problem and "401" not in problem] == []


def test_the_page_shows_the_fleet_and_is_clicked_through(tmp_path: Path) -> None:
    async def main() -> None:
        async with ops() as made, looking(made, tmp_path) as page:
            await page.until(f"{ROWS}.length === 3")
            assert "ready" in await page.text("#workers-table tr.row")
            assert await page.text("#workers-figure") == "3 of 3 well"
            assert (await page.text("#link")).strip() == "live"

            # sort, by a button in the head, one way and the other
            assert await page.value(ORDER) == "worker-0,worker-1,worker-2"
            await page.click("#workers-table th:first-child button")
            await page.until(f"{ORDER} === 'worker-2,worker-1,worker-0'")
            head = "document.querySelector('#workers-table th')"
            assert await page.value(f"{head}.getAttribute('aria-sort')") == "descending"
            await page.click("#workers-table th:first-child button")
            await page.until(f"{ORDER} === 'worker-0,worker-1,worker-2'")

            # unfold, by keyboard, and it stays unfolded while pictures come
            await page.value("document.querySelector('#workers-table .open').focus()")
            await page.press("Enter")
            await page.until("document.querySelector('#workers-table tr.details').innerText.includes('127.0.0.1:')")
            drawn = await page.value("document.querySelector('#gateway').innerText")
            await page.until(f"document.querySelector('#gateway').innerText !== {drawn!r}")
            assert await page.value("document.activeElement.getAttribute('aria-expanded')") == "true"
            await page.press("Enter")
            await page.until("!document.querySelector('#workers-table tr.details')")

            # the theme goes round, and is kept
            seen = []
            for _ in range(3):
                await page.click("#theme")
                seen.append(await page.value("document.documentElement.dataset.theme || 'auto'"))
            assert seen == ["light", "dark", "auto"]
            await page.click("#theme")
            await page.open(made.url)
            await page.until("document.documentElement.dataset.theme === 'light'")

            # nothing is wider than a phone
            await page.size(390, 844, phone=True)
            await page.until(f"{ROWS}.length === 3")
            assert await page.value("document.documentElement.scrollWidth") == 390

    run_real(main(), timeout_s=240)


def test_a_request_in_flight_and_a_worker_that_dies_are_seen(tmp_path: Path) -> None:
    async def main() -> None:
        async with ops() as made, looking(made, tmp_path) as page:
            await page.until(f"{ROWS}.length === 3")
            body = {"messages": [{"role": "user", "content": "Why?"}], "stream": True, "max_tokens": 400}
            client = made.fleet.client
            async with client.stream(
                "POST", "/v1/chat/completions", json=body, headers={"x-request-id": "mine"}
            ) as answer:
                await page.until("document.querySelector('#requests-table tr.row')?.innerText.includes('decode')")
                assert "mine" in await page.text("#requests-table tr.row")
                asked = int(answer.headers["x-neurogate-worker"].removeprefix("worker-"))

                made.fleet.workers[asked].cancel()

                row = f"{ROWS}[{asked}].innerText"
                await page.until(f"{row}.includes('unreachable')")
                assert f"worker-{asked} is unreachable" in await page.text("#said")
                await page.until("document.querySelector('#recent-list').innerText.includes('resumed')")
                assert "mine" in await page.text("#recent-list")
                await page.until("document.querySelector('#workers-figure').innerText === '2 of 3 well'")

    run_real(main(), timeout_s=240)


def test_two_requests_of_one_id_are_two_rows(tmp_path: Path) -> None:
    async def main() -> None:
        async with ops(1) as made, looking(made, tmp_path) as page:
            body = {"messages": [{"role": "user", "content": "Why?"}], "stream": True, "max_tokens": 400}
            client, headers = made.fleet.client, {"x-request-id": "same"}
            async with (
                client.stream("POST", "/v1/chat/completions", json=body, headers=headers),
                client.stream("POST", "/v1/chat/completions", json=body, headers=headers),
            ):
                rows = "[...document.querySelectorAll('#requests-table tr.row')]"
                await page.until(f"{rows}.length === 2")
                assert await page.value(f"{rows}.every(row => row.innerText.includes('same'))")
            await page.until(f"{rows}.length === 0")

    run_real(main(), timeout_s=240)


def test_the_key_is_asked_for_kept_in_the_tab_and_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with ops(1, admin_key=(KEY,)) as made, looking(made, tmp_path) as page:
            await page.until("document.querySelector('#ask').open")
            await page.type("another-admin-key")
            await page.press("Enter")
            await page.until("document.querySelector('#ask-problem').innerText.includes('no admin key')")
            await page.type(KEY)
            await page.click("#ask button")
            await page.until(f"{ROWS}.length === 1")

            await page.open(made.url)  # kept
            await page.until(f"{ROWS}.length === 1")
            assert KEY not in await page.value("location.href + JSON.stringify(localStorage) + document.cookie")
            await page.click("#forget")
            await page.until("document.querySelector('#ask').open")
            assert await page.value("sessionStorage.length") == 0

    run_real(main(), timeout_s=240)


def test_a_gateway_that_dies_leaves_a_stale_page_that_recovers(tmp_path: Path) -> None:
    async def main() -> None:
        async with ops(1) as made, looking(made, tmp_path) as page:
            await page.until(f"{ROWS}.length === 1")
            await made.server.stop(0)

            await page.until("!document.querySelector('#banner').hidden")
            assert "trying again" in await page.text("#banner")
            assert await page.value("document.querySelector('#banner').getAttribute('role')") == "alert"
            assert (await page.text("#link")).strip().endswith(" old")
            assert await page.value(f"{ROWS}.length") == 1  # what was known is still shown
            await eventually(lambda: made.fleet.gateway.live.viewers == 0)

            await made.start()
            await page.until("document.querySelector('#banner').hidden")
            assert (await page.text("#link")).strip() == "live"

    run_real(main(), timeout_s=240)
