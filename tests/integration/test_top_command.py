"""`neurogate top` in a real terminal: it draws, follows the window's size, and ends by a key or a signal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios

import pytest

from real_loop import run_real
from top_support import ops_port

pytestmark = pytest.mark.timeout(200)


class Terminal:
    """A terminal with `neurogate top` in it."""

    def __init__(self, url: str, *, columns: int = 100) -> None:
        self.ours, self.theirs = pty.openpty()
        self.url = url
        self.said = b""
        self.before = termios.tcgetattr(self.theirs)
        self.size(columns)

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "neurogate", "top", "--url", self.url,
            stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        asyncio.get_running_loop().add_reader(self.ours, self._read)

    def _read(self) -> None:
        self.said += os.read(self.ours, 65536)

    def size(self, columns: int, lines: int = 30) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    async def until(self, part: bytes) -> None:
        while part not in self.said:
            assert self.process.returncode is None, self.said.decode()
            await asyncio.sleep(0.02)

    async def end(self) -> int:
        code = await self.process.wait()
        assert termios.tcgetattr(self.theirs)[3] == self.before[3]  # echo and lines are as they were
        asyncio.get_running_loop().remove_reader(self.ours)
        os.close(self.ours)
        os.close(self.theirs)
        return code


@pytest.mark.parametrize("how", ["q", "ctrl-c", "term"])
def test_it_draws_until_it_is_told_to_end(how: str) -> None:
    async def main() -> None:
        async with ops_port() as port:
            terminal = Terminal(port.url)
            await terminal.start()
            await terminal.until(b"worker-0")
            if how == "q":
                os.write(terminal.ours, b"q")
            else:
                terminal.process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGTERM)
            assert await terminal.end() == 0
            assert b"Traceback" not in terminal.said

    run_real(main(), timeout_s=150)


def test_it_follows_the_windows_size() -> None:
    async def main() -> None:
        async with ops_port() as port:
            terminal = Terminal(port.url, columns=60)
            await terminal.start()
            await terminal.until(b"worker-0")
            terminal.size(140)
            terminal.process.send_signal(signal.SIGWINCH)
            terminal.said = b""
            await terminal.until(b"worker-0")
            lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", terminal.said).decode().splitlines()
            assert max(map(len, lines)) > 60
            os.write(terminal.ours, b"q")
            assert await terminal.end() == 0

    run_real(main(), timeout_s=150)


def test_without_a_gateway_it_says_what_to_change() -> None:
    async def main() -> None:
        terminal = Terminal("http://127.0.0.1:9")
        await terminal.start()
        assert await terminal.end() == 1
        said = re.sub(rb"\s+", b" ", terminal.said)
        assert b"does not answer" in said
        assert b"--url" in said

    run_real(main(), timeout_s=150)
