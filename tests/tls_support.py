"""Certificates for tests, in files, and the settings that name them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from neurogate.tls.authority import Authority, Issued
from neurogate.tls.live import LiveTls
from neurogate.tls.material import PemFile, TlsFiles

LOCAL = ("DNS:localhost", "IP:127.0.0.1")


class RecordingTlsObserver:
    """Keeps what it hears of certificates."""

    def __init__(self) -> None:
        self.used: list[tuple[str, float]] = []
        self.refused: list[str] = []

    def certificate_used(self, setting: str, expires_at: float) -> None:
        self.used.append((setting, expires_at))

    def certificate_refused(self, setting: str) -> None:
        self.refused.append(setting)


class Pki:
    """One CA and what it signed, in a directory."""

    def __init__(self, directory: Path, *, name: str = "test", now: float | None = None, days: int = 30) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.authority = Authority(name, now=time.time() if now is None else now, days=days)
        self.ca = self._write("ca", self.authority.issued)[0]

    def issue(
        self, name: str, *, server: bool = True, client: bool = True, sans: Iterable[str] = LOCAL
    ) -> tuple[str, str]:
        """Paths of a certificate and its key; a name that was issued before is replaced."""
        return self._write(name, self.authority.issue(name, server=server, client=client, sans=sans))

    def spoil(self, name: str) -> None:
        """Leave half a key in a file."""
        (self.directory / f"{name}.key").write_text("half")

    def files(self, name: str = "", *, ca: str = "", sans: Iterable[str] = LOCAL) -> TlsFiles:
        cert, key = self.issue(name, sans=sans) if name else ("", "")
        return TlsFiles(PemFile("CERT", cert), PemFile("KEY", key), PemFile("CA", ca))

    def live(
        self,
        name: str = "",
        *,
        ca: str = "",
        sans: Iterable[str] = LOCAL,
        observer: RecordingTlsObserver | None = None,
    ) -> LiveTls:
        return LiveTls(self.files(name, ca=ca, sans=sans), now=time.time, observer=observer or RecordingTlsObserver())

    def _write(self, name: str, issued: Issued) -> tuple[str, str]:
        cert, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        cert.write_bytes(issued.cert)
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(issued.key)
        return str(cert), str(key)
