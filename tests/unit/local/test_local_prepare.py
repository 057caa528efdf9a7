"""Before a fleet starts, its settings are checked and its model is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurogate.engines.llamacpp.cores import usable_cores
from neurogate.errors import ConfigError
from neurogate.local.banner import key
from neurogate.local.plan import FleetRequest
from neurogate.local.prepare import prepare


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "NEUROGATE_ENGINE", "OLLAMA_URL", "NEUROGATE_MODEL", "NEUROGATE_ENGINE_THREADS", "API_KEYS", "AUTH_KEYS_FILE",
        "NEUROGATE_CONFIG",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NEUROGATE_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HTTP_PORT", "0")


def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "Mine.gguf"
    file.write_bytes(b"GGUF")
    return file


def test_managed_engine_gets_its_model_and_a_share_of_the_cores(tmp_path, console):
    request = FleetRequest(workers=64, keys=("k",), settings={"NEUROGATE_MODEL": str(model_file(tmp_path))})

    made = prepare(request, console)

    assert (made.engine, made.model, made.gateway.keys.api_keys) == ("llamacpp", "mine", ("k",))
    assert made.plan.workers[63].environment["NEUROGATE_ENGINE_THREADS"] == "1"
    assert made.directory.parent == tmp_path / "state" / "neurogate" / "runs"


def test_cores_are_counted_where_the_system_does_not_tell_the_usable_ones(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)

    assert usable_cores() == 1


def test_threads_that_were_asked_for_stay(tmp_path, console, monkeypatch):
    monkeypatch.setenv("NEUROGATE_ENGINE_THREADS", "3")
    monkeypatch.setenv("NEUROGATE_MODEL", str(model_file(tmp_path)))

    made = prepare(FleetRequest(workers=1), console)

    assert "NEUROGATE_ENGINE_THREADS" not in made.plan.workers[0].environment


def test_external_engine_needs_no_model_file(console, monkeypatch):
    monkeypatch.setenv("API_KEYS", "first,second")

    made = prepare(FleetRequest(workers=1, settings={"OLLAMA_URL": "http://127.0.0.1:1"}), console)

    assert (made.engine, made.model, key(made.gateway.keys)) == ("ollama", "", "first")
    assert made.plan.workers[0].environment["OLLAMA_URL"] == "http://127.0.0.1:1"


def test_wrong_setting_is_told_before_anything_starts(console):
    with pytest.raises(ConfigError, match="--engine-slots"):
        prepare(FleetRequest(workers=1, settings={"NEUROGATE_ENGINE_SLOTS": "many"}), console)


def test_unknown_model_is_told_before_anything_starts(console):
    with pytest.raises(ConfigError, match="NEUROGATE_MODEL: there is no model 'nothing'"):
        prepare(FleetRequest(workers=1, settings={"NEUROGATE_MODEL": "nothing"}), console)


def test_file_that_is_named_serves_every_process(tmp_path, console):
    file = tmp_path / "fleet.yaml"
    file.write_text("engine: {engine: sim}\nkeys: {api_keys: [from-the-file]}\n")

    made = prepare(FleetRequest(workers=2, settings={"NEUROGATE_CONFIG": str(file)}), console)

    assert (made.engine, made.gateway.keys.api_keys) == ("sim", ("from-the-file",))
    children = (made.plan.gateway, *made.plan.workers)
    assert [child.environment["NEUROGATE_CONFIG"] for child in children] == [str(file)] * 3
