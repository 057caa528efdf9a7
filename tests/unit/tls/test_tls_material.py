"""PEM files are checked as a whole, and errors name the setting."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from http2_support import RecordingOwner
from neurogate.edge.settings import TlsSettings
from neurogate.errors import ConfigError
from neurogate.gateway.certificates import Certificates
from neurogate.rpc.call_channel import dial_plain
from neurogate.rpc.http2.dialing import DialError
from neurogate.telemetry.certificates import CertificateMetrics
from neurogate.tls import live as live_module
from neurogate.tls.authority import Authority
from neurogate.tls.live import LiveTls, _Newest
from neurogate.tls.material import PemFile, TlsFiles, check, contents
from neurogate.tls.settings import LinkTlsSettings, link_files
from tls_support import Pki, RecordingTlsObserver


def checked(files: TlsFiles, now: float | None = None) -> tuple[str, ...]:
    return check(files, *contents(files), now=lambda: time.time() if now is None else now).warnings


def test_good_files_are_taken_without_a_word(tmp_path: Path) -> None:
    pki = Pki(tmp_path)

    material = check(files := pki.files("server", ca=pki.ca), *contents(files), now=time.time)

    assert material.warnings == ()
    assert 29 < (material.expires_at - time.time()) / 86_400 < 31
    assert material.ca == Path(pki.ca).read_bytes()


def test_the_cas_alone_never_expire(tmp_path: Path) -> None:
    pki = Pki(tmp_path)

    assert pki.live(ca=pki.ca).material.expires_at == float("inf")


def test_every_way_to_be_wrong_names_the_setting(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    cert, key = pki.issue("server")
    other_key = pki.issue("other")[1]
    text = tmp_path / "text"
    text.write_text("no PEM at all")
    locked = tmp_path / "locked.key"
    private = load_pem_private_key(Path(key).read_bytes(), None)
    locked.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    for at_cert, at_key, at_ca, told in (
        (str(tmp_path / "none"), key, "", "CERT: cannot read .*none: No such file"),
        (cert, str(tmp_path), "", "KEY: cannot read .*: Is a directory"),
        (str(text), key, "", "CERT: .*text holds no certificate in PEM"),
        (cert, str(text), "", "KEY: .*text holds no private key in PEM"),
        (cert, cert, "", "KEY: .*server.crt holds no private key in PEM"),
        (cert, other_key, "", "KEY: .*other.key is not the key of the certificate in .*server.crt \\(CERT\\)"),
        (cert, str(locked), "", "KEY: .*locked.key has a password"),
        (cert, key, str(text), "CA: .*text holds no certificate in PEM"),
        (cert, "", "", "KEY: is needed, because CERT is set"),
        ("", key, "", "CERT: is needed, because KEY is set"),
    ):
        files = TlsFiles(PemFile("CERT", at_cert), PemFile("KEY", at_key), PemFile("CA", at_ca))
        with pytest.raises(ConfigError, match=told):
            LiveTls(files, now=time.time, observer=RecordingTlsObserver())


def test_what_works_but_is_not_right_is_a_warning(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    files = pki.files("server")
    day = 86_400
    (warning,) = checked(files, time.time() + 40 * day)
    assert "expired 10.0 days ago" in warning
    (warning,) = checked(files, time.time() - 2 * day)
    assert "is valid in 2.0 days only" in warning
    Path(files.key.path).chmod(0o644)
    (warning,) = checked(files)
    assert warning == f"KEY: others may read or change {files.key.path} (mode 644); chmod 600 it"
    Path(files.key.path).unlink()
    assert check(files, *contents(pki.files("server")), now=time.time).warnings == ()


def test_a_key_that_went_away_meanwhile_is_no_warning(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    files = pki.files("server")
    found = contents(files)
    Path(files.key.path).unlink()

    assert check(files, *found, now=time.time).warnings == ()


def test_new_files_are_used_from_then_on_and_bad_ones_are_not(tmp_path: Path) -> None:
    pki, observer = Pki(tmp_path), RecordingTlsObserver()
    live = pki.live("server", observer=observer)
    first = live.material

    assert not live.reload()
    pki.issue("server")
    assert live.reload()
    assert live.material.cert != first.cert
    assert [setting for setting, _ in observer.used] == ["CERT", "CERT"]

    second = live.material
    key = tmp_path / "server.key"
    good = key.read_bytes()
    with capture_logs() as logs:
        for _ in range(3):
            key.write_bytes(b"half")
            assert not live.reload()
    assert live.material is second
    assert "KEY: " in live.problem
    assert observer.refused == ["CERT"], "told once, not at every look"
    assert [log["event"] for log in logs] == ["new certificates are not used; the old ones go on"]
    key.unlink()
    assert not live.reload()
    assert "cannot read" in live.problem
    key.write_bytes(good)
    assert not live.reload()
    assert live.problem == ""


def test_a_watcher_looks_when_it_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        pki, observer = Pki(tmp_path), RecordingTlsObserver()
        live = pki.live("server", observer=observer)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(live.watch(every_s=3600))
            pki.issue("server")
            live.ask()
            while len(observer.used) < 2:
                await asyncio.sleep(0.001)
            watching.cancel()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(live.watch(every_s=0.001))
            pki.issue("server")
            while len(observer.used) < 3:
                await asyncio.sleep(0.001)
            watching.cancel()

    asyncio.run(main())


def test_metrics_say_when_a_certificate_ends() -> None:
    registry = CollectorRegistry()
    metrics = CertificateMetrics(registry)
    metrics.certificate_used("NEUROGATE_TLS_CERT", 1234.0)
    metrics.certificate_refused("NEUROGATE_TLS_CERT")

    labels = {"setting": "NEUROGATE_TLS_CERT"}
    assert registry.get_sample_value("neurogate_certificate_expires_timestamp_seconds", labels) == 1234
    for result in ("used", "refused"):
        assert registry.get_sample_value("neurogate_certificate_loads_total", {**labels, "result": result}) == 1


def test_the_links_settings_name_its_files() -> None:
    files = link_files(LinkTlsSettings(cert="a", key="b", ca="c"))

    assert [(file.setting, file.path) for file in (files.cert, files.key, files.ca)] == [
        ("NEUROGATE_LINK_TLS_CERT", "a"),
        ("NEUROGATE_LINK_TLS_KEY", "b"),
        ("NEUROGATE_LINK_TLS_CA", "c"),
    ]


def test_an_authority_issues_for_names_and_addresses() -> None:
    authority = Authority("A", now=1_700_000_000, days=10)
    issued = authority.issue(
        "s", server=True, client=False, sans=("DNS:a.b", "IP:10.0.0.1", "c.d", "::1", "b\u00fc.de")
    )

    certificate = x509.load_pem_x509_certificate(issued.cert)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.b", "c.d", "xn--b-eha.de"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]
    assert certificate.not_valid_after_utc.timestamp() == 1_700_000_000 + 10 * 86_400
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.issued.cert))
    for san, told in (("IP:x", "is no IP address"), ("DNS:" + "\u00fc" * 80, "is no host name")):
        with pytest.raises(ConfigError, match=told):
            authority.issue("s", server=True, client=False, sans=(san,))


def test_grpc_is_given_a_configuration_only_when_it_is_new(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    live = pki.live("server")
    newest = _Newest(live)

    assert newest() is None
    pki.issue("server")
    live.reload()
    assert newest() is not None
    assert newest() is None


def test_files_that_change_while_they_are_read_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Pki(tmp_path)
    live = pki.live("server")
    first = live.material
    pki.issue("server")
    read = live_module.contents

    def changing(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
        found = read(files)
        pki.issue("server")
        return found

    monkeypatch.setattr(live_module, "contents", changing)
    assert not live.reload()
    assert live.material is first
    assert live.problem
    monkeypatch.undo()
    assert live.reload()
    assert live.problem == ""


def test_what_only_openssl_refuses_is_told_too(tmp_path: Path) -> None:
    """A short key parses, and belongs to its certificate."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    cert, pem = tmp_path / "weak.crt", tmp_path / "weak.key"
    cert.write_bytes(certificate.public_bytes(Encoding.PEM))
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files = TlsFiles(PemFile("CERT", str(cert)), PemFile("KEY", str(pem)), PemFile("CA", ""))

    with pytest.raises(ConfigError, match=r"CERT: .*weak.crt cannot be used: .*(KEY_TOO_SMALL|ee key too small)"):
        LiveTls(files, now=time.time, observer=RecordingTlsObserver())


def test_a_gateways_certificates_tell_of_both_sides(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        (cert, key), (link_cert, link_key) = pki.issue("server"), pki.issue("link")
        both = Certificates(
            TlsSettings(cert=cert, key=key),
            LinkTlsSettings(cert=link_cert, key=link_key, ca=pki.ca),
            registry=CollectorRegistry(),
            now=time.time,
        )
        assert both.problem == ""
        pki.spoil("server")
        pki.spoil("link")
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(both.watch())
            both.ask()
            while both.problem.count("holds no private key") < 2:
                await asyncio.sleep(0.001)
            watching.cancel()
        assert both.problem.startswith("NEUROGATE_TLS_KEY: ")
        assert "; NEUROGATE_LINK_TLS_KEY: " in both.problem
        channel = both.dial("127.0.0.1:1", ())
        await channel.close()
        with pytest.raises(DialError, match="connection refused"):
            await both.dialer("127.0.0.1:1", RecordingOwner(), timeout_s=10, max_message_bytes=10)

    asyncio.run(main())


def test_without_settings_there_is_no_tls() -> None:
    none = Certificates(TlsSettings(), LinkTlsSettings(), registry=CollectorRegistry(), now=time.time)

    assert (none.public, none.link, none.problem, none.dial) == (None, None, "", dial_plain)
    none.ask()
    asyncio.run(none.watch())
