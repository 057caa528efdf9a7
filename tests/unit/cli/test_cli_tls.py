"""The commands that ask a gateway reach one whose certificate is from a CA of its own."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from neurogate.cli.main import main
from tls_support import Pki

Run = Callable[..., tuple[int, str, str]]
SAYS = {
    "status": "ok",
    "error": "",
    "id": "worker-1",
    "address": "box:1",
    "in_flight": 0,
    "changed": [],
    "needs_restart": [],
    "keys_loaded": 1,
    "settings": {},
    "workers": [],
    "worker": {"id": "worker-1", "cordoned": False, "in_flight": 0, "circuit_breaker_state": "closed"},
}


class Gateway:
    """Answers everything alike, by HTTPS."""

    def __init__(self, pki: Pki) -> None:
        self.ca = pki.ca

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Quiet."""

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(SAYS).encode())

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the server's names

        class Quiet(HTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that does not trust it hangs up."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pki.issue("gateway"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(Pki(tmp_path / "pki"))
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def neurogate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process. Returns exit code, standard output and standard error."""
    monkeypatch.setenv("NEUROGATE_ADMIN_KEY", "an-admin-key-of-ours")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        code = exited.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


COMMANDS = [
    ("health",),
    ("workers", "--json"),
    ("admin", "reload"),
    ("admin", "config", "get"),
    ("admin", "config", "set", "gateway.retries=1"),
    ("admin", "workers", "add", "box:1"),
    ("admin", "workers", "remove", "worker-1"),
    ("admin", "workers", "drain", "worker-1"),
    ("admin", "workers", "resume", "worker-1"),
    ("admin", "breakers", "reset", "worker-1"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_asks_a_gateway_takes_its_ca(neurogate: Run, gateway: Gateway, command: list[str]) -> None:
    code, _, errors = neurogate(*command, "--url", gateway.url, "--tls-ca", gateway.ca)

    assert (code, errors) == (0, "")


@pytest.mark.parametrize("command", [*COMMANDS[:3], ("verify", "--direct", "DIRECT", "--proxy", "DIRECT")])
def test_a_gateway_that_is_not_trusted_is_told_with_what_to_do(
    neurogate: Run, gateway: Gateway, command: tuple[str, ...]
) -> None:
    asked = [word.replace("DIRECT", gateway.url) for word in command]

    code, shown, errors = neurogate(*asked, *([] if "verify" in command else ["--url", gateway.url]))

    assert (code, shown) == (1, "")
    assert errors.startswith(f"neurogate: {gateway.url}")
    assert "its certificate is not trusted here; name the CA that signed it with --tls-ca" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_that_is_none_is_told(neurogate: Run, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)

    for command in COMMANDS[:3]:
        code, _, errors = neurogate(*command, "--url", "https://localhost:1", "--tls-ca", str(file))
        assert code == 1
        assert errors.startswith(f"neurogate: --tls-ca: {file} cannot be read (")
