"""A certificate authority for development: makes certificates that real handshakes take.

Its key lies in a file beside the others. Whoever needs a real one uses a real one.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurogate.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_CLOCK_SKEW = dt.timedelta(minutes=5)
"""Certificates begin a little in the past: other machines' clocks may be behind."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in PEM."""

    cert: bytes
    key: bytes


class Authority:
    """A CA that was just made. `now` is Unix time."""

    def __init__(self, name: str, *, now: float, days: int) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        self._now = dt.datetime.fromtimestamp(now, dt.UTC)
        self._days = days
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(ca=True), critical=True)
        self.issued = self._sign(builder, self._key)
        """The CA's own certificate and key."""

    def issue(self, name: str, *, server: bool, client: bool, sans: Iterable[str] = ()) -> Issued:
        """A certificate for a server, a client or both; `sans` as `DNS:name`, `IP:address` or just either.

        Raises ConfigError for a name that is none.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        names = [_general_name(san) for san in dict.fromkeys(sans)] or [x509.DNSName(name)]
        builder = self._builder(_name(name), key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._sign(builder, key)

    def _builder(self, subject: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        from cryptography import x509

        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _CLOCK_SKEW)
            .not_valid_after(self._now + dt.timedelta(days=self._days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> Issued:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        certificate = builder.sign(self._key, SHA256())
        return Issued(
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )


def _name(name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(san: str) -> x509.GeneralName:
    from cryptography import x509

    kind, colon, value = san.partition(":")
    if not colon or kind not in {"DNS", "IP"}:
        kind, value = "", san
    try:
        if kind != "DNS":
            return x509.IPAddress(ipaddress.ip_address(value))
    except ValueError:
        if kind == "IP":
            raise ConfigError(f"--san {san}: {value!r} is no IP address") from None
    try:
        return x509.DNSName(value.encode("idna").decode() if not value.isascii() else value)
    except (ValueError, UnicodeError):
        raise ConfigError(f"--san {san}: {value!r} is no host name") from None
