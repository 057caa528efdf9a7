"""From what a user calls a model to the file that an engine loads.

A reference is tried as a path, then as a name in the catalogue, then as a file in the cache directory, then as a
Hugging Face repository. A file that is there is used without a network and without a write.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from neurogate.config import load
from neurogate.models import hub
from neurogate.models.catalog import CATALOG, CatalogModel, find
from neurogate.models.download import disk_errors
from neurogate.models.errors import ModelError
from neurogate.models.fetch import Source, fetch, is_complete, is_sound
from neurogate.models.progress import Progress, Watch, silent
from neurogate.models.settings import ModelSettings

_MAGIC = b"GGUF"


class ResolvedModel(NamedTuple):
    """A model ready to be loaded."""

    name: str
    """What it is called in answers and requests."""
    path: Path


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A line of `neurogate models list`."""

    name: str
    file: str
    size: int
    """Bytes."""
    present: bool
    description: str = ""
    license: str = ""


class ModelStore:
    """The models of one cache directory."""

    def __init__(
        self,
        directory: Path,
        *,
        catalog: tuple[CatalogModel, ...] = CATALOG,
        sources: tuple[Source, ...] | None = None,
    ) -> None:
        self.directory = directory
        self._catalog = catalog
        self._sources = sources

    def resolve(
        self, reference: str, *, progress: Progress = silent, stop: threading.Event | None = None
    ) -> ResolvedModel:
        """The model's name and file, fetched first when it is missing. Blocks; setting `stop` ends a fetch early.

        Raises ModelError saying what to do when there is no such model, it is no GGUF file, or it cannot be fetched.
        """
        reference = reference.strip()
        known = find(reference, self._catalog)
        if known is not None:
            path = fetch(known, self.directory, watch=Watch(progress, stop or threading.Event()), sources=self._sources)
            return ResolvedModel(known.name, path)
        path = self._local(reference) or self._from_hub(reference)
        _require_gguf(path)
        return ResolvedModel(model_name(path), path)

    def mend(self, path: Path, *, stop: threading.Event | None = None) -> str:
        """Check a model's file by its SHA-256 and fetch it anew when it is broken; what was done, empty for nothing.

        Only files of the catalogue have a known SHA-256, and only in the cache directory are they this store's. Blocks.
        Raises ModelError when a broken file cannot be had anew.
        """
        known = next((model for model in self._catalog if path == self.directory / model.file), None)
        if known is None or is_sound(known, path):
            return ""
        with disk_errors(self.directory):
            path.unlink(missing_ok=True)
        fetch(known, self.directory, watch=Watch(silent, stop or threading.Event()), sources=self._sources)
        return f"the model file {path} was broken (its SHA-256 was wrong); it has been fetched anew"

    def path(self, reference: str) -> Path | None:
        """The file if it is there already; None if it would have to be fetched."""
        known = find(reference.strip(), self._catalog)
        if known is not None:
            path = self.directory / known.file
            return path if is_complete(known, path) else None
        return self._local(reference.strip())

    def models(self) -> list[StoredModel]:
        """The catalogue, then the other GGUF files of the cache directory."""
        known = [
            StoredModel(
                name=model.name,
                file=model.file,
                size=model.size,
                present=is_complete(model, self.directory / model.file),
                description=model.description,
                license=model.license,
            )
            for model in self._catalog
        ]
        names = {model.file for model in self._catalog}
        others = [
            StoredModel(name=model_name(path), file=path.name, size=path.stat().st_size, present=True)
            for path in sorted(self.directory.glob("*.gguf"))
            if path.name not in names
        ]
        return known + others

    def _local(self, reference: str) -> Path | None:
        path = Path(reference).expanduser()
        if path.is_file():
            return path.absolute()
        own = [*self.directory.glob("*.gguf")] if reference else []
        return next((file for file in own if reference in {file.name, file.stem, model_name(file)}), None)

    def _from_hub(self, reference: str) -> Path:
        if hub.is_reference(reference) and (reference.startswith("hf:") or not reference.endswith(".gguf")):
            return hub.fetch(reference)
        names = ", ".join(model.name for model in self._catalog)
        raise ModelError(
            f"there is no model {reference!r}: give one of {names}, a path to a GGUF file, "
            f"a file in {self.directory}, or hf:owner/repo:quant"
        )


def default_store() -> ModelStore:
    """The user's store. Raises ConfigError when there is nowhere to keep it."""
    return ModelStore(load(ModelSettings).directory)


def resolve(reference: str, *, progress: Progress = silent, stop: threading.Event | None = None) -> ResolvedModel:
    """`ModelStore.resolve` in the user's store."""
    return default_store().resolve(reference, progress=progress, stop=stop)


def model_name(path: Path) -> str:
    """What a GGUF file is called: its name without extension and part number, in lower case."""
    return re.sub(r"-\d{5}-of-\d{5}$", "", path.stem).lower()


def _require_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise ModelError(f"{path} is not a GGUF file")
