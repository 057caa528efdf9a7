"""How a model file says that it makes one embedding of a text."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from neurogate.engines.llamacpp.gguf import pooling_of

UINT32, STRING = 4, 8


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def written(directory: Path, *keys: bytes) -> Path:
    path = directory / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))
    return path


ARCHITECTURE = text(b"general.architecture") + struct.pack("<I", STRING) + text(b"bert")


@pytest.mark.parametrize(("number", "name"), [(0, "none"), (1, "mean"), (2, "cls"), (3, "last"), (4, "rank"), (9, "")])
def test_a_model_of_embeddings_says_how_it_pools(tmp_path: Path, number: int, name: str) -> None:
    key = text(b"bert.pooling_type") + struct.pack("<II", UINT32, number)

    assert pooling_of(written(tmp_path, ARCHITECTURE, key)) == name


def test_another_model_says_nothing(tmp_path: Path) -> None:
    assert pooling_of(written(tmp_path, ARCHITECTURE)) == ""
