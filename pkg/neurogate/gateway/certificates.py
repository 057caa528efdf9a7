"""The TLS of one gateway: towards its clients, and towards its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio
from prometheus_client import CollectorRegistry

from neurogate.edge.settings import TlsSettings
from neurogate.errors import ConfigError
from neurogate.rpc.call_channel import ChannelOptions, Dial, dial_plain
from neurogate.telemetry.certificates import CertificateMetrics
from neurogate.tls.live import LiveTls
from neurogate.tls.material import PemFile, TlsFiles
from neurogate.tls.settings import LinkTlsSettings, link_files


class Certificates:
    """Both sides, each None where it is off. Raises ConfigError for files that cannot be used."""

    def __init__(
        self,
        public: TlsSettings,
        link: LinkTlsSettings,
        *,
        registry: CollectorRegistry,
        now: Callable[[], float],
    ) -> None:
        public_files, files = _public_files(public), link_files(link)
        if public_files.ca.path and not public_files.cert.path:
            raise ConfigError("NEUROGATE_TLS_CERT: is needed, because NEUROGATE_TLS_CLIENT_CA is set")
        if files.cert.path and not files.ca.path:
            raise ConfigError("NEUROGATE_LINK_TLS_CA: is needed to know the workers, because a link certificate is set")
        used = [bool(public_files.cert.path or public_files.key.path), bool(files.ca.path or files.key.path)]
        metrics = CertificateMetrics(registry) if any(used) else None
        self.public = LiveTls(public_files, now=now, observer=metrics) if metrics and used[0] else None
        self.link = LiveTls(files, now=now, observer=metrics) if metrics and used[1] else None
        self._link_name = link.name

    @property
    def dial(self) -> Dial:
        """How workers are reached."""
        link = self.link
        if link is None:
            return dial_plain

        def dial(address: str, options: ChannelOptions) -> grpc.aio.Channel:
            return link.dial(address, options, name=self._link_name)

        return dial

    @property
    def problem(self) -> str:
        """Why the newest files are not used; empty when they are."""
        return "; ".join(live.problem for live in self._live() if live.problem)

    async def watch(self) -> None:
        """Take new files into use when they change, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for live in self._live():
                tasks.create_task(live.watch(), name="certificates")

    def ask(self) -> None:
        """Look at the files now. Never blocks."""
        for live in self._live():
            live.ask()

    def _live(self) -> list[LiveTls]:
        return [live for live in (self.public, self.link) if live is not None]


def _public_files(settings: TlsSettings) -> TlsFiles:
    return TlsFiles(
        PemFile("NEUROGATE_TLS_CERT", settings.cert),
        PemFile("NEUROGATE_TLS_KEY", settings.key),
        PemFile("NEUROGATE_TLS_CLIENT_CA", settings.client_ca),
    )
