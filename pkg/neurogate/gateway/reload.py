"""The configuration in force, and how another one comes to be: read, checked as a whole, then swapped (ADR 0013).

Whoever is built from settings that can change subscribes to them. Everything is read and checked first, the files that
settings name too; only then are subscribers told, one after another in one turn of the loop, so that a request sees the
old settings or the new ones.
What cannot change while the process runs keeps its value, and is named for whoever decides about a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from neurogate.config import Effective, Setting, sections, settings_of, value_of
from neurogate.config.settled import SETTLE_S, settled
from neurogate.errors import ConfigError, InvalidConfigError
from neurogate.gateway.settings import GatewayConfig

_NOT_BY_ADMIN = "admin"
"""The section that the admin API does not change: a stolen key must not lock its owner out."""

_log = structlog.get_logger("neurogate.config")

Callback = Callable[[GatewayConfig], None]

Stage = Callable[[GatewayConfig], Awaitable[Callable[[], None]]]
"""Reads and checks what a configuration needs, and changes nothing yet; what it returns puts that in force, and must
not fail. Raises ConfigError to refuse the configuration, but never the one that is in force."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload, by the settings' keys."""

    changed: tuple[str, ...]
    """In force from now on."""
    needs_restart: tuple[str, ...]
    """Given, and not in force: they cannot change while the process runs."""
    error: str = ""
    """Why something that another file holds is still that of before; empty when all is well."""


@dataclass(frozen=True, slots=True)
class _Subscriber:
    keys: frozenset[str]
    stage: Stage
    problem: Callable[[], str] = str
    """What is wrong with the other file; nothing where there is none."""
    rereads: bool = False
    """Whether it is staged at every reload, for the sake of the other file."""


class Reloader:
    """The configuration of one gateway."""

    def __init__(
        self,
        effective: Effective[GatewayConfig],
        *,
        now: Callable[[], float],
        count: Callable[[str], None],
    ) -> None:
        """`now` gives seconds since 1970; `count` hears `ok` or `invalid` of each reload."""
        self._source = effective.origin
        self._seen = effective.fingerprint
        self._effective = effective
        self._now = now
        self._count = count
        self._settings = settings_of(GatewayConfig)
        self._overlay: dict[str, object] = {}
        self._subscribers: list[_Subscriber] = []
        self._others: list[Callable[[], None]] = []
        self._reading = asyncio.Lock()
        self._asked = asyncio.Event()
        self._error = ""
        self._loaded_at = now()
        self.pending: tuple[str, ...] = ()
        """Settings that were given another value since the start, which needs a restart."""

    @property
    def config(self) -> GatewayConfig:
        """What is in force."""
        return self._effective.config

    def rows(self) -> Iterator[tuple[Setting, object, str]]:
        """(setting, value in force as it may be shown, its source) of every setting."""
        return self._effective.rows()

    def status(self) -> dict[str, object]:
        """What `/health` tells: whether the latest reading was good, and since when what is in force has been."""
        error = _joined([self._error, *_problems(self._subscribers)])
        return {
            "status": "invalid" if error else "ok",
            "error": error,
            "loaded_at": datetime.fromtimestamp(self._loaded_at, UTC).isoformat(timespec="seconds"),
        }

    def subscribe(self, names: Collection[str], apply: Callback, *, check: Callback = lambda _: None) -> None:
        """Call `apply` with the new configuration when one of the named settings has changed; it must not fail.

        A name is a section or a key (`gateway.retries`). `check` may raise ConfigError while nothing has changed yet.
        Raises ValueError for names that there are not, or that never reload.
        """

        async def stage(config: GatewayConfig) -> Callable[[], None]:
            check(config)
            return functools.partial(apply, config)

        self._subscribers.append(_Subscriber(self._named(names), stage))

    def subscribe_file(self, names: Collection[str], stage: Stage, *, problem: Callable[[], str]) -> None:
        """The same for what another file holds: staged when one of the settings has changed, and at every reload.

        `problem` says why what is in force is not what the file holds, or nothing. Raises ValueError as `subscribe`.
        """
        self._subscribers.append(_Subscriber(self._named(names), stage, problem, rereads=True))

    @property
    def followed(self) -> frozenset[str]:
        """The keys that somebody has subscribed to."""
        return frozenset().union(*(subscriber.keys for subscriber in self._subscribers))

    def also(self, callback: Callable[[], None]) -> None:
        """Call back whenever somebody asks for a reload: for whoever looks after files of its own."""
        self._others.append(callback)

    def ask(self) -> None:
        """Have `run` reload soon: for signal handlers."""
        self._asked.set()

    async def reload(self, by: str) -> Reloaded:
        """Read everything again; `by` is who wanted it, for the log.

        Raises InvalidConfigError with all that is wrong; then nothing has changed.
        """
        for callback in self._others:
            callback()
        async with self._reading:
            self._seen = await asyncio.to_thread(self._source.fingerprint)
            try:
                read = await asyncio.to_thread(self._source.read, self._overlay)
                result = await self._swap(read, by, reread=True)
            except ConfigError as error:
                await self._swap(self._effective, by, reread=True)  # other files may be as good as ever
                self._count("invalid")
                self._error = str(error)
                _log.error("configuration not reloaded: the one before stays", by=by, error=self._error)
                raise InvalidConfigError(self._error) from error
            self.pending = result.needs_restart
            self._error = ""
            self._loaded_at = self._now()
            self._count("invalid" if result.error else "ok")
        return result

    async def set(self, values: Mapping[str, object], by: str) -> Reloaded:
        """Put values by key above all other layers, until the process ends; None takes one away again.

        Raises InvalidConfigError with all that is wrong; then nothing has changed.
        """
        async with self._reading:
            overlay = {key: value for key, value in {**self._overlay, **values}.items() if value is not None}
            try:
                self._refuse(values)
                read = await asyncio.to_thread(self._source.read, overlay)
                result = await self._swap(read, by, reread=False)
            except ConfigError as error:
                _log.warning("configuration not changed", by=by, settings=sorted(values), error=str(error))
                raise InvalidConfigError(str(error)) from error
            self._overlay = {key: value for key, value in overlay.items() if self._settings[key].reloads}
            self.pending = tuple(key for key in result.needs_restart if key not in values)
        return result

    async def run(self) -> None:
        """Reload when asked, and when the file has another content, until cancelled."""
        while True:
            by = "SIGHUP"
            if not await self._is_asked(self.config.gateway.config_poll_s):
                if await asyncio.to_thread(self._source.fingerprint) == self._seen:
                    continue
                await settled(self._source.fingerprint, pause_s=SETTLE_S)
                by = "file"
            with contextlib.suppress(InvalidConfigError):  # it has been told
                await self.reload(by)

    async def _is_asked(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    def _named(self, names: Collection[str]) -> frozenset[str]:
        """The keys that reload under these names."""
        keys = {key for key, setting in self._settings.items() if setting.reloads and {key, setting.section} & {*names}}
        named = {*keys, *(self._settings[key].section for key in keys)}
        if not named.issuperset(names):
            raise ValueError(f"nothing that reloads is called {', '.join(sorted(set(names) - named))}")
        return frozenset(keys)

    def _refuse(self, values: Mapping[str, object]) -> None:
        own = [key for key in values if key in self._settings and self._settings[key].section == _NOT_BY_ADMIN]
        if own:
            raise ConfigError(f"{', '.join(own)}: cannot be changed by the admin API; use the file or the environment")

    async def _swap(self, read: Effective[GatewayConfig], by: str, *, reread: bool) -> Reloaded:
        """Put in force what can be, other files too when they are to be reread.

        Raises ConfigError when a subscriber refuses it; then nothing has changed.
        """
        old, new = self._effective.config, read.config
        differs = [key for key, setting in self._settings.items() if value_of(old, setting) != value_of(new, setting)]
        changed = tuple(key for key in differs if self._settings[key].reloads)
        needs_restart = tuple(key for key in differs if not self._settings[key].reloads)
        config = _merged(old, new, [self._settings[key] for key in changed])
        concerned = [
            subscriber
            for subscriber in self._subscribers
            if not subscriber.keys.isdisjoint(changed) or (reread and subscriber.rereads)
        ]
        staged = [await subscriber.stage(config) for subscriber in concerned]
        sources = {**read.sources, **{key: self._effective.sources[key] for key in needs_restart}}
        self._effective = Effective(config, sources, self._source, read.fingerprint)
        for put_in_force in staged:
            try:
                put_in_force()
            except Exception:  # noqa: BLE001 - a bug in one part must not keep the others from the new settings
                _log.exception("a part of the gateway could not take its new settings", by=by)
        if differs:
            tell = _log.warning if needs_restart else _log.info
            tell("configuration reloaded", by=by, changed=changed, needs_restart=needs_restart)
        return Reloaded(changed, needs_restart, _joined(_problems(concerned)))


def _problems(subscribers: Iterable[_Subscriber]) -> list[str]:
    return [subscriber.problem() for subscriber in subscribers]


def _joined(problems: Iterable[str]) -> str:
    return "; ".join(filter(None, problems))


def _merged(old: GatewayConfig, new: GatewayConfig, changed: Collection[Setting]) -> GatewayConfig:
    """The old configuration with some of the new one's values."""
    made: dict[str, Any] = {}
    for section in sections(GatewayConfig):
        values = {setting.field: value_of(new, setting) for setting in changed if setting.section == section}
        made[section] = msgspec.structs.replace(getattr(old, section), **values)
    return GatewayConfig(**made)
