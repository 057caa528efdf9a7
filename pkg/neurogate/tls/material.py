"""PEM files as one whole: certificate chain, its key, and the CAs that must have signed the other side's.

They are read together and checked together, before anybody uses any of them.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neurogate.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file, and the setting that names it."""

    setting: str
    path: str
    """Empty when it is not set."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one side of one wire."""

    cert: PemFile
    key: PemFile
    ca: PemFile

    def check_named(self) -> None:
        """Raise ConfigError when a certificate comes without its key, or a key without its certificate."""
        for needed, given in ((self.key, self.cert), (self.cert, self.key)):
            if given.path and not needed.path:
                raise ConfigError(f"{needed.setting}: is needed, because {given.setting} is set")


@dataclass(frozen=True, slots=True)
class Material:
    """The contents of the files, in order and checked. Each is empty when its file is not set."""

    cert: bytes
    key: bytes
    ca: bytes
    expires_at: float
    """Unix time at which the first certificate of the chain ends; infinite without one."""
    warnings: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """Equal for equal contents."""
        return digest_of(self.cert, self.key, self.ca)


def contents(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    """The bytes of the three files. Raises ConfigError naming the setting whose file cannot be read."""
    return _read(files.cert), _read(files.key), _read(files.ca)


def digest_of(*parts: bytes) -> bytes:
    """A fingerprint of contents."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()


def check(files: TlsFiles, cert: bytes, key: bytes, ca: bytes, *, now: Callable[[], float]) -> Material:
    """What the files hold, once it is known to fit together. `now` is Unix time.

    Raises ConfigError naming the setting. What works but will not for long, or is seen by others, is a warning.
    """
    warnings: list[str] = []
    expires_at = float("inf")
    if cert:
        chain = _certificates(files.cert, cert)
        _check_key(files, key, chain[0])
        expires_at = min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
        warnings += _about_time(files.cert, chain[0], expires_at, now())
        warnings += _about_readers(files.key)
    if ca:
        _certificates(files.ca, ca)
    return Material(cert, key, ca, expires_at, tuple(warnings))


def _read(file: PemFile) -> bytes:
    if not file.path:
        return b""
    try:
        return Path(file.path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{file.setting}: cannot read {file.path}: {error.strerror}") from error


def _certificates(file: PemFile, pem: bytes) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(f"{file.setting}: {file.path} holds no certificate in PEM: {error}") from error


def _check_key(files: TlsFiles, key: bytes, certificate: Certificate) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    file = files.key
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError as error:
        raise ConfigError(f"{file.setting}: {file.path} has a password; store the key without one") from error
    except (ValueError, UnsupportedAlgorithm):
        # What was wrong is not told: it might quote the key.
        raise ConfigError(f"{file.setting}: {file.path} holds no private key in PEM") from None
    of_key, of_certificate = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (private.public_key(), certificate.public_key())
    )
    if of_key != of_certificate:
        raise ConfigError(
            f"{file.setting}: {file.path} is not the key of the certificate in {files.cert.path} ({files.cert.setting})"
        )


def _about_time(file: PemFile, certificate: Certificate, expires_at: float, now: float) -> list[str]:
    if now >= expires_at:
        return [f"{file.setting}: the certificate in {file.path} expired {(now - expires_at) / _DAY_S:.1f} days ago"]
    begins_at = certificate.not_valid_before_utc.timestamp()
    if now < begins_at:
        return [
            f"{file.setting}: the certificate in {file.path} is valid in {(begins_at - now) / _DAY_S:.1f} days only"
        ]
    return []


def _about_readers(file: PemFile) -> list[str]:
    try:
        mode = stat.S_IMODE(Path(file.path).stat().st_mode)
    except OSError:  # it went since it was read: the next look tells
        return []
    if mode & 0o077:
        return [f"{file.setting}: others may read or change {file.path} (mode {mode:03o}); chmod 600 it"]
    return []
