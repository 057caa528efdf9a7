"""The configuration file, YAML or TOML: sections of keys, each value with the line that it stands on.

YAML is read as version 1.2 means it, in which only `true` and `false` are booleans: `off` is a word, and `1:30` is not
ninety. A key that comes twice is a mistake, never a choice.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from neurogate.config.declare import env
from neurogate.errors import ConfigError

FILE_BYTES_MAX = 1024 * 1024


class FileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which file."""

    config: Annotated[
        str, env("NEUROGATE_CONFIG", "Configuration file, whose name ends in .yaml, .yml or .toml; empty reads none.")
    ] = ""


@dataclass(frozen=True, slots=True)
class FileValue:
    """A value of the file."""

    value: object
    where: str
    """`neurogate.yaml:4`; without the line where the format does not tell."""


Document = Mapping[str, Mapping[str, FileValue]]
"""Values by section and key."""


def fingerprint(path: Path) -> bytes:
    """A hash of the file's content, or of why it cannot be read: another one whenever a reload could tell otherwise."""
    try:
        return hashlib.sha256(_bytes(path)).digest()
    except OSError as error:
        return repr(error.errno).encode()


def read(path: Path) -> Document:
    """The file's values. Blocks for the reading.

    Raises ConfigError naming the file, and the line where it can.
    """
    reader = {".yaml": _yaml, ".yml": _yaml, ".toml": _toml}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"NEUROGATE_CONFIG: {path} must end in .yaml, .yml or .toml")
    try:
        data = _bytes(path)
    except OSError as error:
        raise ConfigError(f"NEUROGATE_CONFIG: cannot read {path}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"NEUROGATE_CONFIG: {path} is larger than {FILE_BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    if not text.strip():  # what an editor or a copy leaves for a moment: nobody means it
        raise ConfigError(f"{path}: is empty")
    return reader(text, path.name)


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX + 1)


def _toml(text: str, name: str) -> Document:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{name}: is nested too deeply") from None
    return {section: _toml_section(section, keys, name) for section, keys in document.items()}


def _toml_section(section: str, keys: object, name: str) -> Mapping[str, FileValue]:
    if not isinstance(keys, dict):
        raise ConfigError(f"{section} ({name}): must be a section, [{section}] with keys under it")
    return {key: FileValue(value, name) for key, value in keys.items()}


def _yaml(text: str, name: str) -> Document:
    import yaml

    try:
        loader = _yaml_loader()(text)
        root = loader.get_single_node()
        if root is None:  # comments only
            return {}
        document: dict[str, Mapping[str, FileValue]] = {}
        for section, node in _pairs(root, name, "the file").items():
            is_blank = isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
            keys = {} if is_blank else _pairs(node, name, section)
            document[section] = {
                key: FileValue(loader.construct_object(value, deep=True), f"{name}:{value.start_mark.line + 1}")
                for key, value in keys.items()
            }
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{line}: {error.problem}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: has characters that YAML does not allow") from None
    except (RecursionError, ValueError):
        raise ConfigError(f"{name}: is not YAML that can be understood") from None
    return document


def _pairs(node: Any, name: str, what: str) -> dict[str, Any]:
    """The entries of a mapping node."""
    import yaml

    where = f"{name}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{what} ({where}): must be a mapping: names with a colon, and what belongs to them")
    pairs: dict[str, Any] = {}
    for key, value in node.value:
        line = f"{name}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{what} ({line}): a key must be a name")
        if key.value in pairs:
            raise ConfigError(f"{key.value} ({line}): comes twice in {what}")
        pairs[key.value] = value
    return pairs


def _yaml_loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2's core schema."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own way

    for tag, pattern, first in (
        ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
        ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
        ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
        ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
        ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ):
        for character in [*first, *([""] if tag == "null" else [])]:
            Loader.yaml_implicit_resolvers.setdefault(character, []).append(
                (f"tag:yaml.org,2002:{tag}", re.compile(pattern))
            )
    return Loader
