"""One measurement: one workload on one gateway, once.

The load says when the measured seconds begin and end; at those moments the processes' CPU time is read, and their
memory at the end. A sample is plain data, as results keep it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from cache import NotMeasuredError
from engine.mock import MockEngine
from load import client
from peers.peer import Capacity, Running
from usage import Cpu, cpu_of, forget_peaks, machine_busy, memory_of, seconds_between
from workloads import Workload

Sample = dict[str, Any]

_PERCENTILES = ("p50", "p99", "p999", "mean")
_TIMES = ("latency", "first_token", "transit", "gap", "gap_added", "behind")
_SETTLE_S = 0.3


@dataclass
class _Meters:
    """What is read when the measured seconds begin, and again when they end."""

    families: dict[str, list[int]]
    engine: int
    at: float = 0.0
    cpu: dict[str, Cpu] = field(default_factory=dict)
    busy: tuple[float, float] = (0.0, 0.0)
    used: dict[str, float] = field(default_factory=dict)

    def _read(self) -> dict[str, Cpu]:
        return {role: cpu_of(pids) for role, pids in {**self.families, "engine": [self.engine]}.items()}

    def begin(self) -> None:
        self.at, self.cpu, self.busy = time.monotonic(), self._read(), machine_busy()

    def end(self) -> None:
        now, after, busy = time.monotonic(), self._read(), machine_busy()
        self.used = {role: seconds_between(self.cpu[role], after[role]) for role in after}
        self.used["elapsed"] = now - self.at
        self.used["machine"] = busy[0] - self.busy[0]
        self.used["stolen"] = busy[1] - self.busy[1]


def measure(
    workload: Workload, running: Running, engine: MockEngine, *, capacity: Capacity | None, seed: int
) -> Sample:
    """Measure once. Raises NotMeasuredError when the gateway or the load gives up."""
    running.check()
    asked = workload.within(capacity)
    families = running.families()
    memory_before = {role: memory_of(pids) for role, pids in families.items()}
    for pids in families.values():
        forget_peaks(pids)
    engine.stats()
    meters = _Meters(families, engine.pid)
    seen = client.run(
        asked, port=running.port, headers=running.headers, seed=seed, on_begin=meters.begin, on_end=meters.end
    )
    running.check()
    served = engine.stats()
    memory = {role: memory_of(pids) for role, pids in families.items()}
    time.sleep(_SETTLE_S)
    if not seen.requests and not seen.tokens and not workload.idle:
        raise NotMeasuredError(f"nothing was answered: {seen.told['bad']} {seen.told['sample']}")
    units = seen.tokens if workload.streamed else seen.requests
    elapsed_s = meters.used["elapsed"]
    own_s = sum(meters.used[role] for role in (*families, "engine")) + seen.told["cpu_share"] * elapsed_s
    sample: Sample = {
        "requests": seen.requests,
        "tokens": seen.tokens,
        "bad": seen.bad,
        "bad_sample": seen.told["sample"],
        "cut": seen.told["cut"],
        "reduced": asked != workload,
        "connections": asked.connections,
        "rate": units / elapsed_s,
        "machine_share": meters.used["machine"] / elapsed_s,
        "others_share": max(0.0, (meters.used["machine"] - own_s) / elapsed_s),
        "stolen_share": meters.used["stolen"] / elapsed_s,
        "engine_share": meters.used["engine"] / elapsed_s,
        "engine_late_mean_us": served["late_mean_us"],
        "load_share": seen.told["cpu_share"],
    }
    for role in families:
        sample[f"{role}_share"] = meters.used[role] / elapsed_s
        sample[f"{role}_us"] = meters.used[role] / units * 1e6 if units else 0.0
        sample[f"{role}_rss_before_mib"] = memory_before[role].rss_mib
        sample[f"{role}_peak_mib"] = memory[role].peak_mib
        sample[f"{role}_pss_mib"] = memory[role].pss_mib
    if families:
        sample["together_us"] = sum(sample[f"{role}_us"] for role in families)
    for what in _TIMES:
        times = seen.microseconds(what)
        if times["count"]:
            sample |= {f"{what}_{name}_us": times[name] for name in _PERCENTILES}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in sample.items()}
