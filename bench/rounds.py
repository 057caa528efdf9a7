"""The run itself: every gateway started in front of one engine, and measured in turns, round after round.

In a round each workload is measured on one gateway after the other before the next workload comes, so that two
gateways' samples lie seconds apart and a ratio of them means something on a machine whose speed drifts. Every round
starts all gateways anew, in another order.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cell
from cache import NotMeasuredError
from engine import mock
from engine.mock import MockEngine
from load import client
from peers.peer import Peer, Running, Stage
from report.book import BASELINE
from usage import cpu_of, seconds_between
from workloads import CLOSED, MANY, PATH, Workload

_START_S = 120
_IDLE_S = 2.0
_ASIDE = dict.fromkeys(("neurogate-compiled", "neurogate-bare", "neurogate-traced"), (CLOSED.name, MANY.name))


class Run:
    """What is found, as it grows."""

    def __init__(self, peers: Sequence[Peer], workloads: Sequence[Workload], *, limit_s: float) -> None:
        """Nothing is begun that would end later than `limit_s` after now."""
        self._peers = peers
        self._workloads = workloads
        self._began = time.monotonic()
        self._limit_s = limit_s
        self._ready: list[Peer] = []
        self.told: dict[str, dict[str, Any]] = {}
        self.samples: list[cell.Sample] = []
        self.left_out: list[str] = []

    def set_up(self) -> None:
        """Install what is missing; what cannot be is told of, and left out. Does not count as time of the run."""
        for peer in self._peers:
            try:
                self.told[peer.name] = {"version": peer.set_up(), "startup_s": [], "idle_ms_per_s": {}}
                self._ready.append(peer)
            except NotMeasuredError as error:
                self.told[peer.name] = {"not_measured": str(error)}
                _say(f"{peer.name} is not measured: {error}")
        self._began = time.monotonic()

    def measure(self, rounds: int) -> None:
        """So many rounds."""
        for round_ in range(rounds):
            with mock.running() as engine, ExitStack() as started:
                runnings = {}
                for peer in self._order(round_):
                    try:
                        runnings[peer.name] = started.enter_context(self._started(peer, engine))
                    except NotMeasuredError as error:
                        self._fail(round_, "start", peer, error)
                self._idle(runnings)
                for number, workload in enumerate(self._workloads):
                    if workload.core or number % rounds == round_:
                        self._turn(round_, workload, runnings, engine)

    @property
    def elapsed_s(self) -> float:
        """Since everything was set up."""
        return time.monotonic() - self._began

    def described(self) -> dict[str, Any]:
        """The workloads, as results keep them."""
        return {workload.name: asdict(workload) for workload in self._workloads}

    def _order(self, round_: int) -> list[Peer]:
        """The baseline first, the others turned by a third of them each round."""
        baseline = [peer for peer in self._ready if peer.name == BASELINE]
        others = [peer for peer in self._ready if peer.name != BASELINE]
        first = round_ * (len(others) // 3 or 1) % max(1, len(others))
        return baseline + others[first:] + others[:first]

    def _turn(self, round_: int, workload: Workload, runnings: dict[str, Running], engine: MockEngine) -> None:
        for peer in self._order(round_):
            if peer.name not in runnings or not _is_for(workload, peer):
                continue
            if self.elapsed_s + workload.warm_s + workload.seconds > self._limit_s:
                self.left_out.append(f"{workload.name}, {peer.name}, round {round_ + 1}")
                continue
            try:
                sample = cell.measure(workload, runnings[peer.name], engine, capacity=peer.capacity, seed=round_ + 1)
            except NotMeasuredError as error:
                self._fail(round_, workload.name, peer, error)
                continue
            self.samples.append({"round": round_, "workload": workload.name, "peer": peer.name, **sample})
            _say(_line(self.samples[-1]))

    @contextmanager
    def _started(self, peer: Peer, engine: MockEngine) -> Iterator[Running]:
        """A gateway that answers, warm."""
        with tempfile.TemporaryDirectory(prefix=f"bench-{peer.name}-") as directory:
            running = peer.start(Stage(Path(directory), engine.port))
            began = time.monotonic()
            try:
                wait_until_it_answers(running)
                if running.processes:
                    self.told[peer.name]["startup_s"].append(round(time.monotonic() - began, 4))
                connections = 16 if peer.capacity is None else peer.capacity.connections
                client.run_count(
                    CLOSED.within(peer.capacity),
                    20 * connections,
                    port=running.port,
                    headers=running.headers,
                    timeout_s=60,
                )
                yield running
            finally:
                running.stop()

    def _idle(self, runnings: dict[str, Running]) -> None:
        """What each uses while nobody asks it anything."""
        families = {(name, role): pids for name, told in runnings.items() for role, pids in told.families().items()}
        before = {key: cpu_of(pids) for key, pids in families.items()}
        time.sleep(_IDLE_S)
        for (name, role), pids in families.items():
            spent = seconds_between(before[name, role], cpu_of(pids)) / _IDLE_S
            self.told[name]["idle_ms_per_s"].setdefault(role, []).append(round(spent * 1000, 3))

    def _fail(self, round_: int, what: str, peer: Peer, error: NotMeasuredError) -> None:
        self.samples.append({"round": round_, "workload": what, "peer": peer.name, "error": str(error)})
        _say(f"{peer.name}, {what}: {error}")


def wait_until_it_answers(running: Running, patience_s: float = _START_S) -> None:
    """Return when a request is answered. Raises NotMeasuredError when that takes too long."""
    request = CLOSED.request(running.headers).partition(b"\r\n\r\n")[2]
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        running.check()
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        try:
            connection.request("POST", PATH, request, {"content-type": "application/json", **running.headers})
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.005)
    raise NotMeasuredError(f"it does not answer after {patience_s:g} s")


def _is_for(workload: Workload, peer: Peer) -> bool:
    """Variants are measured where they can differ; who takes but a part of a load, under the important ones."""
    if peer.name in _ASIDE:
        return workload.name in _ASIDE[peer.name]
    return workload.core or peer.capacity is None


def _line(sample: cell.Sample) -> str:
    cost = f"{sample['gateway_us']:8.1f} µs" if sample.get("gateway_us") else " " * 11
    worker = f" + {sample['worker_us']:6.1f}" if sample.get("worker_us") else " " * 9
    flags = f"  {sample['bad']} BAD: {sample['bad_sample'][:80]}" if sample["bad"] else ""
    return (
        f"round {sample['round'] + 1}  {sample['workload']:20} {sample['peer']:17}{cost}{worker}  "
        f"{sample['rate']:9.0f}/s  machine {sample['machine_share']:.2f}{flags}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
