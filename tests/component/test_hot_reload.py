"""A whole gateway that follows its file and SIGHUP."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from config_support import gateway_config
from neurogate.config import Source, settings_of
from neurogate.gateway import app
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.reload import Reloader
from neurogate.gateway.settings import GatewayConfig
from neurogate.telemetry import logging
from neurogate.testing.connections import FakeClient
from real_loop import eventually, run_real


class Running:
    """One Reloader at its work, and what it told."""

    def __init__(self, file: Path, **settings: Any) -> None:
        source = Source(GatewayConfig, base=gateway_config(config_poll_s=0.01, **settings), path=str(file))
        self.counted: list[str] = []
        self.reloader = Reloader(source.read(), now=lambda: 0.0, count=self.counted.append)

    async def run(self, test: Callable[[], Any]) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.reloader.run())
            await test()
            running.cancel()

    @property
    def retries(self) -> int:
        return self.reloader.config.gateway.retries


def test_a_changed_file_is_read_once_it_has_settled(tmp_path: Path) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}")

    async def main() -> None:
        made = Running(file)

        async def test() -> None:
            file.write_text("gateway: {retries: 4}")
            await eventually(lambda: made.retries == 4)
            assert made.counted == ["ok"]

        await made.run(test)

    run_real(main())


def test_a_file_that_is_still_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogate.gateway.reload.SETTLE_S", 0.1)
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}")

    async def main() -> None:
        made = Running(file)

        async def test() -> None:
            for text in ("gateway: {retries: 2}", "gateway: {retries: 2, ", "gateway: {retries: 3}"):
                file.write_text(text)
                await asyncio.sleep(0.06)
            await eventually(lambda: made.retries == 3)
            assert made.counted == ["ok"], "what was half written was never read"

        await made.run(test)

    run_real(main())


def test_a_wrong_file_is_told_of_once_and_a_swapped_link_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurogate.gateway.reload.SETTLE_S", 0.01)
    good, bad, link = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "n.yaml"
    good.write_text("gateway: {retries: 4}")
    bad.write_text("gateway: {retrise: 4}")
    link.write_text("gateway: {retries: 1}")

    def swap(to: Path) -> None:
        fresh = tmp_path / "fresh"
        fresh.symlink_to(to)
        fresh.replace(link)

    async def main() -> None:
        made = Running(link)

        async def test() -> None:
            swap(bad)
            await eventually(lambda: made.reloader.status()["status"] == "invalid")
            await asyncio.sleep(0.1)
            assert (made.counted, made.retries) == (["invalid"], 1)
            swap(good)
            await eventually(lambda: made.retries == 4)
            link.unlink()
            await eventually(lambda: made.reloader.status()["status"] == "invalid")
            assert (made.retries, made.counted) == (4, ["invalid", "ok", "invalid"])

        with capture_logs() as logs:
            await made.run(test)
        assert [log["log_level"] for log in logs] == ["error", "info", "error"]

    run_real(main())


def test_a_part_that_cannot_take_its_settings_does_not_keep_the_others_from_theirs(tmp_path: Path) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}")
    taken: list[int] = []

    def broken(_: GatewayConfig) -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        made = Running(file)
        made.reloader.subscribe(["gateway.retries"], broken)
        made.reloader.subscribe(["gateway"], lambda config: taken.append(config.gateway.retries))
        made.reloader.subscribe(["limits"], broken)
        file.write_text("gateway: {retries: 3}")
        with capture_logs() as logs:
            result = await made.reloader.reload("test")
        assert (result.changed, taken) == (("gateway.retries",), [3])
        assert [log["log_level"] for log in logs] == ["error", "info"]

    run_real(main())


@pytest.mark.parametrize("name", ["gateway.http_port", "gateway.nothing", "nothing"])
def test_nobody_can_wait_for_what_never_changes(name: str, tmp_path: Path) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("# nothing")

    async def main() -> None:
        with pytest.raises(ValueError, match=f"nothing that reloads is called {name}"):
            Running(file).reloader.subscribe([name, "gateway.retries"], lambda _: None)

    run_real(main())


def test_whatever_says_that_it_reloads_is_followed_by_somebody() -> None:
    read_anew = {"gateway.config_poll_s"}
    listeners = {key for key in settings_of(GatewayConfig) if key.startswith("http.")}  # followed where they are made

    async def main() -> None:
        followed = Gateway(gateway_config(), rng=random.Random(1), now_ns=lambda: 1).reloader.followed
        reloads = {key for key, setting in settings_of(GatewayConfig).items() if setting.reloads}
        assert reloads - listeners - read_anew == followed - listeners

    run_real(main())


def test_no_viewer_of_the_live_page_outlives_its_admin_key(tmp_path: Path) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("admin: {admin_key: [the-first-admin-key]}")

    async def main() -> None:
        effective = Source(GatewayConfig, base=gateway_config(), path=str(file)).read()
        made = Gateway(effective.config, rng=random.Random(1), now_ns=lambda: 1, effective=effective)

        def look(key: str) -> FakeClient:
            return FakeClient("/dashboard/events", method="GET", headers=[("authorization", f"Bearer {key}")])

        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(made.live.run())
            client = look("the-first-admin-key")
            asked = tasks.create_task(client.ask(made.ops_app))
            await eventually(lambda: bool(client.chunks))
            file.write_text("gateway: {retries: 4}\nadmin: {admin_key: [the-first-admin-key]}")
            await made.reloader.reload("test")
            assert made.live.viewers == 1

            file.write_text("admin: {admin_key: [another-admin-key]}")
            await made.reloader.reload("test")
            await asked

            assert client.complete
            assert (await look("the-first-admin-key").ask(made.ops_app)).status == 401
            again = look("another-admin-key")
            asked = tasks.create_task(again.ask(made.ops_app))
            await eventually(lambda: bool(again.chunks))
            again.leave()
            await asked
            made.live.stop()
            await showing

    run_real(main())


def test_a_served_gateway_follows_sighup(tmp_path: Path) -> None:
    file = tmp_path / "n.toml"
    file.write_text('[gateway]\nworker_addresses = ["127.0.0.1:1"]\nlog_level = "error"\n')
    before = structlog.get_config()

    async def main() -> None:
        base = gateway_config(
            host="127.0.0.1", http_port=0, metrics_port=0, grpc_port=-1, grpc_tls_port=-1, health_port=-1
        )
        effective = Source(GatewayConfig, base=base, path=str(file)).read()
        stopping, ports = asyncio.Event(), asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                app.serve(
                    effective.config,
                    stopping,
                    on_ports=lambda http, ops, *_: ports.set_result((http, ops)),
                    effective=effective,
                )
            )
            http, _ = await ports
            file.write_text(
                '[gateway]\nworker_addresses = ["127.0.0.1:1", "127.0.0.1:2"]\nlog_level = "warn"\n'
                '[http]\ncors_origins = ["https://page.example"]\n'
            )
            os.kill(os.getpid(), signal.SIGHUP)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http}") as client:
                while (await client.get("/workers")).json()["count"] != 2:
                    await asyncio.sleep(0)
                health = await client.get("/health", headers={"Origin": "https://page.example"})
                assert health.json()["config"]["status"] == "ok"
                assert health.headers["access-control-allow-origin"] == "https://page.example"
            stopping.set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    hangup = signal.getsignal(signal.SIGHUP)
    try:
        run_real(main())
    finally:
        signal.signal(signal.SIGHUP, hangup)
        structlog.configure(**before)


def test_a_served_gateway_tells_of_a_key_file_that_breaks_until_it_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "api_keys.txt"
    file.write_text("alice:sk-alice-xyz789\n")

    async def main() -> None:
        config = gateway_config(
            host="127.0.0.1",
            http_port=0,
            metrics_port=0,
            grpc_port=-1,
            grpc_tls_port=-1,
            keys_file=str(file),
            keys_poll_s=0.01,
        )
        stopping, ports = asyncio.Event(), asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(app.serve(config, stopping, on_ports=lambda http, ops, *_: ports.set_result((http, ops))))
            http, ops = await ports
            async with httpx.AsyncClient() as client:

                async def told() -> Any:
                    return (await client.get(f"http://127.0.0.1:{http}/health")).json()["config"]

                file.write_bytes(b"\xff")
                while (await told())["status"] == "ok":
                    await asyncio.sleep(0.01)
                assert "is not UTF-8 text; the keys of before stay" in (await told())["error"]
                file.write_text("bob:sk-prod-abc123\n")
                while (await told())["status"] == "invalid":
                    await asyncio.sleep(0.01)
                metrics = (await client.get(f"http://127.0.0.1:{ops}/metrics")).text
            assert 'neurogate_gateway_config_reloads_total{result="invalid"} 1.0' in metrics
            assert 'neurogate_gateway_config_reloads_total{result="ok"} 1.0' in metrics
            stopping.set()

    run_real(main())


def test_the_level_of_the_log_changes_while_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    root = logging.logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logging.configure(level="error", form="json", process="test")
        log = structlog.get_logger("test")
        log.info("unheard")
        logging.set_level("info")
        log.info("heard")
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
        root.handlers[:] = handlers
        root.setLevel(level)

    told = capsys.readouterr().err
    assert "unheard" not in told
    assert '"event":"heard"' in told
