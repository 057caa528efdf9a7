"""Settings: how they are declared, the layers they come from, and the only reader of the environment (ADR 0013)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from neurogate.config import layers
from neurogate.config.convert import MASK, shown
from neurogate.config.declare import (
    Bundle,
    Problem,
    Setting,
    declared,
    descriptions,
    env,
    env_names,
    flag,
    sections,
    settings_of,
)
from neurogate.config.environment import child_environment, default_environment, environment, whole_environment
from neurogate.config.file import FileSettings
from neurogate.config.layers import CONFIG_VARIABLE, Effective, Source, value_of
from neurogate.config.ports import Listener, shared_ports
from neurogate.config.schema import json_schema

__all__ = [
    "CONFIG_VARIABLE",
    "MASK",
    "Bundle",
    "Effective",
    "FileSettings",
    "Listener",
    "Problem",
    "Setting",
    "Source",
    "child_environment",
    "declared",
    "default_environment",
    "descriptions",
    "env",
    "env_names",
    "environment",
    "flag",
    "json_schema",
    "load",
    "sections",
    "settings_of",
    "shared_ports",
    "shown",
    "value_of",
    "whole_environment",
]

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


def load(
    settings: type[SettingsT],
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> SettingsT:
    """Build one settings struct from the environment, and from overrides by field name, of which None is not given.

    Raises ConfigError naming the key and what it must be.
    """
    source = whole_environment() if environ is None else environ
    return layers.load(settings, environ=source, overrides=overrides)
