"""The GPUs of a worker's machine as metrics: looked at in a thread when somebody scrapes, at most once a second.

A driver that hangs takes its thread with it and nothing else: scrapes go on with no GPUs, and no second thread begins.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from neurogate.telemetry import catalog
from neurogate.telemetry.metric import CounterOf, GaugeOf
from neurogate.worker.gpu import Gpu

_FRESH_S = 1.0
_TIMEOUT_S = 1.0
_MINUTE_S = 60.0

_log = structlog.get_logger("neurogate.gpu")

_FIGURES: tuple[tuple[GaugeOf, Callable[[Gpu], float | None]], ...] = (
    (catalog.GPU_UTILIZATION, lambda gpu: gpu.busy_ratio),
    (catalog.GPU_MEMORY_USED, lambda gpu: gpu.memory_used),
    (catalog.GPU_MEMORY_TOTAL, lambda gpu: gpu.memory_total),
    (catalog.GPU_POWER, lambda gpu: gpu.power_w),
    (catalog.GPU_TEMPERATURE, lambda gpu: gpu.temperature_c),
)


class _Energy:
    """What one GPU has used since it was first seen: its own count, or else its power over the time between looks."""

    def __init__(self) -> None:
        self.joules = 0.0
        self._before: Gpu | None = None
        self._at = 0.0

    def seen(self, gpu: Gpu, now: float) -> None:
        before, elapsed_s = self._before, now - self._at
        self._before, self._at = gpu, now
        if before is None:
            return
        if gpu.energy_j is not None and before.energy_j is not None:
            self.joules += max(0.0, gpu.energy_j - before.energy_j)  # less after the driver was loaded anew
        elif gpu.power_w is not None and before.power_w is not None:
            self.joules += (gpu.power_w + before.power_w) / 2 * elapsed_s

    @property
    def known(self) -> bool:
        """Whether it tells anything of its energy."""
        return self._before is not None and (self._before.energy_j is not None or self._before.power_w is not None)


class GpuMetrics(Collector):
    """The metrics of all GPUs, as of the latest `refresh`."""

    def __init__(
        self, look: Callable[[], tuple[Gpu, ...]], *, tokens: Callable[[], int], loop: asyncio.AbstractEventLoop
    ) -> None:
        """`look` may block and is called in a thread; `tokens` are those generated so far."""
        self._look = look
        self._tokens = tokens
        self._loop = loop
        self._gpus: tuple[Gpu, ...] = ()
        self._energy: dict[tuple[int, str], _Energy] = {}
        self._minute: deque[tuple[float, float, int]] = deque()
        """(loop time, joules, tokens) of the looks of the last minute, and the one before."""
        self._looked_at = -_FRESH_S
        self._looking: asyncio.Future[tuple[Gpu, ...]] | None = None
        self._problem = ""

    @property
    def looking(self) -> bool:
        """A thread may be in the driver."""
        return self._looking is not None and not self._looking.done()

    async def refresh(self) -> None:
        """Look, unless that was done within the last second. Never raises; takes a second at most."""
        if self._looking is None:
            if self._loop.time() - self._looked_at < _FRESH_S:
                return
            self._looking = self._in_thread()
        looking = self._looking
        done, _ = await asyncio.wait([looking], timeout=_TIMEOUT_S)
        if not done:
            self._gpus = ()
        elif looking is self._looking:
            self._looking = None
            self._looked_at = self._loop.time()
            self.take(looking.result())

    def take(self, gpus: tuple[Gpu, ...]) -> None:
        """Count what they have used; called with every look."""
        now = self._loop.time()
        self._gpus = gpus
        for gpu in gpus:
            self._energy.setdefault((gpu.index, gpu.name), _Energy()).seen(gpu, now)
        self._minute.append((now, sum(used.joules for used in self._energy.values()), self._tokens()))
        while len(self._minute) > 1 and self._minute[1][0] <= now - _MINUTE_S:
            self._minute.popleft()

    def collect(self) -> Iterable[Metric]:
        """Asked by the registry. Without GPUs there is nothing, not even the names."""
        if not self._energy:
            return
        for metric, figure in _FIGURES:
            family = metric.family()
            for gpu in self._gpus:
                value = figure(gpu)
                if value is not None:
                    family.add_metric([str(gpu.index), gpu.name], value)
            yield family
        energy = catalog.GPU_ENERGY.family()
        for (index, name), used in self._energy.items():
            if used.known:
                energy.add_metric([str(index), name], used.joules)
        yield energy
        per_token = catalog.GPU_JOULES_PER_TOKEN.family()
        if (value := self._joules_per_token()) is not None:
            per_token.add_metric([], value)
        yield per_token

    def describe(self) -> Iterable[Metric]:
        """The same, empty."""
        metrics: tuple[GaugeOf | CounterOf, ...] = (
            *(metric for metric, _ in _FIGURES),
            catalog.GPU_ENERGY,
            catalog.GPU_JOULES_PER_TOKEN,
        )
        return [metric.family() for metric in metrics]

    def _joules_per_token(self) -> float | None:
        if not self._minute:
            return None
        (_, joules_before, tokens_before), (_, joules, tokens) = self._minute[0], self._minute[-1]
        generated, used = tokens - tokens_before, joules - joules_before
        return used / generated if generated > 0 and used > 0 else None

    def _in_thread(self) -> asyncio.Future[tuple[Gpu, ...]]:
        """A thread of its own, which the process does not wait for at its end."""
        future: asyncio.Future[tuple[Gpu, ...]] = self._loop.create_future()

        def tell(gpus: tuple[Gpu, ...], problem: str) -> None:
            if problem:
                self._say(problem)
            if not future.done():
                future.set_result(gpus)

        def run() -> None:
            gpus: tuple[Gpu, ...] = ()
            problem = ""
            try:
                gpus = self._look()
            except Exception as error:  # noqa: BLE001 - whatever a driver does, the worker's own metrics are told
                problem = f"{type(error).__name__}: {error}"
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                self._loop.call_soon_threadsafe(tell, gpus, problem)

        try:
            threading.Thread(target=run, name="gpus", daemon=True).start()
        except RuntimeError as error:  # as many threads as there may be
            tell((), str(error))
        return future

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            _log.warning("the GPUs cannot be looked at", reason=problem)
