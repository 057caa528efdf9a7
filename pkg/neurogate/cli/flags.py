"""Every setting is also a flag: its environment name in lower case, without NEUROGATE_.

The flags come from the settings structs, so that name, meaning and default are written once. Values stay text until
`neurogate.config.load` converts and checks them, the same as those of the environment.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from neurogate.config import descriptions, env_names, load, sections

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


class Flags:
    """The settings that were given as flags."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = dict(given)
        """Values by environment name."""

    def load(self, settings: type[SettingsT]) -> SettingsT:
        """The settings from the environment and the flags. Raises ConfigError naming what is wrong."""
        fields = {env: field for field, env in env_names(settings).items()}
        return load(settings, overrides={fields[env]: value for env, value in self.given.items() if env in fields})

    def load_config(self, config: type[SettingsT]) -> SettingsT:
        """A whole configuration, section by section. Raises ConfigError naming what is wrong."""
        return config(**{name: self.load(section) for name, section in sections(config).items()})


def takes(*settings: type[msgspec.Struct]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, beside its own parameters, a flag for each setting; it gets them as `flags`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = {_parameter(env): env for struct in settings for env in env_names(struct).values()}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {env: given.pop(name) for name, env in names.items()}
            command(flags=Flags({env: value for env, value in values.items() if value is not None}), **given)

        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "flags"
        ]
        parameters = own + [_option(*row) for struct in settings for row in descriptions(struct)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def flag(env: str) -> str:
    """The flag of a setting, for example `--http-port` of HTTP_PORT."""
    return "--" + env.removeprefix("NEUROGATE_").lower().replace("_", "-")


def _parameter(env: str) -> str:
    return flag(env)[2:].replace("-", "_")


def _option(env: str, default: object, description: str) -> inspect.Parameter:
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    text = f"{description} [{env}{f', default {shown}' if shown else ''}]"
    option = typer.Option(flag(env), help=text, metavar=type(default).__name__.upper().replace("TUPLE", "LIST"))
    return inspect.Parameter(
        _parameter(env), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
