"""The settings select the engine, and only its own modules are imported."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neurogate.engines.engine import Engine
from neurogate.engines.factory import build
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.settings import DEFAULT_MODEL, EngineSettings, SimSettings
from neurogate.errors import ConfigError, NeuroGateError


def built(resolved: list[str] | None = None, **fields: Any) -> Engine:
    def resolve_model(reference: str) -> tuple[str, Path]:
        if resolved is not None:
            resolved.append(reference)
        return reference.lower(), Path("/models/x.gguf")

    return build(
        EngineSettings(**fields), SimSettings(), resolve_model=resolve_model, rng=random.Random(1), now=lambda: 0.0
    )


@pytest.mark.parametrize(
    ("fields", "kind", "shown"),
    [
        ({}, "llamacpp", "smollm2-135m-instruct"),
        ({"engine": "sim"}, "sim", ""),
        ({"engine": "openai", "url": "http://vllm:8000/v1/"}, "openai", "http://vllm:8000 "),
        ({"engine": "llama-server", "url": "http://127.0.0.1:8080"}, "llama-server", "http://127.0.0.1:8080 "),
        ({"engine": "ollama"}, "ollama", "http://localhost:11434 "),
        ({"ollama_url": "http://gpu:11434"}, "ollama", "http://gpu:11434 "),
        ({"engine": "ollama", "url": "http://a:1", "ollama_url": "http://b:2"}, "ollama", "http://a:1 "),
    ],
)
def test_each_kind_is_built_for_its_url(fields: dict[str, Any], kind: str, shown: str) -> None:
    engine = built(**fields)

    assert engine.kind == kind
    assert shown in repr(engine)


@pytest.mark.parametrize(
    ("fields", "slots"),
    [
        ({}, 4),
        ({"slots": 9}, 9),
        ({"engine": "openai", "url": "http://127.0.0.1:1"}, 0),
        ({"engine": "openai", "url": "http://127.0.0.1:1", "slots": 9}, 9),
        ({"engine": "ollama", "url": "http://127.0.0.1:1"}, 0),
        ({"engine": "llama-server", "url": "http://127.0.0.1:1"}, 0),
    ],
)
def test_slots_are_known_of_a_managed_engine_and_where_they_are_said(fields: dict[str, Any], slots: int) -> None:
    async def main() -> None:
        engine = built(**fields)
        if not isinstance(engine, ManagedLlamaCppEngine):
            await engine.start()
        try:
            assert (await engine.observe()).slots_total == slots
        finally:
            await engine.stop()

    asyncio.run(main())


@pytest.mark.parametrize(("model", "reference"), [("", DEFAULT_MODEL), ("Tiny", "Tiny")])
def test_a_managed_engine_resolves_its_model(model: str, reference: str) -> None:
    resolved: list[str] = []

    built(resolved, model=model)

    assert resolved == [reference]


def test_other_engines_resolve_no_model() -> None:
    resolved: list[str] = []

    built(resolved, engine="ollama", model="llama3.2")

    assert resolved == []


@pytest.mark.parametrize("engine", ["openai", "llama-server"])
def test_an_external_engine_without_a_url_is_a_config_error(engine: str) -> None:
    with pytest.raises(ConfigError, match="NEUROGATE_ENGINE_URL"):
        built(engine=engine)


def test_a_model_that_cannot_be_had_is_a_config_error_that_names_the_setting() -> None:
    def resolve_model(reference: str) -> tuple[str, Path]:
        raise NeuroGateError(f"there is no model {reference!r}")

    with pytest.raises(ConfigError, match="NEUROGATE_MODEL: there is no model 'nope'"):
        build(
            EngineSettings(model="nope"),
            SimSettings(),
            resolve_model=resolve_model,
            rng=random.Random(1),
            now=lambda: 0.0,
        )


def test_a_config_error_of_the_models_own_settings_stays_as_it_is() -> None:
    def resolve_model(reference: str) -> tuple[str, Path]:
        raise ConfigError(f"NEUROGATE_MODEL_DIR: nowhere to keep {reference}")

    with pytest.raises(ConfigError, match=r"^NEUROGATE_MODEL_DIR"):
        build(EngineSettings(), SimSettings(), resolve_model=resolve_model, rng=random.Random(1), now=lambda: 0.0)


@pytest.mark.parametrize("path", ["/v1/images", "/prompt", "/v1/chat/completions"])
def test_an_api_that_no_engine_may_have_is_a_config_error(path: str) -> None:
    with pytest.raises(ConfigError, match=f"NEUROGATE_ENGINE_APIS: '{path}' is not one of /v1/responses"):
        built(engine="openai", url="http://vllm:8000", apis=(path,))


@pytest.mark.parametrize("fields", [{"engine": "sim"}, {}, {"engine": "ollama"}])
def test_building_an_engine_imports_no_engines_library(fields: dict[str, Any]) -> None:
    script = f"""
import random, sys
from pathlib import Path
from neurogate.engines.factory import build
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.settings import EngineSettings, SimSettings
build(EngineSettings(**{fields!r}), SimSettings(), resolve_model=lambda name: (name, Path("x")),
      rng=random.Random(1), now=lambda: 0.0)
heavy = {{"xllamacpp", "ollama", "httpx"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
