"""Whether a model file is whole, before an engine is started on it.

A GGUF file begins with counts, then key-value pairs, then a table that says where each tensor's data lies. Reading
only those tells the failures people meet (a wrong path, an HTML page saved as a model, a download that stopped) in
words that name the file, where the engine would say no more than that it failed to load. Whether the engine knows the
model's architecture is left to the engine.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from neurogate.engines.engine import EngineFatalError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_COUNT_MAX = 1 << 24
"""No model has so many tensors or keys; a larger count is damage, and would be a long loop."""
_STRING_MAX = 1 << 26
_DIMENSIONS_MAX = 8

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

_UINT32 = 4
_ARCHITECTURE_KEY = b"general.architecture"
_ALIGNMENT_KEY = b"general.alignment"
_ALIGNMENT = 32
_POOLING_KEY = b".pooling_type"
_POOLINGS = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_COUNTS_AT = 8
"""Bytes of magic and version, before the counts of tensors and of keys."""

_TENSOR_BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    30: (1, 2),  # BF16
}
"""Elements and bytes of a block, by tensor type. A type that is not here is taken to be empty: the check then only says
that the tensor begins inside the file."""


class _DamagedError(Exception):
    """What is wrong with the file."""


def validate(path: Path) -> str:
    """Check that `path` is a whole GGUF file; its architecture, for example `llama`, as far as it names one.

    Reads its header only, and may block on the disk.

    Raises EngineFatalError that names the file and says what is wrong and what to do.
    """
    try:
        if path.is_dir():
            raise EngineFatalError(f"the model {path} is a directory: name the .gguf file in it")
        size = path.stat().st_size
        if size == 0:
            raise EngineFatalError(f"the model file {path} is empty: delete it and fetch the model again")
        with path.open("rb") as file:
            return _check(file, size)
    except FileNotFoundError as error:
        raise EngineFatalError(
            f"there is no model file {path}: check NEUROGATE_MODEL, or fetch the model again"
        ) from error
    except OSError as error:
        raise EngineFatalError(f"the model file {path} cannot be read: {error.strerror or error}") from error
    except _DamagedError as error:
        raise EngineFatalError(f"the model file {path} cannot be used: {error}") from error


def pooling_of(path: Path) -> str:
    """How a model of embeddings makes one of a text: none, mean, cls, last or rank; empty when the file does not say.

    Call it for a file that is valid. Reads its header only, and may block on the disk.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        reader.skip(_COUNTS_AT)
        reader.u64()
        for _ in range(reader.u64()):
            key = reader.take(reader.string_length())
            kind = reader.u32()
            if key.endswith(_POOLING_KEY) and kind == _UINT32:
                return _POOLINGS.get(reader.u32(), "")
            _skip_value(reader, kind)
    return ""


class _Reader:
    """Little-endian values from a buffered file, never past its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._short()
        return data

    def skip(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise self._short()
        self._file.seek(count, 1)

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def string_length(self) -> int:
        length = self.u64()
        if length > _STRING_MAX:
            raise _DamagedError(f"its header is damaged (a string of {length} bytes): fetch the model again")
        return length

    def position(self) -> int:
        return self._file.tell()

    def _short(self) -> _DamagedError:
        return _DamagedError(f"it ends inside its header, after {self._size} bytes: fetch the model again")


def _check(file: BinaryIO, size: int) -> str:
    reader = _Reader(file, size)
    magic = file.read(4)
    if magic != _MAGIC:
        raise _DamagedError(
            f"it is no GGUF file (it begins with {magic!r}): name a .gguf file, or fetch the model again"
        )
    version = reader.u32()
    if version not in _VERSIONS:
        raise _DamagedError(
            f"its GGUF version is {version}, and only 2 and 3 in little-endian order work: convert it again"
        )
    tensors, keys = reader.u64(), reader.u64()
    if max(tensors, keys) > _COUNT_MAX:
        raise _DamagedError(f"its header is damaged ({tensors} tensors, {keys} keys): fetch the model again")
    alignment, architecture = _read_keys(reader, keys)
    if not tensors:
        return architecture  # without data nothing is missing; what such a file is good for, the engine decides
    end = max(_read_tensor(reader) for _ in range(tensors))
    begin = -(-reader.position() // alignment) * alignment
    if begin + end > size:
        raise _DamagedError(
            f"it is truncated: it has {size} bytes of the {begin + end} its header names: fetch the model again"
        )
    return architecture


def _read_keys(reader: _Reader, keys: int) -> tuple[int, str]:
    """Skip the key-value pairs but those that matter here: the alignment of the tensor data, and the architecture."""
    alignment, architecture = _ALIGNMENT, ""
    for _ in range(keys):
        key = reader.take(reader.string_length())
        kind = reader.u32()
        if key == _ALIGNMENT_KEY and kind == _UINT32:
            alignment = reader.u32() or _ALIGNMENT
        elif key == _ARCHITECTURE_KEY and kind == _STRING:
            architecture = reader.take(reader.string_length()).decode(errors="replace")
        else:
            _skip_value(reader, kind)
    return alignment, architecture


def _skip_value(reader: _Reader, kind: int, *, nested: bool = False) -> None:
    if kind in _SCALAR_BYTES:
        reader.skip(_SCALAR_BYTES[kind])
    elif kind == _STRING:
        reader.skip(reader.string_length())
    elif kind == _ARRAY and not nested:
        item, count = reader.u32(), reader.u64()
        if item in _SCALAR_BYTES:
            reader.skip(_SCALAR_BYTES[item] * count)
        else:
            for _ in range(count):
                _skip_value(reader, item, nested=True)
    else:
        raise _DamagedError(f"its header is damaged (a value of type {kind}): fetch the model again")


def _read_tensor(reader: _Reader) -> int:
    """Where the data of the next tensor ends, from the beginning of all tensor data."""
    reader.skip(reader.string_length())
    dimensions = reader.u32()
    if dimensions > _DIMENSIONS_MAX:
        raise _DamagedError(f"its header is damaged (a tensor of {dimensions} dimensions): fetch the model again")
    elements = 1
    for _ in range(dimensions):
        elements *= reader.u64()
    block, block_bytes = _TENSOR_BLOCKS.get(reader.u32(), (1, 0))
    offset = reader.u64()
    return offset + -(-elements // block) * block_bytes
