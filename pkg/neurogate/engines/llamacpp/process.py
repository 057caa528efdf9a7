"""One life of an engine process: started, listened to, and ended without leaving anything behind.

`run` is the life. However it is left, the process is gone when it returns: asked with SIGTERM, then killed. What the
process writes becomes log lines; the last of them are kept, because they say why it died.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from neurogate.engines.engine import EngineFatalError
from neurogate.engines.llamacpp.contract import announced_url

LINE_CHARS_MAX = 2000
_LAST_LINES = 20
_READ_BYTES = 16 * 1024
_PIPE_DRAIN_S = 1.0
"""How long a pipe may stay open after its process ended, which only a process that inherited it can cause."""

_ERROR_LINE = re.compile(r"^[\d.]+ E ")
"""llama.cpp's log lines: time, level letter, text."""


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


class ChildProcess:
    """One engine process. Create it with `spawn`, then `run` it once."""

    def __init__(self, process: asyncio.subprocess.Process, launch: Launch, *, log: Log, grace_s: float) -> None:
        self._process = process
        self._launch = launch
        self._log = log
        self._grace_s = grace_s
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._url = launch.url
        self._listening = asyncio.Event()
        if launch.url:
            self._listening.set()

    def __repr__(self) -> str:
        return f"<ChildProcess {self.pid} [{'running' if self._process.returncode is None else 'ended'}]>"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @classmethod
    async def spawn(cls, launch: Launch, *, log: Log, grace_s: float = 5.0) -> ChildProcess:
        """Start the process; call it from the main thread, whose end the kernel takes for the worker's.

        It gets a session of its own, so that an interrupt typed at the worker's terminal lets the worker drain first.
        Raises EngineFatalError when there is nothing to start.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *launch.command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            raise EngineFatalError(f"the engine cannot be started: {launch.command[0]}: {error.strerror}") from error
        return cls(process, launch, log=log, grace_s=grace_s)

    async def url(self) -> str:
        """Where the process listens, once it does."""
        await self._listening.wait()
        return self._url

    async def run(self) -> int:
        """Live: tell the process what to do, log what it says, and return its exit status (negative: a signal).

        Cancelled, it ends the process first.
        """
        async with asyncio.TaskGroup() as pumps:
            outputs = [
                pumps.create_task(self._pump(stream, take))
                for stream, take in ((self._process.stdout, self._heard), (self._process.stderr, self._said))
                if stream is not None
            ]
            try:
                await self._tell()
                code = await self._process.wait()
            finally:
                await self.end()
                await asyncio.wait(outputs, timeout=_PIPE_DRAIN_S)
                for output in outputs:
                    output.cancel()
        return code

    async def end(self) -> None:
        """SIGTERM, and SIGKILL after the grace period; the process is gone when this returns or is cancelled."""
        if self._process.returncode is not None:
            return
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(self._grace_s):
                await self._process.wait()
        except TimeoutError:
            self._log.warning("engine did not end when asked, killing it", pid=self.pid, grace_s=self._grace_s)
        finally:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def last_words(self) -> str:
        """Why it died, as far as it said: its last error lines, else its last line."""
        errors = [line for line in self._last if _ERROR_LINE.match(line) or "error" in line.lower()]
        return "; ".join(errors[-3:] or list(self._last)[-1:])

    async def _tell(self) -> None:
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(ConnectionError):  # it died at once; its exit status says more
                stdin.write(self._launch.config)
                await stdin.drain()

    async def _pump(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        lines = LineSplitter()
        while data := await stream.read(_READ_BYTES):
            for line in lines.feed(data):
                take(line)
        for line in lines.end():
            take(line)

    def _heard(self, line: str) -> None:
        """A line on standard output: the announcement, or log."""
        if url := announced_url(line):
            self._url = url
            self._listening.set()
        else:
            self._said(line)

    def _said(self, line: str) -> None:
        if line:
            self._last.append(line)
            say = self._log.error if _ERROR_LINE.match(line) else self._log.debug
            say("engine", line=line, pid=self.pid)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
