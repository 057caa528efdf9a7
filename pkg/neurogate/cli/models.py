"""`neurogate models`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from neurogate.engines.settings import DEFAULT_MODEL, EngineSettings
from neurogate.errors import ConfigError
from neurogate.models.errors import ModelError
from neurogate.models.progress import shown
from neurogate.models.settings import ModelSettings
from neurogate.models.store import ModelStore, default_store


def fetch(model: str) -> None:
    """Fetch with a progress bar, and print where the file is. Raises ModelError when it cannot."""
    from rich.console import Console

    with shown(Console(stderr=True)) as progress:
        found = default_store().resolve(model, progress=progress)
    print(found.path)


def ensure(engine: EngineSettings, models: ModelSettings) -> None:
    """Fetch the model of a managed engine if it is missing, with its progress; SIGTERM and Ctrl-C end that.

    Done before a worker starts to serve: later its event loop, and with it its signals, would wait for the download.
    Raises ConfigError for settings that contradict each other and for a model that cannot be had, ModelError when
    fetching it was stopped.
    """
    model = engine.model or DEFAULT_MODEL
    store = ModelStore(models.directory)
    if engine.kind != "llamacpp" or store.path(model) is not None:
        return
    from rich.console import Console

    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"fetching the model {model} into {store.directory}, this once")
    try:
        with shown(console) as progress:
            store.resolve(model, progress=progress, stop=stop)
    except ModelError as error:
        if stop.is_set():
            raise
        raise ConfigError(f"NEUROGATE_MODEL: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def show() -> None:
    """Print the models as a table."""
    from rich.console import Console
    from rich.table import Table

    store = default_store()
    table = Table(box=None, pad_edge=False)
    for column in ("model", "here", "size", "licence", "description"):
        table.add_column(column)
    for model in store.models():
        size = f"{model.size / 1e6:.0f} MB"
        table.add_row(model.name, "yes" if model.present else "no", size, model.license, model.description)
    console = Console()
    console.print(table)
    console.print(f"\ncache: {store.directory}", highlight=False, soft_wrap=True)


def path(model: str) -> Path | None:
    """The file, if it is there."""
    return default_store().path(model)
