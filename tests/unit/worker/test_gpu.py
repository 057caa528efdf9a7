"""NVIDIA's GPUs: what their driver tells, and everything that may be missing of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from neurogate.telemetry import catalog
from neurogate.telemetry.process_metrics import ProcessMetrics
from neurogate.testing.engines import ScriptedEngine
from neurogate.virtual_time import run
from neurogate.worker.gpu import Gpu, Gpus
from neurogate.worker.gpu_metrics import GpuMetrics
from neurogate.worker.outside_metrics import OutsideMetrics
from worker_support import Setup


class NvmlError(Exception):
    """What a driver says instead of an answer."""


class FakeNvml:
    """NVIDIA's library with so many GPUs; those in `lost` answer nothing, and nobody what is in `unsupported`."""

    NVMLError = NvmlError

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.lost: set[int] = set()
        self.unsupported: set[str] = set()
        self.energy_mj = 5_000
        self.power_mw = 300_000
        self.begun = 0
        self.driver = True

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        if not self.driver:
            raise NvmlError("Driver Not Loaded")
        self.begun += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.begun -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if not self.driver:
            raise NvmlError("Uninitialized")
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.lost:
            raise NvmlError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return f"GPU {handle}".encode() if handle else "GPU 0"

    def nvmlDeviceGetUtilizationRates(self, _: int) -> Any:  # noqa: N802
        return self._unless("utilization", SimpleNamespace(gpu=87, memory=40))

    def nvmlDeviceGetMemoryInfo(self, _: int) -> Any:  # noqa: N802
        return self._unless("memory", SimpleNamespace(used=6 << 30, total=8 << 30))

    def nvmlDeviceGetPowerUsage(self, _: int) -> int:  # noqa: N802
        return int(self._unless("power", self.power_mw))

    def nvmlDeviceGetTemperature(self, _: int, sensor: int) -> int:  # noqa: N802
        assert sensor == 0
        return int(self._unless("temperature", 61))

    def nvmlDeviceGetTotalEnergyConsumption(self, _: int) -> int:  # noqa: N802
        return int(self._unless("energy", self.energy_mj))

    def _unless(self, what: str, value: Any) -> Any:
        if what in self.unsupported:
            raise NvmlError("Not Supported")
        return value


WHOLE = Gpu(
    0,
    "GPU 0",
    busy_ratio=0.87,
    memory_used=6 << 30,
    memory_total=8 << 30,
    power_w=300.0,
    temperature_c=61,
    energy_j=5.0,
)


def gpus(nvml: FakeNvml) -> Gpus:
    return Gpus(lambda: nvml)


def test_a_gpu_tells_everything() -> None:
    nvml = FakeNvml(2)
    found = gpus(nvml).look()
    assert found == (WHOLE, replace(WHOLE, index=1, name="GPU 1"))


def test_without_the_library_there_is_nothing_and_one_line_says_so() -> None:
    def absent() -> FakeNvml:
        raise ImportError("No module named 'pynvml'")

    with capture_logs() as logs:
        looked = Gpus(absent)
        assert (looked.look(), looked.look()) == ((), ())
    assert [(log["log_level"], log["event"]) for log in logs] == [("debug", "no NVIDIA GPUs")]


def test_without_a_driver_there_is_nothing_and_one_line_says_so() -> None:
    nvml = FakeNvml()
    nvml.driver = False
    with capture_logs() as logs:
        looked = gpus(nvml)
        assert (looked.look(), looked.look()) == ((), ())
    assert [(log["log_level"], log["reason"]) for log in logs] == [("debug", "Driver Not Loaded")]


def test_this_machine_has_gpus_or_not_and_either_is_fine() -> None:
    looked = Gpus()
    assert isinstance(looked.look(), tuple)
    looked.close()


def test_a_gpu_that_is_lost_is_left_out_until_it_is_back() -> None:
    nvml = FakeNvml(2)
    looked = gpus(nvml)
    nvml.lost = {0}
    assert [gpu.index for gpu in looked.look()] == [1]
    nvml.lost = set()
    assert [gpu.index for gpu in looked.look()] == [0, 1]


def test_a_driver_that_went_is_loaded_anew() -> None:
    nvml = FakeNvml()
    looked = gpus(nvml)
    looked.look()
    nvml.driver = False
    assert looked.look() == ()
    nvml.driver = True
    assert looked.look() == (WHOLE,)
    looked.close()
    looked.close()
    assert nvml.begun == 0


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("utilization", ["busy_ratio"]),
        ("memory", ["memory_used", "memory_total"]),
        ("power", ["power_w"]),
        ("temperature", ["temperature_c"]),
        ("energy", ["energy_j"]),
    ],
)
def test_what_a_gpu_does_not_support_is_left_out(what: str, fields: list[str]) -> None:
    nvml = FakeNvml()
    nvml.unsupported = {what}
    assert gpus(nvml).look() == (replace(WHOLE, **dict.fromkeys(fields)),)


class Measured:
    """GPU metrics over a look that the test decides."""

    def __init__(self, look: Callable[[], tuple[Gpu, ...]]) -> None:
        self.looked = 0
        self.tokens = 0
        self._look = look
        self.registry = ProcessMetrics("worker").registry
        loop = asyncio.get_running_loop()
        self.metrics = GpuMetrics(self._counted, tokens=lambda: self.tokens, loop=loop)
        self.registry.register(self.metrics)

    def value(self, metric: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(metric, labels)

    @property
    def energy(self) -> float | None:
        return self.value(catalog.GPU_ENERGY.name, gpu="0", name="GPU 0")

    @property
    def per_token(self) -> float | None:
        return self.value(catalog.GPU_JOULES_PER_TOKEN.name)

    def _counted(self) -> tuple[Gpu, ...]:
        self.looked += 1
        return self._look()


def test_a_look_is_good_for_a_second_and_scrapes_at_once_share_it() -> None:
    async def main() -> None:
        made = Measured(lambda: (WHOLE,))
        await asyncio.gather(made.metrics.refresh(), made.metrics.refresh())
        await made.metrics.refresh()
        assert made.looked == 1
        assert made.value(catalog.GPU_UTILIZATION.name, gpu="0", name="GPU 0") == 0.87
        assert made.value(catalog.GPU_TEMPERATURE.name, gpu="0", name="GPU 0") == 61

    asyncio.run(main())


def test_without_gpus_not_even_the_names_are_told() -> None:
    async def main() -> None:
        made = Measured(tuple)
        await made.metrics.refresh()
        assert list(made.metrics.collect()) == []
        assert len(list(made.metrics.describe())) == len(catalog.sections()[catalog.GPUS])

    asyncio.run(main())


def test_a_driver_that_hangs_costs_a_scrape_a_second_and_no_second_thread() -> None:
    async def main() -> None:
        goes_on = threading.Event()

        def hang() -> tuple[Gpu, ...]:
            goes_on.wait(10)
            return (WHOLE,)

        made = Measured(hang)
        await made.metrics.refresh()
        assert list(made.metrics.collect()) == []
        goes_on.set()
        await made.metrics.refresh()
        assert made.looked == 1
        assert made.value(catalog.GPU_POWER.name, gpu="0", name="GPU 0") == 300

    asyncio.run(main())


class AheadLoop(asyncio.SelectorEventLoop):
    """A loop whose clock a test sets ahead: threads are real, and so the other time has to be."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def test_a_look_that_raises_is_over_and_said_once() -> None:
    async def main() -> None:
        def fail() -> tuple[Gpu, ...]:
            if made.looked <= 2:
                raise AttributeError("no such function")
            return (WHOLE,)

        made = Measured(fail)
        with capture_logs() as logs:
            for looked in (1, 2):
                async with asyncio.timeout(0.9):
                    await made.metrics.refresh()
                assert not made.metrics.looking
                assert made.looked == looked
                assert list(made.metrics.collect()) == []
                loop.ahead_s += 2
            await made.metrics.refresh()
        assert [log["reason"] for log in logs] == ["AttributeError: no such function"]
        assert made.value(catalog.GPU_POWER.name, gpu="0", name="GPU 0") == 300

    loop = AheadLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


def test_without_a_thread_to_look_in_the_scrape_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        made = Measured(lambda: (WHOLE,))
        monkeypatch.setattr(threading.Thread, "start", start)
        await made.metrics.refresh()
        monkeypatch.undo()
        assert not made.metrics.looking
        assert list(made.metrics.collect()) == []

    asyncio.run(main())


def test_a_driver_is_not_let_go_of_while_a_thread_is_in_it() -> None:
    inside, goes_on = threading.Event(), threading.Event()

    class SlowNvml(FakeNvml):
        def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the library's name
            inside.set()
            goes_on.wait(10)
            return super().nvmlDeviceGetCount()

    async def main() -> None:
        nvml, setup = SlowNvml(), Setup(ScriptedEngine())
        outside = OutsideMetrics(
            setup.engine, setup.worker, setup.metrics, loop=asyncio.get_running_loop(), load=lambda: nvml
        )
        scrape = asyncio.ensure_future(outside.refresh())
        assert await asyncio.to_thread(inside.wait, 10)
        outside.close()
        assert nvml.begun == 1
        goes_on.set()
        await scrape
        outside.close()
        assert nvml.begun == 0

    asyncio.run(main())


def test_a_look_that_ends_after_the_loop_harms_nobody() -> None:
    goes_on, threads = threading.Event(), []

    def hang() -> tuple[Gpu, ...]:
        threads.append(threading.current_thread())
        goes_on.wait(10)
        return ()

    async def main() -> None:
        await Measured(hang).metrics.refresh()

    asyncio.run(main())
    goes_on.set()
    threads[0].join(10)
    assert not threads[0].is_alive()


def measured_over_time(
    looks: list[Gpu | None], tokens: list[int], *, every_s: float
) -> tuple[float | None, float | None]:
    """(energy, joules a token) after these looks; None is a GPU that is lost."""

    async def main() -> tuple[float | None, float | None]:
        made = Measured(tuple)
        for gpu, count in zip(looks, tokens, strict=True):
            made.tokens = count
            made.metrics.take((gpu,) if gpu is not None else ())
            await asyncio.sleep(every_s)
        return made.energy, made.per_token

    return run(main())


def of_energy(joules: float) -> Gpu:
    return replace(WHOLE, energy_j=joules)


def of_power(watts: float | None) -> Gpu:
    return replace(WHOLE, power_w=watts, energy_j=None)


def test_energy_is_what_was_used_since_the_first_look() -> None:
    assert measured_over_time([of_energy(100), of_energy(150), of_energy(190)], [0, 10, 30], every_s=10) == (90, 3)


def test_a_gpu_that_was_away_goes_on_counting() -> None:
    energy, _ = measured_over_time([of_energy(100), None, of_energy(160)], [0, 0, 0], every_s=10)
    assert energy == 60


def test_energy_never_goes_back_when_the_driver_counts_anew() -> None:
    energy, _ = measured_over_time([of_energy(100), of_energy(150), of_energy(5), of_energy(7)], [0] * 4, every_s=10)
    assert energy == 52


def test_where_only_power_is_told_it_is_summed_up_over_time() -> None:
    assert measured_over_time([of_power(100), of_power(300), of_power(300)], [0, 50, 100], every_s=10) == (
        pytest.approx(5000),
        pytest.approx(50),
    )


def test_where_neither_is_told_there_is_no_energy() -> None:
    assert measured_over_time([of_power(None)] * 3, [0, 5, 9], every_s=10) == (None, None)


def test_without_tokens_there_is_no_energy_of_a_token() -> None:
    assert measured_over_time([of_energy(100), of_energy(150)], [7, 7], every_s=10) == (50, None)


def test_only_the_last_minute_counts_for_the_energy_of_a_token() -> None:
    looks = [of_energy(joules) for joules in (0, 6000, 6060, 6120, 6180)]
    assert measured_over_time(looks, [0, 1, 31, 61, 91], every_s=30)[1] == 2
