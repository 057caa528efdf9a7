"""`neurogate verify --grpc`: passes where nothing differs, through a gateway too, and finds every kind of lie."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import lying_proxies as lies
from fleet_in_process import KEY, Fleet, fleet
from grpc_support import EchoWorker, listening
from lying_proxies import GrpcLie, grpc_proxy
from neurogate.engines.settings import SimSettings
from neurogate.errors import NeuroGateError
from neurogate.rpc import verify_messages as wire
from neurogate.verify.grpc_run import GrpcPlan, verify_grpc
from neurogate.verify.grpc_side import GrpcSide
from neurogate.verify.report import Report
from real_loop import run_real

SLOW = SimSettings(prefill_tps=0, decode_tps=60, slots=64)
QUICK = SimSettings(prefill_tps=0, decode_tps=640, slots=64)
"""Too quick to see whether a call ends early: those lies need the slow one."""
PLAN = GrpcPlan(calls=8, concurrency=8, model="", size_bytes=2 << 20)


def address_of(made: Fleet) -> str:
    """The worker's own."""
    return made.gateway.pool.snapshot.members[0].endpoint.address


@asynccontextmanager
async def worker(sim: SimSettings) -> AsyncIterator[str]:
    async with fleet(1, sim=sim) as made:
        yield address_of(made)


async def verified(direct: str, proxy: str, plan: GrpcPlan = PLAN) -> Report:
    one, other = (GrpcSide(address, key=KEY, tls_ca="", timeout_s=20) for address in (direct, proxy))
    try:
        return await verify_grpc(one, other, plan)
    finally:
        await one.close()
        await other.close()


def found(lie: GrpcLie, sim: SimSettings = QUICK) -> dict[str, list[str]]:
    """What is found about a lie: the calls by aspect."""

    async def main() -> Report:
        async with worker(sim) as direct, grpc_proxy(direct, lie) as proxy:
            return await verified(direct, proxy)

    return by_aspect(run_real(main()))


def by_aspect(report: Report) -> dict[str, list[str]]:
    assert report.passed is not bool(report.findings)
    aspects: dict[str, list[str]] = {}
    for finding in report.findings:
        aspects.setdefault(finding.aspect, []).append(finding.call)
    return aspects


def test_a_gateway_is_like_its_worker_with_64_streams_at_once():
    async def main() -> None:
        async with fleet(1, sim=SLOW) as made, listening(made.gateway) as (address, _):
            plan = PLAN._replace(
                calls=64, concurrency=64, size_bytes=9 << 20, methods=("/grpc.health.v1.Health/Check",)
            )
            report = await verified(address_of(made), address, plan)
            assert report.passed, report.as_text()
            assert report.skipped == []
            assert report.tallies["cross-talk"].compared == 64
            assert set(report.tallies) == {
                "status", "metadata", "trailers", "count", "order", "bytes", "size", "deadline", "cancellation",
                "cross-talk",
            }  # fmt: skip

    run_real(main())


def test_an_honest_proxy_passes():
    assert found(GrpcLie()) == {}


@pytest.mark.parametrize(
    ("lie", "aspect", "calls"),
    [
        (lies.DropsAMessage(), "count", 8 - 3),
        (lies.ReordersMessages(), "order", 8 - 3),
        (lies.ChangesAMessage(), "bytes", 8),
        (lies.SwapsAnswers(), "cross-talk", 4),
        (lies.WrongCode(), "status", 2),
        (lies.SmallMessagesOnly(), "size", 1),
        (lies.SmallMessagesOnly(), "status", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, GrpcLie) else None,
)
def test_a_lie_is_found(lie: GrpcLie, aspect: str, calls: int):
    told = found(lie)

    assert len(told.get(aspect, ())) >= calls, told


def test_a_proxy_that_does_not_pass_on_that_its_client_is_gone_is_found():
    told = found(lies.IgnoresCancelling(), SLOW)

    assert len(told["deadline"]) == 2
    assert len(told["cancellation"]) == 1


@pytest.mark.parametrize(
    ("lie", "aspect"),
    [(GrpcLie(), ""), (lies.LosesTrailers(), "trailers"), (lies.LosesMetadata(), "metadata")],
    ids=lambda value: type(value).__name__ if isinstance(value, GrpcLie) else None,
)
def test_metadata_and_trailers_of_other_methods_are_compared(lie: GrpcLie, aspect: str):
    async def main() -> Report:
        echo = EchoWorker()
        try:
            direct = await echo.start()
            async with grpc_proxy(direct, lie) as proxy:
                plan = PLAN._replace(methods=("/test.Echo/Unary", "/test.Echo/Both"))
                report = await verified(direct, proxy, plan)
                assert ("x-verify-bin", b"\x00\xff\x80") in echo.echo.metadata[-1].items()
                return report
        finally:
            await echo.stop()

    found_in = by_aspect(run_real(main()))
    assert found_in.keys() == ({aspect} if aspect else set())
    assert "/test.Echo/Unary" in found_in.get(aspect, ["/test.Echo/Unary"])


class Recounts(GrpcLie):
    """A worker that puts the same text into other messages every time: an unknown field is of one length or another."""

    calls = 0

    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        self.calls += 1
        if method in {wire.HEALTH, wire.STATUS}:
            return messages
        return [message + b"\xfa\x7f\x01" + b"%d" % (self.calls % 10) for message in messages]


class Rewords(Recounts):
    """A worker that never says the same twice."""

    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        self.calls += 1
        return [message.replace(b"[sim]", b"[%03d]" % self.calls) for message in messages]


def test_a_worker_that_does_not_repeat_itself_is_no_fault_of_the_proxy():
    async def main() -> None:
        async with worker(QUICK) as steady:
            async with grpc_proxy(steady, Recounts()) as recounting:
                report = await verified(recounting, recounting)
                assert report.findings == []
                assert not any("does not repeat" in reason for reason in report.skipped)
            async with grpc_proxy(steady, Rewords()) as direct:
                report = await verified(direct, direct)
                assert report.findings == []
                assert "stream 1: the direct side does not repeat its own answer" in report.skipped

    run_real(main())


class NotTaken(GrpcLie):
    """A worker that takes nothing large, and tells nothing of itself."""

    max_bytes = 1 << 20

    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        return [] if method == wire.STATUS else messages


def test_what_does_not_work_directly_is_left_out_and_told():
    async def main() -> None:
        async with worker(QUICK) as address, grpc_proxy("127.0.0.1:1", GrpcLie()) as dead:
            report = await verified(dead, address)
            assert not report.passed
            assert any(reason.startswith("unary: does not work directly (UNAVAILABLE") for reason in report.skipped)
            assert f"ending {wire.STREAM_TEXT}: it does not work directly, or {wire.STATUS} does not" in report.skipped
            async with grpc_proxy(address, NotTaken()) as closed:
                report = await verified(closed, address, PLAN._replace(calls=1))
                assert any("not taken directly (RESOURCE_EXHAUSTED" in reason for reason in report.skipped)

    run_real(main())


def test_a_proxy_through_which_nothing_begins_is_found():
    async def main() -> None:
        async with worker(SLOW) as address, grpc_proxy("127.0.0.1:1", GrpcLie()) as dead:
            report = by_aspect(await verified(address, dead, PLAN._replace(calls=1)))
            assert (len(report["deadline"]), len(report["cancellation"])) == (2, 1)

    run_real(main())


def test_nobody_there_is_an_error(tmp_path: Path):
    async def main() -> None:
        side = GrpcSide("127.0.0.1:1", key="", tls_ca="", timeout_s=0.2)
        try:
            with pytest.raises(NeuroGateError, match="does not answer gRPC"):
                await side.reach()
        finally:
            await side.close()
        authority = tmp_path / "ca.pem"
        authority.write_text("of nobody")
        secure = GrpcSide("https://127.0.0.1:1", key="", tls_ca=str(authority), timeout_s=0.2)
        try:
            with pytest.raises(NeuroGateError, match=r"https://127\.0\.0\.1:1 does not answer gRPC"):
                await secure.reach()
        finally:
            await secure.close()
        with pytest.raises(NeuroGateError, match="--tls-ca"):
            GrpcSide("https://127.0.0.1:1", key="", tls_ca="/no/such/file", timeout_s=1)
        assert wire.unstamped(wire.STREAM_TEXT, b"\xff") == b"\xff"

    run_real(main())
