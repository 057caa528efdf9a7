"""`neurogate models`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from neurogate.models.progress import shown
from neurogate.models.store import default_store


def fetch(model: str) -> None:
    """Fetch with a progress bar, and print where the file is. Raises ModelError when it cannot."""
    with shown(Console(stderr=True)) as progress:
        found = default_store().resolve(model, progress=progress)
    print(found.path)


def show() -> None:
    """Print the models as a table."""
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
