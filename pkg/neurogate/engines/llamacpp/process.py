"""One life of an engine process: started, listened to, and ended without leaving anything behind.

`run` is the life. However it is left, the process is gone when it returns: asked with SIGTERM, then killed, and with it
whatever it started, for a configured engine may be a script around the real one. What the process writes becomes log
lines; the last of them are kept, because they say why it died.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast

from neurogate.engines.engine import EngineFatalError
from neurogate.engines.llamacpp import oom
from neurogate.engines.llamacpp.contract import announced_url

LINE_CHARS_MAX = 2000
_REMARKABLE_LINES = 6
_LAST_LINES = 200
"""What was said before the last so many lines is not why it died."""
_LAST_WORDS_MAX = 400
_LAST_OUTPUT_S = 1.0
"""How long what a process wrote last may take to arrive after its end."""
_OUTPUTS = (1, 2)

_ERROR_LINE = re.compile(r"^[\d.]+ E ")
"""llama.cpp's log lines: time, level letter, text."""
_REMARKABLE = re.compile(r"error|fail|assert|abort|terminate|exception|what\(\)", re.IGNORECASE)
"""What says why, even where a backtrace follows it."""


class Log(Protocol):
    """What is used of a structlog logger."""

    def debug(self, event: str, **fields: object) -> object:
        """One line of detail."""
        ...

    def info(self, event: str, **fields: object) -> object:
        """Something expected happened."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Something went wrong that is being dealt with."""
        ...

    def error(self, event: str, **fields: object) -> object:
        """Something went wrong."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one process."""

    command: tuple[str, ...]
    config: bytes
    """Written to its standard input, which then stays open."""
    url: str = ""
    """Where it will listen; empty when the process announces that itself."""


class LineSplitter:
    """Bytes to lines of bounded length; the rest of a longer line is dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LINE_CHARS_MAX]
        return [self._text(line) for line in lines]

    def end(self) -> list[str]:
        """The last line, when it had no end."""
        rest, self._rest = self._rest, b""
        return [self._text(rest)] if rest else []

    @staticmethod
    def _text(line: bytes) -> str:
        return line[:LINE_CHARS_MAX].decode(errors="replace").rstrip()


class ChildProcess(asyncio.SubprocessProtocol):
    """One engine process. Create it with `spawn`, then `run` it once."""

    def __init__(self, launch: Launch, *, log: Log, grace_s: float) -> None:
        self._launch = launch
        self._log = log
        self._grace_s = grace_s
        self._url = launch.url
        self._listening = asyncio.Event()
        if launch.url:
            self._listening.set()
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = asyncio.Event()
        self._lines = {number: LineSplitter() for number in _OUTPUTS}
        self._open_outputs = set(_OUTPUTS)
        self._heard_all = asyncio.Event()
        self._last_line = ""
        self._heard_lines = 0
        self._remarkable: deque[tuple[int, str]] = deque(maxlen=_REMARKABLE_LINES)
        self.out_of_memory = False
        """It said that it got no memory."""
        self.pid = 0
        """The process's id."""

    def __repr__(self) -> str:
        return f"<ChildProcess {self.pid} [{'ended' if self._exited.is_set() else 'running'}]>"

    @classmethod
    async def spawn(cls, launch: Launch, *, log: Log, grace_s: float = 5.0) -> ChildProcess:
        """Start the process; call it from the main thread, whose end the kernel takes for the worker's.

        It gets a session of its own, so that an interrupt typed at the worker's terminal lets the worker drain first.
        Raises EngineFatalError when there is nothing to start.
        """
        try:
            _, child = await asyncio.get_running_loop().subprocess_exec(
                lambda: cls(launch, log=log, grace_s=grace_s), *launch.command, start_new_session=True
            )
        except OSError as error:
            raise EngineFatalError(f"the engine cannot be started: {launch.command[0]}: {error.strerror}") from error
        return child

    async def url(self) -> str:
        """Where the process listens, once it does."""
        await self._listening.wait()
        return self._url

    async def run(self) -> int:
        """Live: tell the process what to do, and return its exit status (negative: a signal).

        Cancelled, it ends the process first.
        """
        transport = cast(asyncio.SubprocessTransport, self._transport)
        try:
            stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
            stdin.write(self._launch.config)
            await self._exited.wait()
        finally:
            try:
                await self.end()
            finally:
                await self._bury(transport)
        return transport.get_returncode() or 0

    async def end(self) -> None:
        """SIGTERM, and SIGKILL after the grace period; the process is gone when this returns or is cancelled."""
        if self._exited.is_set():
            return
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(self._grace_s):
                await self._exited.wait()
        except TimeoutError:
            self._log.warning("engine did not end when asked, killing it", pid=self.pid, grace_s=self._grace_s)
        finally:
            self._signal(signal.SIGKILL)
            await self._exited.wait()

    async def _bury(self, transport: asyncio.SubprocessTransport) -> None:
        self._signal(signal.SIGKILL)  # for what it left behind in its session
        try:
            async with asyncio.timeout(_LAST_OUTPUT_S):
                await self._heard_all.wait()
        except TimeoutError:
            self._log.warning("engine left a process that holds its output", pid=self.pid)
        finally:
            transport.close()

    def last_words(self) -> str:
        """Why it died, as far as it said: its last remarkable lines and its last line, as one short line."""
        recent = [line for at, line in self._remarkable if at > self._heard_lines - _LAST_LINES]
        lines = dict.fromkeys([*recent, self._last_line])
        return "; ".join(" ".join(line.split()) for line in lines if line)[-_LAST_WORDS_MAX:]

    def kill(self) -> None:
        """SIGKILL, for one that hangs: it would not hear anything else."""
        if not self._exited.is_set():
            self._signal(signal.SIGKILL)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For the event loop: the process runs."""
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """For the event loop: the process wrote something."""
        for line in self._lines[fd].feed(data):
            self._heard(line, fd)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """For the event loop: a pipe is closed. Why does not matter: the exit status says more."""
        del exc
        if fd in self._open_outputs:
            self._open_outputs.remove(fd)
            for line in self._lines[fd].end():
                self._heard(line, fd)
        if not self._open_outputs:
            self._heard_all.set()

    def process_exited(self) -> None:
        """For the event loop: the process is dead and buried."""
        self._exited.set()

    def _heard(self, line: str, fd: int) -> None:
        if fd == 1 and (url := announced_url(line)):
            self._url = url
            self._listening.set()
        elif line:
            self._last_line = line
            self._heard_lines += 1
            if _ERROR_LINE.match(line) or _REMARKABLE.search(line):
                self._remarkable.append((self._heard_lines, line))
                self.out_of_memory = self.out_of_memory or oom.says_so(line)
            say = self._log.error if _ERROR_LINE.match(line) else self._log.debug
            say("engine", line=line, pid=self.pid)

    def _signal(self, number: signal.Signals) -> None:
        """To the whole session, whose id is that of the process."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
