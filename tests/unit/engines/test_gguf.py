"""A damaged model file is told apart before an engine starts on it, in words that name it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.engines.engine import EngineFatalError
from neurogate.engines.llamacpp.gguf import validate

U32, STRING, ARRAY, BOOL, FLOAT64 = 4, 8, 9, 7, 12
F32, Q4_1, UNKNOWN_TYPE = 0, 3, 999


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


KEYS = [
    key("general.architecture", STRING, text("llama")),
    key("general.file_type", U32, struct.pack("<I", 3)),
    key("flag", BOOL, b"\x01"),
    key("ratio", FLOAT64, struct.pack("<d", 0.5)),
    key("tokens", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("bc")),
    key("scores", ARRAY, struct.pack("<IQ", FLOAT64, 3) + bytes(24)),
]
TENSORS = [tensor("a", [32, 2], Q4_1, 0), tensor("b", [8], F32, 64)]
DATA_BYTES = 64 + 32


def gguf(
    *,
    version: int = 3,
    keys: Sequence[bytes] = KEYS,
    tensors: Sequence[bytes] = TENSORS,
    alignment: int = 32,
    data_bytes: int = DATA_BYTES,
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join([*keys, *tensors])
    return head + bytes(-len(head) % alignment) + bytes(data_bytes)


def written(directory: Path, content: bytes) -> Path:
    path = directory / "model.gguf"
    path.write_bytes(content)
    return path


def problem(path: Path) -> str:
    with pytest.raises(EngineFatalError) as caught:
        validate(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", [2, 3])
def test_a_whole_file_is_accepted(tmp_path: Path, version: int) -> None:
    validate(written(tmp_path, gguf(version=version)))


def test_a_file_without_tensors_is_left_to_the_engine(tmp_path: Path) -> None:
    validate(written(tmp_path, gguf(tensors=[], data_bytes=0)))


def test_the_architecture_is_told(tmp_path: Path) -> None:
    assert validate(written(tmp_path, gguf())) == "llama"
    assert validate(written(tmp_path, gguf(tensors=[], data_bytes=0))) == "llama"
    assert validate(written(tmp_path, gguf(keys=KEYS[1:]))) == ""


def test_the_files_own_alignment_counts(tmp_path: Path) -> None:
    aligned = [key("general.alignment", U32, struct.pack("<I", 256)), *KEYS]

    validate(written(tmp_path, gguf(keys=aligned, alignment=256)))
    assert "truncated" in problem(written(tmp_path, gguf(keys=aligned, alignment=32)))


@pytest.mark.parametrize("missing", [1, 40, DATA_BYTES])
def test_a_file_shorter_than_its_tensors_is_truncated(tmp_path: Path, missing: int) -> None:
    content = gguf()

    told = problem(written(tmp_path, content[:-missing]))

    assert f"it has {len(content) - missing} bytes of the {len(content)}" in told
    assert "fetch the model again" in told


def test_a_tensor_of_unknown_type_must_at_least_begin_inside_the_file(tmp_path: Path) -> None:
    validate(written(tmp_path, gguf(tensors=[tensor("a", [32], UNKNOWN_TYPE, 96)])))
    assert "truncated" in problem(written(tmp_path, gguf(tensors=[tensor("a", [32], UNKNOWN_TYPE, 97)])))


def test_a_missing_file_a_directory_and_an_empty_file_are_named(tmp_path: Path) -> None:
    assert "there is no model file" in problem(tmp_path / "gone.gguf")
    assert "is a directory" in problem(tmp_path)
    assert "is empty" in problem(written(tmp_path, b""))


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    file = written(tmp_path, gguf())

    assert "cannot be read: Not a directory" in problem(file / "below")


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"GG", b"\x00" * 40])
def test_another_kind_of_file_is_no_gguf(tmp_path: Path, content: bytes) -> None:
    assert "it is no GGUF file" in problem(written(tmp_path, content))


@pytest.mark.parametrize("version", [1, 4, 0x03000000])
def test_other_versions_and_byte_orders_are_refused(tmp_path: Path, version: int) -> None:
    assert "GGUF version" in problem(written(tmp_path, gguf(version=version)))


@pytest.mark.parametrize(
    "damaged",
    [
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        gguf(keys=[struct.pack("<Q", 1 << 40)]),
        gguf(keys=[key("k", 77, b"")]),
        gguf(keys=[key("k", ARRAY, struct.pack("<IQ", ARRAY, 1))]),
        gguf(tensors=[text("t") + struct.pack("<I", 1000)]),
    ],
)
def test_impossible_numbers_mean_damage(tmp_path: Path, damaged: bytes) -> None:
    assert "its header is damaged" in problem(written(tmp_path, damaged))


def test_an_array_longer_than_the_file_ends_the_reading(tmp_path: Path) -> None:
    endless = gguf(keys=[key("k", ARRAY, struct.pack("<IQ", FLOAT64, 1 << 60))])

    assert "it ends inside its header" in problem(written(tmp_path, endless))


@given(cut=st.integers(min_value=1, max_value=len(gguf()) - 1))
def test_wherever_a_download_stopped_the_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    problem(written(tmp_path_factory.mktemp("cut"), gguf()[:cut]))


@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    problem(written(tmp_path_factory.mktemp("any"), b"GGUF" + struct.pack("<I", 3) + content))


@pytest.mark.model
def test_the_real_model_is_whole_and_half_of_it_is_not(smollm2_path: Path, tmp_path: Path) -> None:
    validate(smollm2_path)
    half = smollm2_path.read_bytes()[: smollm2_path.stat().st_size // 2]

    assert "truncated" in problem(written(tmp_path, half))
