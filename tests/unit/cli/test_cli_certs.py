"""`neurogate certs dev`."""

from __future__ import annotations

import re
import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from neurogate.cli.main import main
from neurogate.tls.live import LiveTls
from neurogate.tls.material import PemFile, TlsFiles
from tls_support import RecordingTlsObserver


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        main(("certs", "dev", *arguments))
    return (int(exited.value.code or 0), *capsys.readouterr())


def names(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def test_it_makes_what_the_settings_that_it_prints_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "made" / "certs"
    code, shown, error = run(capsys, "--dir", str(directory), "--san", "IP:10.5.0.2", "--san", "DNS:gw.example")

    assert (code, error) == (0, "")
    assert sorted(path.name for path in directory.iterdir()) == [
        f"{name}.{ending}" for name in ("ca", "client", "server", "worker") for ending in ("crt", "key")
    ]
    for path in directory.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(directory / "server.crt") >= {"localhost", "127.0.0.1", "::1", "10.5.0.2", "gw.example"}
    assert names(directory / "worker.crt") >= {"localhost", "127.0.0.1", "::1", "10.5.0.2", "gw.example"}
    for name in ("server", "worker", "client"):
        files = [PemFile(kind, str(directory / f"{name}.{kind}")) for kind in ("crt", "key")]
        live = LiveTls(
            TlsFiles(*files, PemFile("ca", str(directory / "ca.crt"))), now=time.time, observer=RecordingTlsObserver()
        )
        assert live.material.warnings == ()
    ssl.create_default_context(cafile=str(directory / "ca.crt"))
    for setting, path in re.findall(r"(NEUROGATE_\w+)=(\S+)", shown):
        assert Path(path).exists(), setting


def test_it_never_replaces_files_unless_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "worker.key").write_text("mine")
    code, _, error = run(capsys, "--dir", str(tmp_path))
    assert code == 1
    assert error == f"neurogate: {tmp_path}/worker.key: there already; --force replaces all of them\n"
    assert (tmp_path / "worker.key").read_text() == "mine"
    assert not (tmp_path / "ca.key").exists()

    assert run(capsys, "--dir", str(tmp_path), "--force", "--days", "2", "--name", "mine")[0] == 0
    certificate = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=mine CA"
    assert 1.9 < (certificate.not_valid_after_utc.timestamp() - time.time()) / 86_400 < 2.1


@pytest.mark.parametrize(("flag", "value"), [("--san", "IP:nowhere"), ("--dir", "/dev/null/certs")])
def test_what_cannot_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    code, shown, error = run(capsys, "--dir", str(tmp_path), flag, value)

    assert (code, shown) == (78, "")
    assert error.startswith(f"neurogate: {flag} {value}: ")
