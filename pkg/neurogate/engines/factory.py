"""The engine that the settings select, built. Only its own modules are imported: a worker starts fast."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from neurogate.engines.engine import Engine, EngineFatalError
from neurogate.engines.settings import DEFAULT_MODEL, EngineSettings, SimSettings
from neurogate.errors import ConfigError, NeuroGateError

if TYPE_CHECKING:
    from neurogate.engines.llamacpp.process import Log

EngineT = TypeVar("EngineT")


def build(
    settings: EngineSettings,
    sim: SimSettings,
    *,
    resolve_model: Callable[[str], tuple[str, Path]],
    rng: random.Random,
    now: Callable[[], float],
    log_of: Callable[[str], Log | None] = lambda _: None,
    mend_model: Callable[[Path, threading.Event], str] = lambda _path, _stop: "",
) -> Engine:
    """An engine that is not started yet.

    `resolve_model` gives a model's name and file for what the settings name; it is called for a managed engine only,
    may fetch the file and raises a NeuroGateError when it cannot. `log_of` gives a managed engine's log by its model's
    name, None for the usual one. `mend_model` puts a managed engine's file right; see ManagedLlamaCppEngine. `rng` and
    `now` (Unix seconds) are for the simulated engine. Raises ConfigError for settings that contradict each other, and
    for a model that cannot be had.
    """
    match settings.kind:
        case "llamacpp":
            from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine

            name, path = _resolved(resolve_model, settings.model or DEFAULT_MODEL)
            return ManagedLlamaCppEngine(settings, path, name, log=log_of(name), mend=mend_model)
        case "sim":
            from neurogate.engines.sim.engine import SimEngine

            return SimEngine(sim, model=settings.model or "sim", rng=rng, now=now)
        case "ollama":
            from neurogate.engines.ollama import DEFAULT_URL, OllamaEngine

            return _external(OllamaEngine, settings.url or settings.ollama_url or DEFAULT_URL, settings)
        case "llama-server":
            from neurogate.engines.llama_server import LlamaServerEngine

            return _external(LlamaServerEngine, settings.url, settings)
        case "openai":
            from neurogate.engines.http import OPENAI_PATHS
            from neurogate.engines.openai import OpenAIEngine

            return _external(OpenAIEngine, settings.url, settings, paths=OPENAI_PATHS | set(settings.apis))


def check(settings: EngineSettings, sim: SimSettings) -> None:
    """Raise ConfigError for what the engine's start would refuse, as far as settings and small files tell."""
    match settings.kind:
        case "llamacpp":
            from neurogate.engines.llamacpp.engine import check_files

            look: Callable[[], object] = partial(check_files, settings)
        case "sim":
            from neurogate.engines.sim import faults

            look = partial(faults.parse, sim.faults)
        case "ollama":
            from neurogate.engines.ollama import DEFAULT_URL, OllamaEngine

            look = _external(OllamaEngine, settings.url or settings.ollama_url or DEFAULT_URL, settings).check
        case "llama-server":
            from neurogate.engines.llama_server import LlamaServerEngine

            look = _external(LlamaServerEngine, settings.url, settings).check
        case "openai":
            from neurogate.engines.openai import OpenAIEngine

            look = _external(OpenAIEngine, settings.url, settings).check
    try:
        look()
    except EngineFatalError as error:
        raise ConfigError(str(error)) from error


def _resolved(resolve_model: Callable[[str], tuple[str, Path]], reference: str) -> tuple[str, Path]:
    try:
        return resolve_model(reference)
    except ConfigError:
        raise
    except NeuroGateError as error:
        raise ConfigError(f"NEUROGATE_MODEL: {error}") from error


def _external(engine: Callable[..., EngineT], url: str, settings: EngineSettings, **more: frozenset[str]) -> EngineT:
    return engine(
        url,
        model=settings.model,
        api_key=settings.api_key,
        slots=settings.slots,
        connect_timeout_s=settings.connect_timeout_s,
        **more,
    )
