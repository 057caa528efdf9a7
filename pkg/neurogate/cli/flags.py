"""Every setting is also a flag: its environment name in lower case, without NEUROGATE_.

The flags come from the settings structs, so that name, meaning and default are written once. Values stay text until
`neurogate.config` converts and checks them, the same as those of the environment.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from neurogate.config import Bundle, Setting, Source, declared, flag, load
from neurogate.config.convert import convert
from neurogate.local import sources

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)
ConfigT = TypeVar("ConfigT", bound=Bundle)


class Flags:
    """The settings that were given as flags."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = dict(given)
        """Values by environment name."""

    def load(self, settings: type[SettingsT]) -> SettingsT:
        """The settings from the environment and the flags. Raises ConfigError naming what is wrong."""
        given = [(setting, self.given[setting.env]) for setting in declared(settings) if setting.env in self.given]
        return load(
            settings,
            overrides={
                setting.field: convert(value, setting.hint, setting.flag, secret=setting.secret)
                for setting, value in given
            },
        )

    def source(self, config: type[ConfigT]) -> Source[ConfigT]:
        """Every layer of a process's configuration, these flags among them."""
        return sources.source(config, self.given)

    def load_config(self, config: type[ConfigT]) -> ConfigT:
        """A whole configuration. Raises ConfigError naming what is wrong."""
        return self.source(config).read().config


def takes(
    *settings: type[msgspec.Struct], also: Sequence[Setting] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, beside its own parameters, a flag for each setting; it gets them as `flags`.

    `also` are single settings of other structs.
    """
    offered = [*(setting for struct in settings for setting in declared(struct)), *also]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = {_parameter(setting.env): setting.env for setting in offered}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {env: given.pop(name) for name, env in names.items()}
            command(flags=Flags({env: value for env, value in values.items() if value is not None}), **given)

        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "flags"
        ]
        parameters = own + [_option(setting) for setting in offered]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(env: str) -> str:
    return flag(env)[2:].replace("-", "_")


def _option(setting: Setting) -> inspect.Parameter:
    default = setting.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    text = f"{setting.description} [{setting.env}{f', default {shown}' if shown else ''}]"
    option = typer.Option(setting.flag, help=text, metavar=type(default).__name__.upper().replace("TUPLE", "LIST"))
    return inspect.Parameter(
        _parameter(setting.env), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
