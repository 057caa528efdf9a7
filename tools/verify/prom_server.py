"""A real Prometheus and a real Alertmanager with the project's rules and routes, and a receiver of what they send.

The rules are the very files that are deployed. Of the configuration only places and intervals are others: everything is
scraped and evaluated once a second, and Alertmanager groups for a second rather than half a minute.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import yaml
from prom_fleet import Process
from report import ROOT

DEPLOYED = ROOT / "deploy/prometheus"


class MissingPartError(Exception):
    """A program is not installed; the text says which package has it."""


def programs() -> dict[str, str]:
    """Paths of prometheus and alertmanager. Raises MissingPartError."""
    found = {
        "prometheus": shutil.which("prometheus"),
        "alertmanager": shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"),
    }
    missing = [name for name, path in found.items() if not path]
    if missing:
        raise MissingPartError(f"{' and '.join(missing)}: not installed (Debian: prometheus, prometheus-alertmanager)")
    return {name: str(path) for name, path in found.items()}


class Receiver:
    """An HTTP server that takes alerts (POST, JSON) and traces (POST /v1/traces), and keeps the alerts."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        """(path, alert) in the order in which they came."""
        self.traces = 0
        """Batches of spans."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/v1/traces":
                    receiver.traces += 1
                else:
                    receiver.heard += [(self.path, alert) for alert in json.loads(body)["alerts"]]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def heard_of(self, name: str, status: str, **labels: str) -> tuple[str, dict[str, Any]] | None:
        """The first alert like that, with the path that it came to."""
        for path, alert in self.heard:
            of = alert["labels"]
            if of["alertname"] == name and alert["status"] == status and labels.items() <= of.items():
                return path, alert
        return None


class Servers:
    """Prometheus and Alertmanager; a context manager that leaves none behind."""

    def __init__(self, folder: Path, *, gateways: list[str], workers: list[str], receiver: str) -> None:
        self._folder = folder
        self._targets = {"neurogate-gateway": gateways, "neurogate-worker": workers}
        self._receiver = receiver
        self._started: list[Process] = []
        self._client = httpx.Client(timeout=30)
        self.url = ""

    def __enter__(self) -> Self:
        paths = programs()
        prometheus, alertmanager = (f"127.0.0.1:{port}" for port in _free_ports(2))
        self.url = f"http://{prometheus}"
        self._targets["prometheus"] = [prometheus]
        (self._folder / "alertmanager.yml").write_text(yaml.safe_dump(self._routes()))
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(self._scrapes(alertmanager)))
        commands = {
            "alertmanager": (
                paths["alertmanager"],
                f"--config.file={self._folder}/alertmanager.yml",
                f"--storage.path={self._folder}/alerts",
                f"--web.listen-address={alertmanager}",
                "--cluster.listen-address=",
            ),
            "prometheus": (
                paths["prometheus"],
                f"--config.file={self._folder}/prometheus.yml",
                f"--storage.tsdb.path={self._folder}/series",
                f"--web.listen-address={prometheus}",
                "--enable-feature=exemplar-storage",
            ),
        }
        try:
            for name, command in commands.items():
                self._started.append(Process(command, self._folder / f"{name}.log", {}))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        for process in self._started:
            process.kill()

    def ready(self) -> bool:
        """Whether Prometheus answers queries."""
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, path: str, **parameters: str | float | list[str]) -> Any:
        """The `data` of an API's answer. Raises ValueError with Prometheus' words when it refuses."""
        answer = self._client.get(f"{self.url}/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(answer.get("error", answer))
        return answer["data"]

    def _scrapes(self, alertmanager: str) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(DEPLOYED / files) for files in config["rule_files"]]
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": self._targets[job["job_name"]]}]
        return config

    def _routes(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load((DEPLOYED / "alertmanager.yml").read_text())
        for route in (config["route"], *config["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "1s"}
        for receiver in config["receivers"]:
            for hook in receiver["webhook_configs"]:
                hook["url"] = f"{self._receiver}/{receiver['name']}"
        return config


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
