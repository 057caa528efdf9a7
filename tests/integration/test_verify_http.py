"""`neurogate verify` over HTTP: passes where nothing differs, and finds every kind of lie."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import lying_proxies as lies
from lying_proxies import HttpLie, http_proxy
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.server import build_app
from neurogate.errors import NeuroGateError
from neurogate.httpd import HttpServer
from neurogate.verify import http_run
from neurogate.verify.http_calls import Api, long_stream
from neurogate.verify.http_run import HttpPlan, verify_http
from neurogate.verify.http_side import HttpSide
from neurogate.verify.report import Report
from real_loop import leftover_tasks, run_real

SIM = SimSettings(prefill_tps=0, decode_tps=640, slots=64)
"""A long answer takes long enough to see whether leaving it frees the engine."""
AT_ONCE = SimSettings(prefill_tps=0, decode_tps=0, slots=64)
"""For what has nothing to do with time."""
PLAN = HttpPlan(frozenset[Api]({"openai"}), calls=8, concurrency=8, model="", size_bytes=300_000)


@asynccontextmanager
async def engine(settings: SimSettings = SIM) -> AsyncIterator[str]:
    app = build_app(settings, model="tiny", rng=random.Random(1), now=time.time)
    async with app.router.lifespan_context(app), asyncio.TaskGroup() as tasks:
        server = HttpServer(app, name="engine", host="127.0.0.1", port=0)
        port = await server.start(tasks)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(1)


async def verified(direct: str, proxy: str, plan: HttpPlan = PLAN, *, timeout_s: float = 20) -> Report:
    one, other = (HttpSide(address, key="k", tls_ca="", timeout_s=timeout_s) for address in (direct, proxy))
    try:
        return await verify_http(one, other, plan)
    finally:
        await one.close()
        await other.close()


def found(lie: HttpLie, sim: SimSettings = SIM) -> dict[str, list[str]]:
    """What is found about a lie: the calls by aspect."""

    async def main() -> Report:
        async with engine(sim) as direct, http_proxy(f"http://{direct}", lie) as proxy:
            return await verified(direct, proxy)

    report = run_real(main())
    assert report.passed is not bool(report.findings)
    aspects: dict[str, list[str]] = {}
    for finding in report.findings:
        aspects.setdefault(finding.aspect, []).append(finding.call)
    return aspects


def test_a_server_is_like_itself_with_64_streams_at_once():
    async def main() -> None:
        async with engine() as address:
            plan = PLAN._replace(calls=64, concurrency=64, apis=frozenset({"openai", "llamacpp", "anthropic"}))
            report = await verified(address, address, plan)
            assert report.passed, report.as_text()
            assert report.skipped == []
            assert report.tallies["cross-talk"].compared == 64
            assert set(report.tallies) == {
                "answered", "status", "metadata", "count", "order", "bytes", "size", "cancellation", "cross-talk",
            }  # fmt: skip

    run_real(main())


def test_an_ollama_api_is_like_itself():
    async def main() -> None:
        async with engine() as address:
            report = await verified(address, address, PLAN._replace(apis=frozenset({"ollama"}), model="tiny"))
            assert report.passed, report.as_text()
            assert report.tallies["cross-talk"].compared == 8

    run_real(main())


def test_an_honest_proxy_passes():
    assert found(HttpLie()) == {}


@pytest.mark.parametrize(
    ("lie", "aspect", "calls"),
    [
        (lies.DropsAnEvent(), "count", 8 + 4),
        (lies.RepeatsAnEvent(), "count", 8 + 4),
        (lies.InventsTheEnd(), "count", 8 + 4),
        (lies.Reorders(), "order", 8),
        (lies.ChangesAByte(), "bytes", 8),
        (lies.ReframesEvents(), "bytes", 8),
        (lies.MixesStreams(), "cross-talk", 4),
        (lies.SaysOtherwise(), "bytes", 3),
        (lies.WrongStatus(), "status", 8 + 8),
        (lies.AcceptsAnything(), "status", 4),
        (lies.RefusesInProse(), "bytes", 4),
        (lies.WrongMediaType(), "metadata", 8 + 8),
        (lies.IgnoresLeaving(), "cancellation", 1),
        (lies.CutsLargeBodies(), "size", 1),
        (lies.HidesModels(), "bytes", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, HttpLie) else None,
)
def test_a_lie_is_found(lie: HttpLie, aspect: str, calls: int):
    told = found(lie, SIM if aspect == "cancellation" else AT_ONCE)

    assert len(told.get(aspect, ())) >= calls, told


def test_what_does_not_work_directly_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_run, "_LONG_ENOUGH_S", math.inf)  # an answer at once is short on a busy machine too

    async def main() -> None:
        async with engine(AT_ONCE) as quick:
            report = await verified(quick, quick)
            assert report.passed
            (skipped,) = report.skipped
            assert "a long answer ends by itself after" in skipped
            plain = HttpServer(_nothing, name="nothing", host="127.0.0.1", port=0)
            async with asyncio.TaskGroup() as tasks:
                nothing = f"127.0.0.1:{await plain.start(tasks)}"
                try:
                    report = await verified(nothing, quick)
                    assert not report.passed
                    assert "chat: /v1/chat/completions does not work directly (status 404)" in report.skipped
                    assert any(reason.startswith("models: ") for reason in report.skipped)
                    assert any(reason.startswith("300000 bytes: ") for reason in report.skipped)
                    report = await verified(quick, nothing)
                    assert report.tallies["status"].failed > 4
                    assert not report.passed
                finally:
                    await plain.stop(1)

    run_real(main())


async def _nothing(scope: object, receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"nothing here"})  # type: ignore[operator]


class Unsteady(HttpLie):
    """An engine that never says the same twice, in one field."""

    said = 0

    def events(self, events: list[bytes]) -> list[bytes]:
        self.said += 1
        return [event.replace(b"[sim]", b"[%d]" % self.said) for event in events]


def test_an_engine_that_does_not_repeat_itself_is_no_fault_of_the_proxy():
    async def main() -> None:
        async with engine(AT_ONCE) as steady, http_proxy(f"http://{steady}", Unsteady()) as direct:
            report = await verified(direct, direct)
            assert report.findings == []
            assert "stream 1: the direct side does not repeat its own answer" in report.skipped

    run_real(main())


def test_a_proxy_that_breaks_off_or_hangs_is_found():
    class Hangs(HttpLie):
        def whole(self, path: str, body: bytes) -> bytes:
            if path == "/tokenize":
                raise ConnectionError("the proxy breaks")
            return body

    async def main() -> None:
        async with engine(AT_ONCE) as direct, http_proxy(f"http://{direct}", Hangs()) as proxy:
            report = await verified(direct, proxy, PLAN._replace(apis=frozenset({"llamacpp"})))
            assert [(finding.aspect, finding.call) for finding in report.findings][:1] == [("answered", "tokenize")]

    run_real(main())


class NoSlots(HttpLie):
    """An engine that tells nothing of its slots."""

    def __init__(self, status: int, said: bytes) -> None:
        self.answer = status, said

    def status(self, path: str, status: int) -> int:
        return self.answer[0] if path == "/slots" else status

    def whole(self, path: str, body: bytes) -> bytes:
        return self.answer[1] if path == "/slots" else body


@pytest.mark.parametrize("lie", [NoSlots(200, b"no JSON"), NoSlots(404, b"{}"), NoSlots(200, b"{}")])
def test_without_slots_to_look_at_cancellation_is_left_out(lie: HttpLie):
    async def main() -> None:
        async with engine(AT_ONCE) as address, http_proxy(f"http://{address}", lie) as direct:
            report = await verified(direct, address, PLAN._replace(apis=frozenset({"llamacpp"}), calls=1))
            assert report.findings == []
            assert "cancellation: the direct side has no /v1/completions or no /slots" in report.skipped

    run_real(main())


class BreaksStreams(HttpLie):
    def events(self, events: list[bytes]) -> list[bytes]:
        raise ConnectionError("it breaks")


def test_a_side_whose_streams_break_is_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_run, "_LONG_ENOUGH_S", 0)  # the long stream does not even begin, however long it were

    async def main() -> None:
        async with engine(AT_ONCE) as good, http_proxy(f"http://{good}", BreaksStreams()) as bad:
            report = await verified(bad, good)
            assert report.findings == []
            assert any(reason.startswith("stream 1: the direct side failed (") for reason in report.skipped)
            report = await verified(good, bad)
            told = [(finding.aspect, finding.call) for finding in report.findings]
            assert ("answered", "stream 1") in told
            assert ("cancellation", "long stream") in told

    run_real(main())


def test_a_server_that_says_nothing_costs_one_timeout():
    async def main() -> None:
        async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                writer.close()

        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        side = HttpSide(f"127.0.0.1:{silent.sockets[0].getsockname()[1]}", key="", tls_ca="", timeout_s=0.1)
        try:
            answer = await side.send(long_stream(""))
            assert answer.status == 0
            assert answer.failure
            assert not await side.leave_early(long_stream(""))
            assert await side.busy_slots() is None
        finally:
            await side.close()
            silent.close()
            for task in leftover_tasks():
                task.cancel()

    run_real(main())


def test_a_direct_side_that_wants_another_key_is_told():
    class WantsAKey(HttpLie):
        def status(self, path: str, status: int) -> int:
            return 401

    async def main() -> None:
        async with engine(AT_ONCE) as good, http_proxy(f"http://{good}", WantsAKey()) as closed:
            report = await verified(closed, good, PLAN._replace(calls=1))
            assert "chat: /v1/chat/completions does not work directly (status 401)" in report.skipped

    run_real(main())


def test_nobody_there_is_an_error():
    async def main() -> None:
        async with engine() as direct:
            with pytest.raises(NeuroGateError, match=r"http://127\.0\.0\.1:1 does not answer"):
                await verified(direct, "127.0.0.1:1")
        with pytest.raises(NeuroGateError, match="--tls-ca"):
            HttpSide("https://127.0.0.1:1", key="", tls_ca="/no/such/file", timeout_s=1)

    run_real(main())
