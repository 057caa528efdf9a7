"""Discovery in a gateway: which resolver follows which source, and what is logged and counted of it."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry

from neurogate.discovery.dns import DnsResolver
from neurogate.discovery.kubernetes import KubernetesResolver
from neurogate.discovery.resolver import Resolver, SourceObserver
from neurogate.discovery.settings import DiscoverySettings
from neurogate.discovery.sources import KubernetesSource, Source, dynamic
from neurogate.endpoint import Endpoint
from neurogate.gateway.settings import GatewayConfig
from neurogate.lookups.kubernetes_api import KubernetesApi
from neurogate.lookups.name_servers import NameServers
from neurogate.telemetry import catalog

_log = structlog.get_logger("neurogate.discovery")

_FIGURES = re.compile(r"[0-9]+")
"""Seconds, ports and positions, which differ from try to try."""


class DiscoveryLog:
    """A `SourceObserver`: metrics, and a line in the log when a source falls silent, changes its reason or is back."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._up = catalog.GATEWAY_SOURCE_UP.on(registry)
        self._workers = catalog.GATEWAY_SOURCE_WORKERS.on(registry)
        self._answers = catalog.GATEWAY_SOURCE_ANSWERS.on(registry)
        self._counts: dict[str, int] = {}
        self._reasons: dict[str, str] = {}

    def found(self, source: str, endpoints: int) -> None:
        """An answer came."""
        self._up.labels(source).set(1)
        self._workers.labels(source).set(endpoints)
        self._answers.labels(source, "found").inc()
        reason = self._reasons.pop(source, "")
        if reason or self._counts.get(source) != endpoints:
            _log.info("workers found", source=source, workers=endpoints, **({"after": reason} if reason else {}))
        self._counts[source] = endpoints

    def failed(self, source: str, reason: str) -> None:
        """No answer came."""
        if self._is_news(source, reason):
            kept = self._counts.get(source, 0)
            _log.warning("workers not found: those of before stay", source=source, reason=reason, workers=kept)

    def broke(self, source: str, error: Exception) -> None:
        """It is asked anew after a fault of this program's."""
        reason = f"{type(error).__name__}: {error}"
        if self._is_news(source, reason):
            kept = self._counts.get(source, 0)
            _log.error("a source of workers broke: those of before stay", source=source, workers=kept, exc_info=error)

    def _is_news(self, source: str, reason: str) -> bool:
        """Count a failure; whether its reason is another one than that of the last, whatever figures are in it."""
        self._up.labels(source).set(0)
        self._answers.labels(source, "failed").inc()
        before, self._reasons[source] = self._reasons.get(source, ""), reason
        return _FIGURES.sub("", before) != _FIGURES.sub("", reason)

    def forgotten(self, source: str) -> None:
        """It is not asked any more."""
        for metric, *labels in (
            (self._up, source),
            (self._workers, source),
            (self._answers, source, "found"),
            (self._answers, source, "failed"),
        ):
            with suppress(KeyError):  # older clients of Prometheus know only what was set
                metric.remove(*labels)
        self._counts.pop(source, None)
        self._reasons.pop(source, None)
        _log.info("source of workers forgotten", source=source)


def static_addresses(config: GatewayConfig) -> tuple[str, ...]:
    """The list of the configuration, where it counts."""
    return config.gateway.worker_addresses if config.discovery.static else ()


def unused_list(config: GatewayConfig) -> str:
    """What is to be said of a list that was given and does not count; nothing otherwise."""
    if config.discovery.static or config.gateway.worker_addresses == type(config.gateway)().worker_addresses:
        return ""
    return "WORKER_ADDRESSES is given and not used: NEUROGATE_DISCOVERY has no `static` among its sources"


class Resolvers:
    """A `Maker`. What it raises, `check` raises before."""

    def __init__(
        self,
        settings: DiscoverySettings,
        *,
        observer: SourceObserver,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._loop = loop
        self._rng = rng

    def settings_of(self, source: Source) -> object:
        """Those that its resolver asks with."""
        settings = self._settings
        if isinstance(source, KubernetesSource):
            return (
                settings.kubernetes_url,
                settings.kubernetes_account,
                settings.kubernetes_host,
                settings.kubernetes_port,
            )
        return settings.refresh_s

    def make(self, source: Source, known: tuple[Endpoint, ...]) -> Resolver:
        """The resolver of a source."""
        observer, loop, rng = self._observer, self._loop, self._rng
        if isinstance(source, KubernetesSource):
            api = KubernetesApi(source, self._settings, rng=rng)
            return KubernetesResolver(source, api, observer=observer, loop=loop, rng=rng, known=known)
        return DnsResolver(
            source,
            NameServers(),
            refresh_s=self._settings.refresh_s,
            observer=observer,
            loop=loop,
            rng=rng,
            known=known,
        )


def check(settings: DiscoverySettings) -> None:
    """Raise ConfigError for a source that cannot be asked from here."""
    for source in dynamic(settings.sources):
        if isinstance(source, KubernetesSource):
            KubernetesApi(source, settings, rng=random.Random(0))  # noqa: S311 - never asked anything
