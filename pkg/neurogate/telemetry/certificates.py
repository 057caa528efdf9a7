"""Metrics of certificates, on the registry of whichever process has them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class CertificateMetrics:
    """A `TlsObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._expires = Gauge(
            "neurogate_certificate_expires_timestamp_seconds",
            "Unix time at which the certificate in use ends.",
            ["setting"],
            registry=registry,
        )
        self._reloads = Counter(
            "neurogate_certificate_loads_total",
            "Certificates that were taken into use (used), or not because they do not fit (refused).",
            ["setting", "result"],
            registry=registry,
        )

    def certificate_used(self, setting: str, expires_at: float) -> None:
        """These files are used from now on."""
        self._expires.labels(setting).set(expires_at)
        self._reloads.labels(setting, "used").inc()

    def certificate_refused(self, setting: str) -> None:
        """New files do not fit."""
        self._reloads.labels(setting, "refused").inc()
