"""A real redis-server of a test's own, on a socket in a directory of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis


class RedisServer:
    """One server, that can be paused, killed and started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.directory / 'socket'}"

    def start(self, *options: str, until: str = "ready to accept connections") -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", "socket", "--save", "", "--dir", str(self.directory)]
        self.process = subprocess.Popen(
            [*command, *self.options, *options], cwd=self.directory, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if until in line.replace("Ready", "ready"):
                return
        raise AssertionError("".join(said))

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.directory / "socket"))

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def _signal(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)


@contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(directory, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
