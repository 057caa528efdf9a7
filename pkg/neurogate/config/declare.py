"""How a setting is declared: on a field of a frozen `msgspec.Struct`, beside the code that it configures.

The declaration is the only place where a setting has its name, meaning, bounds and default: environment, file, flags,
reference and schema are made from it. A bundle (`GatewayConfig`) is all that one process is configured by: a struct
whose fields are sections, which are such structs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

_SECRET_WORDS = frozenset({"KEY", "KEYS", "PASSWORD", "SECRET", "TOKEN"})


def env(
    name: str, description: str, *, reloads: bool = False, secret: bool | None = None, **bounds: Any
) -> msgspec.Meta:
    """Annotate a settings field with its environment name, what it does, and msgspec constraints such as `ge=1`.

    `reloads`: a change takes effect in a running process. `secret`: its value is never shown; told from the name unless
    given.
    """
    return msgspec.Meta(description=description, extra={"env": name, "reloads": reloads, "secret": secret}, **bounds)


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting."""

    section: str
    """Its section in the file; empty outside a bundle."""
    field: str
    env: str
    """Its environment name."""
    description: str
    default: object
    hint: Any
    """Its type, with its bounds."""
    reloads: bool
    secret: bool

    @property
    def key(self) -> str:
        """Its name in a file, for example `limits.requests_per_minute`."""
        return f"{self.section}.{self.field}" if self.section else self.field

    @property
    def flag(self) -> str:
        """Its flag, for example `--http-port` of HTTP_PORT."""
        return flag(self.env)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with settings that are right by their types and bounds."""

    keys: tuple[str, ...]
    """Whose, for example `gateway.http_port`; several that contradict each other."""
    text: str
    """What is wrong, as it follows their names. It must not tell a secret."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one process is configured by: each field is a section of the configuration file."""

    def problems(self) -> Iterable[Problem]:
        """What is wrong with it that types and bounds cannot tell."""
        return ()


def flag(env_name: str) -> str:
    """The flag of a setting: its environment name in lower case, without NEUROGATE_."""
    return "--" + env_name.removeprefix("NEUROGATE_").lower().replace("_", "-")


def declared(settings: type[msgspec.Struct], section: str = "") -> tuple[Setting, ...]:
    """The settings of one struct, in their order; fields without `env` are none."""
    hints = get_type_hints(settings, include_extras=True)
    return tuple(
        Setting(
            section,
            field.name,
            meta.extra["env"],
            meta.description or "",
            field.default,
            hints[field.name],
            meta.extra["reloads"],
            _is_secret(meta.extra, hints[field.name]),
        )
        for field in msgspec.structs.fields(settings)
        if (meta := _meta(hints[field.name])) is not None and meta.extra is not None
    )


def sections(config: type[Bundle]) -> dict[str, type[msgspec.Struct]]:
    """The settings struct of each section of a process's configuration."""
    return dict(get_type_hints(config))


def settings_of(config: type[Bundle]) -> dict[str, Setting]:
    """Every setting of a bundle by its key."""
    found = (declared(struct, section) for section, struct in sections(config).items())
    return {setting.key: setting for settings in found for setting in settings}


def env_names(settings: type[msgspec.Struct]) -> dict[str, str]:
    """The environment name of each field that has one."""
    return {setting.field: setting.env for setting in declared(settings)}


def descriptions(settings: type[msgspec.Struct]) -> list[tuple[str, object, str]]:
    """(environment name, default, description) of every field, for the documentation."""
    return [(setting.env, setting.default, setting.description) for setting in declared(settings)]


def _meta(hint: Any) -> msgspec.Meta | None:
    if get_origin(hint) is Annotated:
        for part in get_args(hint)[1:]:
            if isinstance(part, msgspec.Meta) and part.extra and "env" in part.extra:
                return part
    return None


def _is_secret(extra: dict[str, Any], hint: Any) -> bool:
    """By its name unless declared: a name like a key's whose value is text. A path to a key (..._FILE) is not one."""
    if extra["secret"] is not None:
        return bool(extra["secret"])
    is_text = "str" in str(get_args(hint)[0])
    words = extra["env"].split("_")
    return is_text and not _SECRET_WORDS.isdisjoint(words) and words[-1] not in {"FILE", "PATH", "DIR"}
