"""The command line: what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from neurogate import __version__
from neurogate.cli.flags import Flags
from neurogate.cli.main import main
from neurogate.config import child_environment, env_names, flag, sections
from neurogate.dataplane import exchange
from neurogate.engines.settings import EngineSettings, SimSettings
from neurogate.errors import ConfigError
from neurogate.gateway.settings import GatewayConfig, GatewaySettings
from neurogate.worker.settings import WorkerSettings

COMPILED = not exchange.__file__.endswith(".py")
"""These tests run on a compiled hot path, too (make test-native)."""
VERSION = f"neurogate {__version__}{' (compiled)' if COMPILED else ''}\n"


@pytest.fixture
def neurogate(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process. Returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        return (exited.value.code or 0, *capsys.readouterr())

    return run


class Answers:
    """A gateway that answers every GET with the same."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b"{}"
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                answers.path = self.path
                self.send_response(answers.status)
                self.end_headers()
                self.wfile.write(answers.body)

        self.path = ""
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def answers() -> Iterator[Answers]:
    made = Answers()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_version(neurogate):
    assert neurogate("--version") == (0, VERSION, "")


def test_help_names_every_command(neurogate):
    code, shown, _ = neurogate("--help")

    assert code == 0
    for command in ("gateway", "worker", "up", "demo", "sim-engine", "health", "workers", "settings", "models"):
        assert f"\n  {command} " in shown


def test_no_command_shows_the_help(neurogate):
    assert "Usage: neurogate" in "".join(map(str, neurogate()))


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "neurogate", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == VERSION


def test_help_imports_nothing_heavy():
    """Start-up time is a promise, and imports are what breaks it."""
    script = (
        "import sys\n"
        "from neurogate.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    heavy = {'rich', 'httpx', 'aiohttp', 'grpc', 'uvicorn', 'starlette', 'uvloop'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gateway", "--http-port", "many"], "--http-port: "),
        (["gateway", "--balancer", "best"], "--balancer: "),
        (["worker", "--grpc-port", "70000"], "--grpc-port: "),
        (["worker", "--engine", "magic"], "--engine: "),
        (["worker", "--sim-slots", "0"], "--sim-slots: "),
    ],
)
def test_wrong_setting_exits_with_78_and_names_it(neurogate, arguments, told):
    code, shown, error = neurogate(*arguments)

    assert code == 78
    assert shown == ""
    assert error.startswith(f"neurogate: {told}")
    assert error.count("\n") == 1, "one line, no stack trace"


def test_wrong_flag_exits_with_2(neurogate):
    assert neurogate("gateway", "--nonsense")[0] == 2


@pytest.mark.parametrize("command", ["gateway", "worker", "up", "demo", "sim-engine", "health", "workers", "settings"])
def test_every_command_has_help(neurogate, command):
    assert neurogate(command, "--help")[0] == 0


@pytest.mark.parametrize(
    ("command", "settings"),
    [("gateway", sections(GatewayConfig).values()), ("worker", [WorkerSettings, EngineSettings, SimSettings])],
)
def test_every_setting_of_a_process_is_a_flag(neurogate, command, settings):
    _, shown, _ = neurogate(command, "--help")

    for struct in settings:
        for env in env_names(struct).values():
            assert f"{flag(env)} " in shown


def test_flag_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("HTTP_PORT", "1")
    monkeypatch.setenv("METRICS_PORT", "2")

    found = Flags({"HTTP_PORT": "3", "API_KEYS": "a,b", "GRPC_PORT": "4"}).load_config(GatewayConfig)

    assert (found.gateway.http_port, found.gateway.metrics_port, found.keys.api_keys) == (3, 2, ("a", "b"))
    with pytest.raises(ConfigError, match=r"^--http-port: "):
        Flags({"HTTP_PORT": "-1"}).load(GatewaySettings)
    with pytest.raises(ConfigError, match=r"^--http-port: "):
        Flags({"HTTP_PORT": "-1"}).load_config(GatewayConfig)


def test_health_is_what_the_gateway_says(neurogate, answers):
    answers.body = b'{"status": "healthy"}'

    assert neurogate("health", "--url", answers.url) == (0, '{"status": "healthy"}\n', "")
    assert answers.path == "/health"


@pytest.mark.parametrize("status", ["unhealthy", "draining"])
def test_a_worker_that_is_alive_and_not_well_fails(neurogate, answers, status):
    answers.body = json.dumps({"status": status}).encode()

    assert neurogate("health", "--url", answers.url)[0] == 1


def test_bad_health_fails(neurogate, answers):
    answers.status, answers.body = 503, b'{"status": "unhealthy"}'

    assert neurogate("health", "--url", answers.url) == (1, '{"status": "unhealthy"}\n', "")


def test_workers_are_a_table(neurogate, answers):
    states = [
        {"healthy": True, "ready": True, "circuit_breaker_state": "half-open"},
        {"healthy": False, "ready": False, "circuit_breaker_state": "open"},
        {"healthy": True, "ready": False, "circuit_breaker_state": "closed"},
        {"healthy": True, "ready": False, "draining": True, "circuit_breaker_state": "closed"},
    ]
    workers = [{"id": f"worker-{index}", "address": "a:1", **state} for index, state in enumerate(states)]
    answers.body = json.dumps({"workers": workers, "count": 4}).encode()

    code, shown, _ = neurogate("workers", "--url", answers.url)

    assert code == 0
    assert [line.rstrip().split(maxsplit=2) for line in shown.splitlines()] == [
        ["worker", "address", "state        breaker"],
        ["worker-0", "a:1", "ready        half-open"],
        ["worker-1", "a:1", "unreachable  open"],
        ["worker-2", "a:1", "not_ready    closed"],
        ["worker-3", "a:1", "draining     closed"],
    ]


def test_a_worker_is_in_the_state_that_the_gateway_says(neurogate, answers):
    worker = {"id": "worker-0", "address": "a:1", "state": "half_open", "healthy": True, "ready": True}
    answers.body = json.dumps({"workers": [{**worker, "circuit_breaker_state": "half-open"}], "count": 1}).encode()

    _, shown, _ = neurogate("workers", "--url", answers.url)

    assert shown.splitlines()[1].split() == ["worker-0", "a:1", "half_open", "half-open"]


def test_workers_as_json_are_the_gateways_own(neurogate, answers):
    answers.body = b'{"workers": [], "count": 0, "new": 1}'

    _, shown, _ = neurogate("workers", "--json", "--url", answers.url)

    assert json.loads(shown) == {"workers": [], "count": 0, "new": 1}


def test_refused_workers_fail(neurogate, answers):
    answers.status, answers.body = 401, b'{"error": "no"}'

    assert neurogate("workers", "--url", answers.url) == (1, "", '{"error": "no"}\n')


def test_nobody_there_is_said(neurogate):
    code, _, error = neurogate("health", "--url", "http://127.0.0.1:1")

    assert code == 1
    assert "is it running? give its address with --url" in error


def test_something_else_there_is_said(neurogate, answers):
    answers.body = b"<html>"

    code, _, error = neurogate("workers", "--url", answers.url)

    assert code == 1
    assert "is it a gateway?" in error


def test_models_are_fetched_listed_and_found(neurogate, monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROGATE_MODEL_DIR", str(tmp_path))
    file = tmp_path / "Mine.gguf"
    file.write_bytes(b"GGUF")

    assert neurogate("models", "fetch", "mine") == (0, f"{file}\n", "")
    assert neurogate("models", "path", "mine") == (0, f"{file}\n", "")
    code, shown, _ = neurogate("models", "list")
    assert code == 0
    assert "smollm2-135m-instruct" in shown
    assert "mine" in shown
    assert f"cache: {tmp_path}" in shown


def test_model_that_is_not_here_has_no_path(neurogate, monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROGATE_MODEL_DIR", str(tmp_path))

    code, shown, error = neurogate("models", "path")

    assert (code, shown) == (1, "")
    assert "neurogate models fetch smollm2-135m-instruct" in error


def test_unknown_model_fails_in_one_line(neurogate, monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROGATE_MODEL_DIR", str(tmp_path))

    code, _, error = neurogate("models", "fetch", "nothing")

    assert code == 1
    assert error.startswith("neurogate: there is no model 'nothing'")


def test_settings_are_shown(neurogate):
    _, shown, _ = neurogate("settings")

    assert "GATEWAY\n  NEUROGATE_HOST=0.0.0.0\n      Address" in shown
    assert "\n  WORKER_ADDRESSES=localhost:50051\n" in shown


def test_wrong_number_of_workers_is_refused(neurogate):
    assert neurogate("up", "--workers", "0")[0] == 2
    assert neurogate("demo", "--workers", "1")[0] == 2


def test_fleet_whose_model_is_unknown_does_not_start(neurogate, monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROGATE_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("NEUROGATE_MODEL", "nothing")

    assert neurogate("up")[0] == 78
    assert neurogate("demo")[0] == 78


def test_sim_engine_serves_until_it_is_told_to_stop():
    command = [sys.executable, "-m", "neurogate", "sim-engine", "--port", "0", "--model", "pretender"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("listening on http://127.0.0.1:")
        process.terminate()

        assert process.wait(timeout=30) == 0


def test_sim_engine_whose_port_is_taken_says_so():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "neurogate", "sim-engine", "--port", str(listener.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("neurogate: ")


def test_worker_fetches_its_model_before_it_serves_and_can_be_stopped_meanwhile(tmp_path):
    """An index that never answers stands for a slow network."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        changes = {
            "NEUROGATE_MODEL_DIR": str(tmp_path),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": "",
            "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple",
            "NEUROGATE_MODEL": "smollm2-135m-instruct",
        }
        command = [sys.executable, "-m", "neurogate", "worker"]
        with subprocess.Popen(command, env=child_environment(changes), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr.readline().startswith("fetching the model smollm2-135m-instruct into")
            connection, _ = silent.accept()
            process.terminate()
            connection.close()
            rest, code = process.stderr.read(), process.wait(timeout=60)

    assert code == 1
    assert rest == "neurogate: fetching was stopped\n"
