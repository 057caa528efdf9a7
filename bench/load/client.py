"""The load as a process: runs load.c and hands over what it saw, and when the measured seconds began and ended."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cache import NotMeasuredError, program
from workloads import Workload


@dataclass(frozen=True)
class Seen:
    """What the load saw in the measured seconds."""

    told: Mapping[str, Any]
    """The program's own output; see load.c."""

    @property
    def requests(self) -> int:
        """Answered."""
        return int(self.told["requests"])

    @property
    def tokens(self) -> int:
        """Received."""
        return int(self.told["tokens"])

    @property
    def bad(self) -> int:
        """Answers that were wrong or not whole, in all seconds."""
        return sum(self.told["bad"].values())

    def microseconds(self, what: str) -> Mapping[str, float]:
        """The percentiles of a time, with their `count`."""
        return {name: float(value) for name, value in self.told[what].items()}


def run(
    workload: Workload,
    *,
    port: int,
    headers: Mapping[str, str],
    seed: int,
    on_begin: Callable[[], None],
    on_end: Callable[[], None],
) -> Seen:
    """Load a port, and tell when the measured seconds begin and when they end. Raises NotMeasuredError."""
    options = ["--seconds", workload.seconds, "--warm", workload.warm_s, "--rate", workload.rate]
    options += ["--ramp", workload.ramp_s, "--drain", workload.drain_s, "--seed", seed]
    with _request_file(workload, headers) as file:
        command = _command(workload, port, file, options)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    match line.strip():
                        case "begin":
                            on_begin()
                        case "end":
                            on_end()
                        case told:
                            return Seen(json.loads(told))
            finally:
                process.kill()
    raise NotMeasuredError("the load ended without a word")


def run_count(
    workload: Workload, count: int, *, port: int, headers: Mapping[str, str], timeout_s: float, lenient: bool = False
) -> Seen:
    """Send so many requests, and no more; `lenient` is for another engine than ours. Raises NotMeasuredError."""
    with _request_file(workload, headers) as file:
        command = _command(workload, port, file, ["--count", count, "--ramp", workload.ramp_s])
        command += ["--any"] if lenient else []
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout_s)
        except subprocess.SubprocessError as error:
            raise NotMeasuredError(f"the load did not end well: {error}") from error
    return Seen(json.loads(done.stdout))


@contextmanager
def _request_file(workload: Workload, headers: Mapping[str, str]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="request-") as file:
        file.write(workload.request(headers))
        file.flush()
        yield file.name


def _command(workload: Workload, port: int, file: str, options: list[object]) -> list[str]:
    words: list[object] = [program("load/load.c"), "--port", port, "--request", file]
    words += ["--connections", workload.connections, "--stream", workload.tokens, *options]
    if workload.fresh:
        words.append("--close")
    return [str(word) for word in words]
