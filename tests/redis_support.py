"""A real redis-server of a test's own, on a socket in a directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
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


class Between:
    """Stands between a gateway and Redis, on a socket of its own: answers can be held back, and lost."""

    def __init__(self, server: RedisServer) -> None:
        self._target = server.directory / "socket"
        self._path = server.directory / "between"
        self._open = asyncio.Event()
        self._open.set()
        self._losing = 0

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    def hold(self) -> None:
        """Keep the answers until `let_go`."""
        self._open.clear()

    def let_go(self, *, lose: int) -> None:
        """Let answers through again, but hang up in place of the `lose`th from now on."""
        self._losing = lose
        self._open.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Between]:
        server = await asyncio.start_unix_server(self._serve, self._path)
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(self._target)
        answering = asyncio.get_running_loop().create_task(self._answer(from_redis, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                to_redis.write(data)
        to_redis.close()
        await answering

    async def _answer(self, from_redis: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await from_redis.read(65536):
            await self._open.wait()
            self._losing -= 1
            if self._losing == 0:
                break
            writer.write(data)
        writer.close()
