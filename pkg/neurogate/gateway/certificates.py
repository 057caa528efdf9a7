"""The TLS of one gateway: towards its clients, and towards its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio
from prometheus_client import CollectorRegistry

from neurogate.edge.settings import TlsSettings
from neurogate.errors import ConfigError
from neurogate.rpc.call_channel import ChannelOptions, Dial, dial_plain
from neurogate.rpc.http2.dialing import LinkDialer
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
        public_files, files = public_side(public), link_side(link)
        metrics = CertificateMetrics(registry) if public_files or files else None
        self.public = LiveTls(public_files, now=now, observer=metrics) if metrics and public_files else None
        self.link = LiveTls(files, now=now, observer=metrics) if metrics and files else None
        self._link_name = link.name

    @property
    def dialer(self) -> LinkDialer:
        """How workers are reached for their links."""
        return LinkDialer() if self.link is None else LinkDialer(self.link.dialling, name=self._link_name)

    @property
    def dial(self) -> Dial:
        """How workers are reached for calls beside their links."""
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


def public_side(settings: TlsSettings) -> TlsFiles | None:
    """The files for clients; None where TLS is off. Raises ConfigError when the settings lack one."""
    files = TlsFiles(
        PemFile("NEUROGATE_TLS_CERT", settings.cert),
        PemFile("NEUROGATE_TLS_KEY", settings.key),
        PemFile("NEUROGATE_TLS_CLIENT_CA", settings.client_ca),
    )
    if files.ca.path and not files.cert.path:
        raise ConfigError("NEUROGATE_TLS_CERT: is needed, because NEUROGATE_TLS_CLIENT_CA is set")
    return files if files.cert.path or files.key.path else None


def link_side(settings: LinkTlsSettings) -> TlsFiles | None:
    """The files for workers; None where links are plain. Raises ConfigError when the settings lack one."""
    files = link_files(settings)
    if files.cert.path and not files.ca.path:
        raise ConfigError("NEUROGATE_LINK_TLS_CA: is needed to know the workers, because a link certificate is set")
    return files if files.ca.path or files.key.path else None
