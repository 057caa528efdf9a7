"""What `neurogate check` finds is what the start of a process says, in the same words, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from neurogate.config import Source
from neurogate.engines import factory
from neurogate.errors import ConfigError
from neurogate.gateway import app as gateway
from neurogate.gateway import handover
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.checks import findings as of_gateway
from neurogate.gateway.settings import GatewayConfig
from neurogate.telemetry.log_files import boot_log
from neurogate.worker import app as worker
from neurogate.worker.checks import findings as of_worker
from neurogate.worker.settings import WorkerConfig
from tls_support import Pki

Variables = dict[str, str]


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def problems_of_gateway(variables: Variables) -> list[str]:
    return of_gateway(gateway_config(variables), now=time.time).problems


def problems_of_worker(variables: Variables) -> list[str]:
    return of_worker(worker_config(variables), now=time.time).problems


def gateway_config(variables: Variables) -> GatewayConfig:
    return Source(GatewayConfig, environ=variables, others=[WorkerConfig]).read().config


def worker_config(variables: Variables) -> WorkerConfig:
    return Source(WorkerConfig, environ=variables, others=[GatewayConfig]).read().config


def start_gateway(variables: Variables) -> None:
    config = gateway_config(variables)
    with boot_log(config.logs, host="here", now=time.time):
        asyncio.run(gateway.serve(config, asyncio.Event()))


def start_worker(variables: Variables) -> None:
    config = worker_config(variables)

    async def main() -> None:
        engine = factory.build(
            config.engine,
            config.sim,
            resolve_model=lambda name: (name, Path(name)),
            rng=random.Random(1),
            now=time.time,
        )
        await worker.serve(config.worker, engine, asyncio.Event(), tls=config.link_tls)

    with boot_log(config.logs, host="here", now=time.time):
        asyncio.run(main())


def words_of(start: Callable[[Variables], None], variables: Variables) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        start(variables)
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("variables", "setting"),
    [
        ({"REDIS_URL": "http://h"}, "REDIS_URL"),
        ({"NEUROGATE_MODEL_ALIASES": "nope"}, "NEUROGATE_MODEL_ALIASES"),
        ({"NEUROGATE_MODEL_ALIASES": "a=b,b=a"}, "NEUROGATE_MODEL_ALIASES"),
        ({"NEUROGATE_TRUSTED_PROXIES": "foo"}, "NEUROGATE_TRUSTED_PROXIES"),
        ({"NEUROGATE_TLS_CERT": "/nonexistent"}, "NEUROGATE_TLS_KEY"),
        ({"NEUROGATE_TLS_CERT": "/nonexistent", "NEUROGATE_TLS_KEY": "/nonexistent"}, "NEUROGATE_TLS_CERT"),
        ({"NEUROGATE_TLS_CLIENT_CA": "/nonexistent"}, "NEUROGATE_TLS_CERT"),
        ({"NEUROGATE_LINK_TLS_CA": "/nonexistent"}, "NEUROGATE_LINK_TLS_CA"),
        ({"NEUROGATE_LINK_TLS_CERT": "/c", "NEUROGATE_LINK_TLS_KEY": "/k"}, "NEUROGATE_LINK_TLS_CA"),
        ({"NEUROGATE_ACCESS_LOG": "/tmp"}, "NEUROGATE_ACCESS_LOG"),
        ({"NEUROGATE_ACCESS_LOG": "/dev/null/a/access.log"}, "NEUROGATE_ACCESS_LOG"),
        ({"NEUROGATE_LOG_DIR": "/dev/null/logs"}, "NEUROGATE_LOG_DIR"),
        ({"NEUROGATE_TAKEOVER_SOCKET": "/nonexistent/gateway.sock"}, "NEUROGATE_TAKEOVER_SOCKET"),
    ],
)
def test_a_gateway_refuses_what_its_check_refuses(variables: Variables, setting: str) -> None:
    (problem,) = problems_of_gateway(variables)

    assert problem.startswith(f"{setting}: ")
    assert words_of(start_gateway, variables) == [problem]


def test_a_takeover_socket_is_refused_where_the_platform_lacks_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = {"NEUROGATE_TAKEOVER_SOCKET": str(tmp_path / "gateway.sock")}
    assert problems_of_gateway(variables) == []
    monkeypatch.setattr(handover, "lacking", lambda: "darwin has no SO_PEERCRED")
    assert problems_of_gateway({}) == []
    (problem,) = problems_of_gateway(variables)

    assert problem == (
        "NEUROGATE_TAKEOVER_SOCKET: gateways take over from each other on Linux only: darwin has no SO_PEERCRED"
    )
    assert words_of(start_gateway, variables) == [problem]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "setting"),
    [
        ({"NEUROGATE_ENGINE": "sim", "NEUROGATE_SIM_FAULTS": "foo=1"}, "NEUROGATE_SIM_FAULTS: "),
        ({"NEUROGATE_ENGINE": "openai", "NEUROGATE_ENGINE_URL": "nope"}, "'nope' is no URL of an engine: "),
        ({"NEUROGATE_ENGINE": "llama-server", "NEUROGATE_ENGINE_URL": "nope"}, "'nope' is no URL of an engine: "),
        ({"OLLAMA_URL": "nope"}, "'nope' is no URL of an engine: "),
        ({"NEUROGATE_ENGINE": "sim", "NEUROGATE_LINK_TLS_CA": "/nonexistent"}, "NEUROGATE_LINK_TLS_CERT: "),
        ({"NEUROGATE_ENGINE": "sim", "NEUROGATE_LINK_TLS_CERT": "/nonexistent"}, "NEUROGATE_LINK_TLS_KEY: "),
        ({"NEUROGATE_ENGINE": "sim", "NEUROGATE_LOG_DIR": "/dev/null/logs"}, "NEUROGATE_LOG_DIR: "),
    ],
)
def test_a_worker_refuses_what_its_check_refuses(variables: Variables, setting: str) -> None:
    (problem,) = problems_of_worker(variables)

    assert problem.startswith(setting)
    assert words_of(start_worker, variables) == [problem]


@pytest.mark.parametrize(
    "setting", ["NEUROGATE_LLAMA_SERVER_BIN", "NEUROGATE_ENGINE_CHAT_TEMPLATE", "NEUROGATE_ENGINE_MMPROJ"]
)
def test_files_of_a_managed_engine_must_be_there(setting: str) -> None:
    (problem,) = problems_of_worker({setting: "/nonexistent"})

    assert problem.startswith(f"{setting}: ")


def test_a_key_of_another_certificate_is_found_on_both_sides(pki: Pki) -> None:
    (cert, key), (other, _) = pki.issue("gateway"), pki.issue("other")
    public = {"NEUROGATE_TLS_CERT": other, "NEUROGATE_TLS_KEY": key}
    link = {"NEUROGATE_LINK_TLS_CERT": other, "NEUROGATE_LINK_TLS_KEY": key, "NEUROGATE_LINK_TLS_CA": pki.ca}

    for variables in (public, link):
        (problem,) = problems_of_gateway(variables)
        assert f"is not the key of the certificate in {other}" in problem
        assert words_of(start_gateway, variables) == [problem]
    assert problems_of_worker({**link, "NEUROGATE_ENGINE": "sim"}) == [problem]
    assert problems_of_gateway({"NEUROGATE_TLS_CERT": cert, "NEUROGATE_TLS_KEY": key}) == []


def test_all_that_is_wrong_is_found_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    found = of_gateway(
        gateway_config(
            {
                "REDIS_URL": "http://h",
                "NEUROGATE_MODEL_ALIASES": "nope",
                "NEUROGATE_LOG_DIR": str(tmp_path / "logs"),
                "NEUROGATE_ACCESS_LOG": str(tmp_path / "access" / "log"),
            }
        ),
        now=time.time,
    )

    assert [problem.partition(":")[0] for problem in found.problems] == ["NEUROGATE_MODEL_ALIASES", "REDIS_URL"]
    assert list(tmp_path.iterdir()) == []


def test_defaults_and_what_works_are_neither_wrong_nor_unwise(pki: Pki, tmp_path: Path) -> None:
    cert, key = pki.issue("both")
    Path(key).chmod(0o600)
    link = {"NEUROGATE_LINK_TLS_CERT": cert, "NEUROGATE_LINK_TLS_KEY": key, "NEUROGATE_LINK_TLS_CA": pki.ca}
    of_both = [
        *(of_gateway(gateway_config(variables), now=time.time) for variables in ({}, link, {"REDIS_URL": "redis://h"})),
        of_gateway(gateway_config({"NEUROGATE_ACCESS_LOG": "-"}), now=time.time),
        *(of_worker(worker_config(variables), now=time.time) for variables in ({}, link, {"OLLAMA_URL": "http://h:1"})),
    ]

    assert [(found.problems, found.warnings) for found in of_both] == [([], [])] * len(of_both)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"AUTH_KEYS_FILE": "/nonexistent"}, ["AUTH_KEYS_FILE: /nonexistent cannot be read", "AUTH_ENABLED: "]),
        ({"AUTH_ENABLED": "true"}, ["AUTH_ENABLED: authentication is on and there are no keys"]),
        ({"API_KEYS": "abc"}, ["API_KEYS: key-1 is shorter than"]),
    ],
)
def test_what_fails_closed_is_a_warning(variables: Variables, told: list[str]) -> None:
    found = of_gateway(gateway_config(variables), now=time.time)

    assert found.problems == []
    assert len(found.warnings) == len(told)
    assert all(warning.startswith(start) for warning, start in zip(found.warnings, told, strict=True))


def test_a_gateway_logs_names_that_somebody_may_have_taken_for_settings() -> None:
    effective = Source(GatewayConfig, environ={"WORKER_ADDRESS": "box:50051"}).read()

    async def main() -> None:
        Gateway(effective.config, rng=random.Random(1), now_ns=time.time_ns, effective=effective)

    with capture_logs() as logs:
        asyncio.run(main())

    assert [entry["problem"] for entry in logs if entry["event"] == "settings"] == [
        "WORKER_ADDRESS: is no setting and is not read (did you mean WORKER_ADDRESSES?)"
    ]


def test_a_certificate_that_is_over_is_a_warning(tmp_path: Path) -> None:
    old = Pki(tmp_path / "old", now=time.time() - 90 * 86_400, days=30)
    cert, key = old.issue("gateway")
    Path(key).chmod(0o600)

    found = of_gateway(gateway_config({"NEUROGATE_TLS_CERT": cert, "NEUROGATE_TLS_KEY": key}), now=time.time)

    assert found.problems == []
    assert [warning for warning in found.warnings if "expired" in warning] == found.warnings != []
