"""Metrics of certificates, on the registry of whichever process has them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from neurogate.telemetry import catalog


class CertificateMetrics:
    """A `TlsObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._expires = catalog.CERTIFICATE_EXPIRES.on(registry)
        self._reloads = catalog.CERTIFICATE_LOADS.on(registry)

    def certificate_used(self, setting: str, expires_at: float) -> None:
        """These files are used from now on."""
        self._expires.labels(setting).set(expires_at)
        self._reloads.labels(setting, "used").inc()

    def certificate_refused(self, setting: str) -> None:
        """New files do not fit."""
        self._reloads.labels(setting, "refused").inc()
