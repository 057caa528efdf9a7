"""What must be there before a fleet starts: sound settings, the model, a share of the CPU, a place for logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from neurogate.config import load
from neurogate.engines.llamacpp.cores import usable_cores
from neurogate.engines.settings import DEFAULT_MODEL
from neurogate.errors import ConfigError
from neurogate.gateway.settings import GatewayConfig
from neurogate.local.plan import FleetPlan, FleetRequest, fair_threads, plan
from neurogate.local.run_directory import StateSettings, new_run_directory
from neurogate.local.sources import source
from neurogate.models.errors import ModelError
from neurogate.models.progress import shown
from neurogate.models.store import ModelStore
from neurogate.worker.settings import WorkerConfig


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything a fleet needs to start."""

    plan: FleetPlan
    directory: Path
    gateway: GatewayConfig
    """As it was read; `plan` has the ports that were chosen."""
    engine: str
    model: str


def prepare(request: FleetRequest, console: Console) -> Prepared:
    """Check, fetch and choose. Blocks while a missing model is fetched, with its progress on `console`.

    Raises ConfigError for a wrong setting, and for a model that cannot be had; PortError for a port that is set and
    taken.
    """
    worker = source(WorkerConfig, request.settings).read()
    gateway = source(GatewayConfig, request.flags).read()
    engine = worker.config.engine
    managed = engine.kind == "llamacpp"
    model = engine.model or (DEFAULT_MODEL if managed else "")
    if managed:
        store = ModelStore(worker.config.models.directory)
        if store.path(model) is None:
            console.print(f"fetching the model {model} into {store.directory}, this once")
        try:
            with shown(console) as progress:
                model = store.resolve(model, progress=progress).name
        except ModelError as error:
            raise ConfigError(f"NEUROGATE_MODEL: {error}") from error
    threads = fair_threads(usable_cores(), request.workers) if managed and not engine.threads else None
    return Prepared(
        plan=plan(request, gateway=gateway, worker=worker, threads=threads),
        directory=new_run_directory(load(StateSettings)),
        gateway=gateway.config,
        engine=engine.kind,
        model=model,
    )
