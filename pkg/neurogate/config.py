"""Settings from the environment: the only place that reads it.

A process describes its settings as a frozen `msgspec.Struct` beside the code they configure. Each field carries its
environment name, a description and its bounds; `load` fills the struct and refuses to start on a bad value, naming the
key. Later layers win: defaults, then environment, then explicit overrides (command-line flags).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from neurogate.errors import ConfigError

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


def env(name: str, description: str, **bounds: Any) -> msgspec.Meta:
    """Annotate a settings field with its environment name, what it does, and msgspec constraints such as `ge=1`."""
    return msgspec.Meta(description=description, extra={"env": name}, **bounds)


def load(
    settings: type[SettingsT],
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> SettingsT:
    """Build `settings` from the environment and from overrides by field name, of which None means "not given".

    Raises ConfigError naming the key and what it must be.
    """
    source = os.environ if environ is None else environ
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    names = env_names(settings)
    hints = get_type_hints(settings, include_extras=True)
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(settings):
        key = names.get(field.name, field.name)
        if field.name in given:
            raw = given[field.name]
        elif field.name in names and source.get(key, "").strip():
            raw = source[key].strip()
        else:
            continue
        values[field.name] = _convert(raw, hints[field.name], key)
    try:
        return settings(**values)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def sections(config: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """The settings struct of each section of a process's configuration."""
    return dict(get_type_hints(config))


def environment(*names: str) -> dict[str, str]:
    """The named variables that are set, for code that must pass them on or look one up."""
    return {name: os.environ[name] for name in names if name in os.environ}


def default_environment(**values: str) -> None:
    """Set variables that libraries read, unless the user has set them."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with changes, for a child process."""
    return {**os.environ, **changes}


def env_names(settings: type[msgspec.Struct]) -> dict[str, str]:
    """The environment name of each field that has one."""
    return {name: meta.extra["env"] for name, meta in _metas(settings).items() if meta.extra and "env" in meta.extra}


def descriptions(settings: type[msgspec.Struct]) -> list[tuple[str, object, str]]:
    """(environment name, default, description) of every field, for the documentation."""
    metas = _metas(settings)
    return [
        (metas[field.name].extra["env"], field.default, metas[field.name].description or "")  # type: ignore[index]
        for field in msgspec.structs.fields(settings)
        if field.name in metas
    ]


def _metas(settings: type[msgspec.Struct]) -> dict[str, msgspec.Meta]:
    found = {}
    for name, hint in get_type_hints(settings, include_extras=True).items():
        if get_origin(hint) is Annotated:
            for part in get_args(hint)[1:]:
                if isinstance(part, msgspec.Meta) and part.extra:
                    found[name] = part
    return found


def _convert(raw: object, hint: Any, key: str) -> object:
    is_list = "tuple" in str(hint)
    if isinstance(raw, str) and is_list:
        raw = [item.strip() for item in raw.split(",") if item.strip()]
        if not raw:
            raise ConfigError(f"{key}: is set but names nothing; name something, or unset it")
    try:
        return msgspec.convert(raw, hint, strict=False)
    except msgspec.ValidationError as error:
        shown = "" if "KEY" in key else f" (got {raw!r})"
        must = _choices(hint) or str(error).split(" - at ")[0]
        raise ConfigError(f"{key}: {must}{shown}") from error


def _choices(hint: Any) -> str:
    """The values of a Literal, which msgspec does not tell; empty for other types."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return f"must be one of {', '.join(map(str, get_args(kind)))}" if get_origin(kind) is Literal else ""
