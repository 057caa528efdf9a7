"""GGUF files from Hugging Face, through `huggingface_hub` when it is installed.

The hub's client keeps its own cache; a file that is already there needs no network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from neurogate.models.errors import ModelError

_REFERENCE = re.compile(r"(?:hf:)?(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<part>[^:]+))?")
_SPLIT = re.compile(r"-00001-of-(\d{5})\.gguf$")
_DEFAULT_QUANTS = ("Q4_K_M", "Q4_0", "Q8_0")


def is_reference(reference: str) -> bool:
    """Whether this is `owner/repo` or `hf:owner/repo`, each with an optional `:file-or-quant`."""
    return _REFERENCE.fullmatch(reference) is not None


def fetch(reference: str) -> Path:
    """The path of the GGUF file that the reference means, the first part of a split one.

    Without a file or quant, Q4_K_M is taken, or else what comes nearest. Blocks while it downloads. Raises ModelError
    when huggingface_hub is missing, nothing matches, or the hub cannot be reached.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ModelError(
            f"{reference} is on Hugging Face, which needs an extra: pip install 'neurogate[huggingface]'"
        ) from error
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelError(f"{reference} is not of the form hf:owner/repo:file-or-quant")
    repo, part = match["repo"], match["part"] or ""
    cached = _cached(hub, repo, part)
    if cached is not None:
        return cached
    try:
        chosen = choose(hub.list_repo_files(repo), part)
        if chosen is None:
            raise ModelError(f"{repo} has no GGUF file" + (f" that matches {part}" if part else ""))
        paths = [Path(hub.hf_hub_download(repo, file)) for file in all_parts(chosen)]
    except OSError as error:  # the hub's own errors are OSErrors, as those of its transport are
        raise ModelError(f"{repo} could not be fetched from Hugging Face: {error}") from error
    return paths[0]


def choose(files: list[str], part: str) -> str | None:
    """The GGUF file that a file name or a quant means; None when there is none."""
    candidates = sorted(file for file in files if file.endswith(".gguf") and _is_first(file))
    if part in candidates:
        return part
    wanted = (part,) if part else (*_DEFAULT_QUANTS, "")
    for quant in wanted:
        for file in candidates:
            if quant.casefold() in file.rpartition("/")[2].casefold():
                return file
    return None


def all_parts(file: str) -> list[str]:
    """Every file of a split model, the first one first."""
    found = _SPLIT.search(file)
    if found is None:
        return [file]
    return [f"{file[: found.start()]}-{part:05d}-of-{found[1]}.gguf" for part in range(1, int(found[1]) + 1)]


def _is_first(file: str) -> bool:
    return _SPLIT.search(file) is not None or re.search(r"-\d{5}-of-\d{5}\.gguf$", file) is None


def _cached(hub: Any, repo: str, part: str) -> Path | None:
    """The file in the hub's cache, when all of it is there."""
    try:
        snapshot = Path(hub.snapshot_download(repo, local_files_only=True))
    except OSError:
        return None
    files = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*.gguf")]
    chosen = choose(files, part)
    if chosen is None or not set(all_parts(chosen)) <= set(files):
        return None
    return snapshot / chosen
