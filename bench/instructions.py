"""Instructions that the gateway, or the worker, needs for a request and for a streamed token: figures that hold still.

One of the two runs under valgrind's callgrind, everything else natively; a machine's speed and its other work change
little of what is counted. A request's cost is that of so many requests, sixteen at once. A token's is the difference
between streams of 40 tokens and as many of 8, so that nothing of the streams' beginnings and ends is in it. callgrind
makes it some fifty times slower, so time is stretched: streams say four tokens a second, and the worker
lingers fifty milliseconds in place of one. Then a frame carries about 20 tokens, as at 400 streams of 50 a second.

    python bench/instructions.py                              # this checkout
    python bench/instructions.py --tree ../before --tree .    # two of them, and their ratio
    python bench/instructions.py --of worker
    python bench/instructions.py --keep DIR                   # keep the profiles, for callgrind_annotate DIR/*/requests
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cache import NotMeasuredError
from engine import mock
from load import client
from peers.neurogate import CHECKOUT, FEATURES, NeuroGate, commit_of
from peers.peer import Running, Stage
from rounds import wait_until_it_answers
from workloads import CLOSED, Workload, stream

_STRETCH = 50
_FEW, _MANY = 8, 40
_STREAMS = 100
_TOKENS_PER_S = 4.0
_SLOWLY = {"NEUROGATE_LINK_SILENCE_S": "60", "PYTHONHASHSEED": "0"}
_LINGERING = {"NEUROGATE_LINK_LINGER_MS": str(_STRETCH)}
_START_S = 300
_PHASE_S = 600


@dataclass(frozen=True)
class Counts:
    """Instructions of one checkout's gateway or worker."""

    commit: str
    request: float
    stream: float
    """Beginning and end of a stream: one of 8 tokens, less its tokens."""
    token: float
    idle_per_s: float


class _Callgrind:
    """A process under callgrind, whose instructions count only between `counting` and its end."""

    def __init__(self, pid: int, directory: Path) -> None:
        self._pid = pid
        self._directory = directory
        self._dumps = 0
        self.idle_per_s = 0.0

    @contextmanager
    def counting(self, phase: str) -> Iterator[list[float]]:
        """Yields a list that has the number of instructions at the end, less what it needs meanwhile when idle."""
        found: list[float] = []
        self._control("--zero")
        self._control("--instr=on")
        began = time.monotonic()
        yield found
        elapsed_s = time.monotonic() - began
        self._control("--instr=off")
        self._control("--dump")
        self._dumps += 1
        dump = self._directory / f"callgrind.out.{self._dumps}"
        totals = [int(total) for total in re.findall(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)]
        if not totals:
            raise NotMeasuredError(f"callgrind told no total of {phase}")
        dump.rename(self._directory / phase)
        found.append(max(totals) - self.idle_per_s * elapsed_s)

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self._pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PHASE_S)
        if done.returncode:
            raise NotMeasuredError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def count(tree: Path, directory: Path, *, requests: int, of: str = "gateway") -> Counts:
    """Count the instructions of a checkout's process; its profiles go into the directory. Raises NotMeasuredError."""
    if shutil.which("valgrind") is None:
        raise NotMeasuredError("there is no valgrind (Debian: apt-get install valgrind)")
    under = [
        *("valgrind", "-q", "--tool=callgrind", "--instr-atstart=no"),
        *(f"--callgrind-out-file={directory}/callgrind.out", f"--log-file={directory}/valgrind.log"),
    ]
    worker = {**_LINGERING, "PYTHONHASHSEED": "0"}
    peer = NeuroGate("neurogate", tree, {**FEATURES, **_SLOWLY}, worker=worker, under=under, under_it=of)
    with mock.running() as engine:
        running = peer.start(Stage(directory, engine.port))
        try:
            wait_until_it_answers(running, _START_S)
            callgrind = _Callgrind(running.processes[of].pid, directory)
            return _count(callgrind, running, requests, commit_of(tree))
        finally:
            running.stop()


def _count(callgrind: _Callgrind, running: Running, requests: int, commit: str) -> Counts:
    plain = replace(CLOSED, connections=16)
    few, many = (replace(stream(tokens, _TOKENS_PER_S, _STREAMS), ramp_s=2.0) for tokens in (_FEW, _MANY))
    for workload in (plain, few):
        _send(running, workload, 100)
    with callgrind.counting("idle") as idle:
        time.sleep(5)
    callgrind.idle_per_s = idle[0] / 5
    with callgrind.counting("requests") as for_requests:
        _send(running, plain, requests)
    with callgrind.counting("few") as for_few:
        _send(running, few, _STREAMS)
    with callgrind.counting("many") as for_many:
        _send(running, many, _STREAMS)
    token = (for_many[0] - for_few[0]) / (_STREAMS * (_MANY - _FEW))
    return Counts(
        commit,
        request=round(for_requests[0] / requests),
        stream=round(for_few[0] / _STREAMS - _FEW * token),
        token=round(token),
        idle_per_s=round(callgrind.idle_per_s),
    )


def _send(running: Running, workload: Workload, requests: int) -> None:
    seen = client.run_count(workload, requests, port=running.port, headers=running.headers, timeout_s=_PHASE_S)
    if seen.bad:
        raise NotMeasuredError(f"{seen.bad} answers were bad: {seen.told['sample']}")


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, action="append", help="a checkout; the first one is compared with")
    parser.add_argument("--of", choices=("gateway", "worker"), default="gateway")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="directory for the profiles")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    found: list[Counts] = []
    for number, tree in enumerate(arguments.tree or [CHECKOUT]):
        with tempfile.TemporaryDirectory(prefix="instructions-") as scratch:
            directory = Path(scratch) if arguments.keep is None else arguments.keep.resolve() / str(number)
            directory.mkdir(parents=True, exist_ok=True)
            try:
                found.append(count(tree.resolve(), directory, requests=arguments.requests, of=arguments.of))
            except NotMeasuredError as error:
                raise SystemExit(f"instructions: {error}") from error
        print(_line(found[-1], found[0]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(counts) for counts in found], indent=1) + "\n")


def _line(counts: Counts, first: Counts) -> str:
    names = ("request", "stream", "token")
    cells = (
        f"{name} {getattr(counts, name):>10,.0f} ({getattr(counts, name) / getattr(first, name):.3f})" for name in names
    )
    return f"{counts.commit:12} instructions a " + "   ".join(cells) + f"   idle {counts.idle_per_s:,.0f}/s"


if __name__ == "__main__":
    main()
