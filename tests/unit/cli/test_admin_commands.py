"""`neurogate admin`: what it asks of a gateway, what it prints, and how it exits."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from neurogate.cli.main import main

KEY = "an-admin-key-of-ours"
Run = Callable[..., tuple[int, str, str]]
WORKER = {"id": "worker-0", "cordoned": True, "in_flight": 2, "circuit_breaker_state": "closed"}
SETTINGS = {
    "gateway.retries": {"value": 1, "source": "admin API", "reloads": True},
    "gateway.http_port": {"value": 8080, "source": "default", "reloads": False},
    "keys.api_keys": {"value": ["********"], "source": "env API_KEYS", "reloads": True},
}


class FakeAdmin:
    """A gateway that remembers what it was asked and answers what it was told to."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = {}
        self.asked: list[tuple[str, str, str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Quiet."""

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = json.loads(body) if body else None
                fake.asked.append((self.command, self.path, self.headers["authorization"], asked))
                self.send_response(fake.status)
                self.end_headers()
                self.wfile.write(fake.answer if isinstance(fake.answer, bytes) else json.dumps(fake.answer).encode())

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the server's names

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def gateway() -> Iterator[FakeAdmin]:
    made = FakeAdmin()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def admin(capsys: pytest.CaptureFixture[str], gateway: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `neurogate admin ...` against the fake. Returns exit code, standard output and standard error."""
    monkeypatch.setenv("NEUROGATE_ADMIN_KEY", f"{KEY}, another-key-of-ours")

    def run(*arguments: str, url: str = gateway.url) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(["admin", *arguments, "--url", url])
        code = exited.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def test_config_get_shows_values_with_sources(admin: Run, gateway: FakeAdmin) -> None:
    gateway.answer = {"status": "ok", "error": "", "settings": SETTINGS}

    code, shown, errors = admin("config", "get")

    assert (code, errors) == (0, "")
    assert shown.splitlines() == [
        "gateway.retries = 1  # admin API",
        "gateway.http_port = 8080  # default, restart",
        'keys.api_keys = ["********"]  # env API_KEYS',
    ]
    assert gateway.asked == [("GET", "/admin/config", f"Bearer {KEY}", None)]


def test_config_get_shows_sections_and_keys_that_are_named(admin: Run, gateway: FakeAdmin) -> None:
    gateway.answer = {"status": "invalid", "error": "torn", "settings": SETTINGS}

    assert admin("config", "get", "keys", "gateway.retries")[1].count("\n") == 2
    code, _, errors = admin("config", "get", "nothing")
    assert code == 1
    assert "there is no setting nothing" in errors
    assert "the configuration is invalid: torn" in errors
    assert list(json.loads(admin("config", "get", "keys", "--json")[1])["settings"]) == ["keys.api_keys"]


def test_config_set_sends_what_was_named_and_takes_back_what_has_no_value(admin: Run, gateway: FakeAdmin) -> None:
    gateway.answer = {"status": "ok", "changed": ["gateway.retries"], "needs_restart": []}

    assert admin("config", "set", "gateway.retries=1", "limits.requests_per_minute=") == (
        0,
        "changed: gateway.retries\n",
        "",
    )
    assert gateway.asked[0][:2] == ("PUT", "/admin/config")
    assert gateway.asked[0][3] == {"gateway.retries": "1", "limits.requests_per_minute": None}


def test_what_needs_a_restart_is_a_failure(admin: Run, gateway: FakeAdmin) -> None:
    gateway.answer = {"status": "ok", "changed": [], "needs_restart": ["gateway.http_port"]}

    assert admin("config", "set", "gateway.http_port=1") == (
        1,
        "changed: nothing\n",
        "neurogate: not applied, needs a restart: gateway.http_port\n",
    )


@pytest.mark.parametrize("assignment", ["gateway.retries", "=1"])
def test_what_is_no_assignment_is_said(admin: Run, gateway: FakeAdmin, assignment: str) -> None:
    code, _, errors = admin("config", "set", assignment)

    assert code == 1
    assert "is not KEY=VALUE" in errors
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("arguments", "answer", "asked", "printed"),
    [
        (
            ("workers", "add", "a:1"),
            {"id": "worker-3", "address": "a:1"},
            ("POST", "/admin/workers", {"address": "a:1"}),
            "worker-3 is a:1",
        ),
        (
            ("workers", "remove", "worker-0"),
            {"id": "worker-0", "in_flight": 0},
            ("DELETE", "/admin/workers/worker-0", None),
            "worker-0 is removed",
        ),
        (
            ("workers", "remove", "a/b"),
            {"id": "a/b", "in_flight": 2},
            ("DELETE", "/admin/workers/a%2Fb", None),
            "a/b is removed; it finishes 2 requests first",
        ),
        (
            ("workers", "drain", "worker-0"),
            {"worker": WORKER},
            ("POST", "/admin/workers/worker-0/drain", None),
            "worker-0 gets nothing new; it holds 2 requests",
        ),
        (
            ("workers", "resume", "worker-0"),
            {"worker": {**WORKER, "cordoned": False}},
            ("POST", "/admin/workers/worker-0/resume", None),
            "worker-0 takes requests; it holds 2 requests",
        ),
        (
            ("breakers", "reset", "worker-0"),
            {"worker": WORKER},
            ("POST", "/admin/breakers/worker-0/reset", None),
            "worker-0: breaker closed",
        ),
        (
            ("drain",),
            {"draining": True},
            ("POST", "/admin/drain", None),
            "the gateway is not ready; it serves what comes all the same",
        ),
        (("undrain",), {"draining": False}, ("POST", "/admin/undrain", None), "the gateway is ready"),
        (
            ("reload",),
            {"changed": [], "needs_restart": [], "keys_loaded": 3},
            ("POST", "/admin/reload", None),
            "keys loaded: 3\nchanged: nothing",
        ),
    ],
)
def test_each_command_is_one_call(
    admin: Run, gateway: FakeAdmin, arguments: tuple[str, ...], answer: Any, asked: tuple[Any, ...], printed: str
) -> None:
    gateway.answer = answer

    assert admin(*arguments) == (0, f"{printed}\n", "")
    ((method, path, _, body),) = gateway.asked
    assert (method, path, body) == asked


def test_a_refusal_is_told_in_the_gateways_words(admin: Run, gateway: FakeAdmin) -> None:
    gateway.status, gateway.answer = 404, {"error": "x", "code": "worker_not_found", "message": "there is no worker"}
    assert admin("workers", "drain", "worker-9") == (1, "", "neurogate: there is no worker\n")

    gateway.status, gateway.answer = 500, []
    assert admin("workers", "drain", "worker-9") == (1, "", "neurogate: the gateway answered with 500\n")


def test_keys_that_could_not_be_read_are_a_failure_beside_what_was_changed(admin: Run, gateway: FakeAdmin) -> None:
    error = "AUTH_KEYS_FILE: keys is empty; the keys of before stay"
    done = {"changed": ["gateway.retries"], "needs_restart": [], "keys_loaded": 4}
    gateway.status = 400
    gateway.answer = {"status": "invalid", "error": error, "code": "invalid_config", "message": error, **done}

    assert admin("reload") == (1, "keys loaded: 4\nchanged: gateway.retries\n", f"neurogate: {error}\n")


def test_nobody_there_and_something_else_there_are_said(admin: Run, gateway: FakeAdmin) -> None:
    gateway.answer = b"<html>"
    assert "is it a gateway?" in admin("reload")[2]
    assert "is it running?" in admin("reload", url="http://127.0.0.1:1")[2]


def test_a_key_is_needed_and_a_flag_wins_over_the_environment(
    admin: Run, gateway: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.answer = {"changed": [], "needs_restart": [], "keys_loaded": 0}
    admin("reload", "--admin-key", "from-the-flag")
    assert gateway.asked[0][2] == "Bearer from-the-flag"

    monkeypatch.setenv("NEUROGATE_ADMIN_KEY", "me:sha256$" + "0" * 64)
    code, _, errors = admin("reload")
    assert (code, len(gateway.asked)) == (78, 1)
    assert "a digest opens nothing" in errors
    monkeypatch.delenv("NEUROGATE_ADMIN_KEY")
    assert admin("reload")[0] == 78
