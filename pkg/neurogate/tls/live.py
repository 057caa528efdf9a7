"""The newest certificates, wherever they are needed, without a restart.

One `LiveTls` stands for the files of one side of one wire. What it hands out asks it again at every handshake, so new
files count from the next connection on, and open ones are not touched. Files that do not fit change nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import grpc
import grpc.aio
import structlog

from neurogate.errors import ConfigError
from neurogate.tls.material import Material, TlsFiles, check, contents, digest_of

POLL_S = 5.0
"""Between looks at the files."""

_log = structlog.get_logger("neurogate.tls")


class TlsObserver(Protocol):
    """Hears of certificates, for metrics. `setting` is the one that names the file."""

    def certificate_used(self, setting: str, expires_at: float) -> None:
        """These files are used from now on; `expires_at` is Unix time, infinite where there are only CAs."""
        ...

    def certificate_refused(self, setting: str) -> None:
        """New files do not fit: the old ones go on."""
        ...


class LiveTls:
    """The files of one side, read at once and again whenever they change.

    Raises ConfigError, which names the setting, when they cannot be used as they are at first.
    """

    def __init__(self, files: TlsFiles, *, now: Callable[[], float], observer: TlsObserver) -> None:
        files.check_named()
        self._files = files
        self._now = now
        self._observer = observer
        self._lock = threading.Lock()
        """A look now and then is taken in a thread; the reload hook may ask for one meanwhile."""
        self._setting = files.cert.setting if files.cert.path else files.ca.setting
        self._refused = b""
        """Digest of the contents, or of the words, that were refused last: each is told once."""
        self._asked = asyncio.Event()
        self.problem = ""
        """Why the newest files are not used; empty when they are."""
        self._use(*self._load(contents(files)))

    @property
    def material(self) -> Material:
        """What is used now."""
        return self._material

    def https(self) -> ssl.SSLContext:
        """For an HTTPS listener: TLS 1.2 and later, HTTP/1.1. Every handshake takes the newest certificate."""
        outer = _context(self._files)

        def newest(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._context

        outer.sni_callback = newest
        return outer

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC listener. With CAs, clients must show a certificate that one of them signed."""
        newest = _Newest(self)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(newest.handed_out),
            newest,  # type: ignore[arg-type] # None is documented: no change
            require_client_authentication=bool(self._material.ca),
        )

    def dial(self, address: str, options: Sequence[tuple[str, int | str]], *, name: str = "") -> grpc.aio.Channel:
        """A channel whose server must have been signed by one of the CAs, for `name` or else for its address."""
        material = self._material
        credentials = grpc.ssl_channel_credentials(material.ca, material.key or None, material.cert or None)
        override = (("grpc.ssl_target_name_override", name),) if name else ()
        return grpc.aio.secure_channel(address, credentials, options=(*options, *override))

    def dialling(self) -> ssl.SSLContext:
        """For connections to servers that one of the CAs must have signed: TLS 1.2 and later, HTTP/2. The newest."""
        return self._dialling

    async def watch(self, every_s: float = POLL_S) -> None:
        """Look at the files now and then, and whenever asked to, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._asked.wait()
            self._asked.clear()
            await asyncio.to_thread(self.reload)

    def ask(self) -> None:
        """Let `watch` look now. Never blocks."""
        self._asked.set()

    def reload(self) -> bool:
        """Look at the files now; True when new ones are used from here on. Reads files, for which it blocks."""
        with self._lock:
            return self._reload()

    def _reload(self) -> bool:
        try:
            found = contents(self._files)
            if digest_of(*found) == self._material.digest:
                self.problem = ""
                self._refused = b""
                return False
            loaded = self._load(found)
        except ConfigError as error:
            self._refuse(str(error))
            return False
        self._use(*loaded)
        return True

    def _load(self, found: tuple[bytes, bytes, bytes]) -> tuple[Material, ssl.SSLContext, ssl.SSLContext]:
        material = check(self._files, *found, now=self._now)
        context, dialling = _context(self._files), _dialling(self._files)
        if contents(self._files) != found:  # OpenSSL reads files for itself
            raise ConfigError(f"{self._setting}: the files are changing")
        return material, context, dialling

    def _use(self, material: Material, context: ssl.SSLContext, dialling: ssl.SSLContext) -> None:
        self._material, self._context, self._dialling = material, context, dialling
        self.problem = ""
        self._refused = b""
        self._observer.certificate_used(self._setting, material.expires_at)
        _log.info("certificates", setting=self._setting, expires_at=material.expires_at)
        for warning in material.warnings:
            _log.warning("certificates", problem=warning)

    def _refuse(self, reason: str) -> None:
        self.problem = reason
        refused = digest_of(reason.encode())
        if refused != self._refused:
            self._refused = refused
            self._observer.certificate_refused(self._setting)
            _log.error("new certificates are not used; the old ones go on", reason=reason)


def try_out(files: TlsFiles, *, now: Callable[[], float]) -> Material:
    """What the files hold, found usable as by `LiveTls`, and not used. Blocks. Raises ConfigError as it does."""
    files.check_named()
    material = check(files, *contents(files), now=now)
    _context(files)
    return material


class _Newest:
    """What gRPC asks, from threads of its own, before every handshake: the configuration if it is a new one."""

    def __init__(self, live: LiveTls) -> None:
        self._live = live
        self.handed_out = live.material

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        material = self._live.material
        if material is self.handed_out:
            return None
        self.handed_out = material
        return _configuration(material)


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    if files.ca.path:
        context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, files)


def _dialling(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which asks for a certificate, and for one of that host
    context.set_alpn_protocols(["h2"])
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC: whatever the CA file holds is trusted
    return _filled(context, files)


def _filled(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        if files.cert.path:
            context.load_cert_chain(files.cert.path, files.key.path)
        if files.ca.path:
            context.load_verify_locations(files.ca.path)
    except OSError as error:  # SSLError among them: it went or changed since it was checked, or OpenSSL is stricter
        raise ConfigError(f"{files.cert.setting}: {files.cert.path} cannot be used: {error}") from error
    return context


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], material.ca or None)
