"""The layers of a configuration, later ones winning: defaults, file, environment, flags, what an admin set.

Reading them is a pure function of what they hold now, so a reload is one more reading. All problems are found at once,
and each names its key and where the value was given; nothing is changed by a reading that finds one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from neurogate.config.convert import convert, shown
from neurogate.config.declare import Bundle, Problem, Setting, declared, env_names, sections, settings_of
from neurogate.config.environment import is_service_link
from neurogate.config.file import Document, fingerprint, read
from neurogate.config.names import lookalikes, meant, nearest, unknown_variables
from neurogate.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=Bundle)
SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)

DEFAULT = "default"
ADMIN = "admin API"

CONFIG_VARIABLE = "NEUROGATE_CONFIG"


@dataclass(frozen=True, slots=True)
class Effective(Generic[ConfigT]):
    """A configuration, and where each of its values comes from."""

    config: ConfigT
    sources: Mapping[str, str]
    """By key: `default`, `neurogate.yaml:4`, `env HTTP_PORT`, `flag --http-port` or `admin API`."""
    origin: Source[ConfigT]
    """What it was read from, to be read again."""
    fingerprint: bytes
    """Of the file that it was read from."""
    warnings: tuple[str, ...] = ()
    """What its author may have meant otherwise."""

    def rows(self) -> Iterator[tuple[Setting, object, str]]:
        """(setting, value as it may be shown, source) of every setting."""
        for key, setting in settings_of(type(self.config)).items():
            yield setting, shown(setting, value_of(self.config, setting)), self.sources[key]


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    source: str
    name: str
    """What a problem with it begins with."""


class Source(Generic[ConfigT]):
    """Where a process's configuration comes from."""

    def __init__(
        self,
        config: type[ConfigT],
        *,
        path: str = "",
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        base: ConfigT | None = None,
        others: Iterable[type[Bundle]] = (),
        variables: Collection[str] = (),
    ) -> None:
        """`flags` are by environment name; `base` stands in for the defaults.

        `others` are the bundles of the other processes, whose sections the file may hold; `variables` are further names
        of variables that somebody reads.
        """
        self.path = Path(path).expanduser() if path else None
        self._config = config
        self._environ = dict(environ or {})
        self._flags = dict(flags or {})
        self._base = base if base is not None else config()
        self._settings = settings_of(config)
        known = [*self._settings.values(), *(s for other in others for s in settings_of(other).values())]
        self._sections: dict[str, set[str]] = {}
        for setting in known:
            self._sections.setdefault(setting.section, set()).add(setting.field)
        self._variables = {CONFIG_VARIABLE, *variables, *(setting.env for setting in known)}

    def fingerprint(self) -> bytes:
        """Another value whenever the file's content is another one. Blocks for the reading of a small file."""
        return fingerprint(self.path) if self.path is not None else b""

    def read(self, overlay: Mapping[str, object] | None = None) -> Effective[ConfigT]:
        """Read all layers; `overlay` is what an admin set, by key. Blocks for the reading of a small file.

        Raises ConfigError with a line for each problem.
        """
        seen = self.fingerprint()  # first: what changes meanwhile is seen as a change later
        document = read(self.path) if self.path is not None else {}
        overlay = overlay or {}
        problems = [
            *_unknown_keys(document, self._sections),
            *unknown_variables(self._environ, self._variables),
            *(
                f"{key}: there is no such setting{meant(key, self._settings)}"
                for key in overlay.keys() - self._settings
            ),
        ]
        values: dict[str, dict[str, object]] = {section: {} for section in sections(self._config)}
        sources = dict.fromkeys(self._settings, DEFAULT)
        for key, setting in self._settings.items():
            given = self._given(setting, document, overlay)
            if given is None:
                continue
            sources[key] = given.source
            try:
                value = convert(given.value, setting.hint, given.name, secret=setting.secret)
            except ConfigError as error:
                problems.append(str(error))
            else:
                values[setting.section][setting.field] = value
        if problems:
            raise ConfigError("\n".join(problems))
        config = self._build(values)
        problems = [self._told(problem, sources) for problem in config.problems()]
        if problems:
            raise ConfigError("\n".join(problems))
        return Effective(config, sources, self, seen, tuple(lookalikes(self._environ, self._variables)))

    def _given(self, setting: Setting, document: Document, overlay: Mapping[str, object]) -> _Given | None:
        """The value of the last layer that has one."""
        if setting.key in overlay:
            return _Given(overlay[setting.key], ADMIN, setting.key)
        if setting.env in self._flags:
            return _Given(self._flags[setting.env], f"flag {setting.flag}", setting.flag)
        text = self._environ.get(setting.env, "").strip()
        if text and not is_service_link(setting.env, text):
            return _Given(text, f"env {setting.env}", setting.env)
        found = document.get(setting.section, {}).get(setting.field)
        return _Given(found.value, found.where, f"{setting.key} ({found.where})") if found else None

    def _build(self, values: Mapping[str, Mapping[str, object]]) -> ConfigT:
        made: dict[str, Any] = {}
        problems = []
        for section in sections(self._config):
            try:
                made[section] = replaced(getattr(self._base, section), values[section])
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        return self._config(**made)

    def _told(self, problem: Problem, sources: Mapping[str, str]) -> str:
        names = [f"{self._settings[key].env} ({sources[key]})" for key in problem.keys]
        return f"{' and '.join(names)}: {problem.text}"


def load(
    settings: type[SettingsT],
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
) -> SettingsT:
    """Build one struct from the environment and from overrides by field name, of which None means "not given".

    Raises ConfigError naming the key and what it must be.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    by_field = {setting.field: setting for setting in declared(settings)}
    names = env_names(settings)
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(settings):
        key, setting = names.get(field.name, field.name), by_field.get(field.name)
        if field.name in given:
            raw = given[field.name]
        elif setting is not None and environ.get(key, "").strip():
            raw = environ[key].strip()
        else:
            continue
        hint, secret = (setting.hint, setting.secret) if setting is not None else (field.type, False)
        values[field.name] = convert(raw, hint, key, secret=secret)
    return replaced(settings(), values)


def replaced(settings: SettingsT, values: Mapping[str, object]) -> SettingsT:
    """The struct with other values in it. Raises ConfigError for what the struct itself refuses."""
    try:
        return msgspec.structs.replace(settings, **values)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def value_of(config: msgspec.Struct, setting: Setting) -> object:
    """The value of a setting in a bundle."""
    return getattr(getattr(config, setting.section), setting.field)


def _unknown_keys(document: Document, known: Mapping[str, Collection[str]]) -> Iterator[str]:
    """A problem for each section and key of the file that no process has."""
    for section, keys in document.items():
        if section not in known:
            yield f"{section} ({_where(keys.values())}): there is no such section{meant(section, known)}"
            continue
        for key, value in keys.items():
            if key not in known[section]:
                yield f"{section}.{key} ({value.where}): there is no such setting{_elsewhere(section, key, known)}"


def _elsewhere(section: str, key: str, known: Mapping[str, Collection[str]]) -> str:
    """What was meant: this key of another section, or the nearest key, of this section if there is one."""
    full = {name: f"{other}.{name}" for other, names in known.items() for name in sorted(names)}
    own = {name: f"{section}.{name}" for name in known[section]}
    near = full.get(key) or own.get(nearest(key, own)) or full.get(nearest(key, full))
    return f" (did you mean {near}?)" if near else ""


def _where(values: Iterable[Any]) -> str:
    return next((value.where for value in values), "it is empty")
