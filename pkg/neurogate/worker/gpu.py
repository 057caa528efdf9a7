"""NVIDIA GPUs, as their driver tells of them through NVML.

Nothing is loaded before somebody looks. A machine without GPUs, or without their driver, has none, which is no error;
a GPU that is lost is left out until it is back; and what a GPU does not support is left out of what is told of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import structlog

_log = structlog.get_logger("neurogate.gpu")

_CHIP = 0
"""NVML_TEMPERATURE_GPU"""

ValueT = TypeVar("ValueT")


class Nvml(Protocol):
    """What is used of NVIDIA's `pynvml`; every function raises NVMLError. A handle is whatever it gives."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> object:  # noqa: N802 - the library's names
        """Load the driver's library."""
        ...

    def nvmlShutdown(self) -> object:  # noqa: N802
        """Let go of it."""
        ...

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """How many GPUs there are."""
        ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        """One of them."""
        ...

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:  # noqa: N802
        """Its product's name."""
        ...

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:  # noqa: N802
        """`gpu` and `memory` in percent."""
        ...

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        """`used` and `total` in bytes."""
        ...

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        """In milliwatts."""
        ...

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:  # noqa: N802
        """In degrees Celsius."""
        ...

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:  # noqa: N802
        """In millijoules, since the driver was loaded."""
        ...


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it was; None for what it does not tell."""

    index: int
    name: str
    busy_ratio: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    energy_j: float | None = None
    """Since some moment before the first look."""


def load_nvml() -> Nvml:
    """The library's module. Raises ImportError where it is not installed."""
    return cast("Nvml", importlib.import_module("pynvml"))


class Gpus:
    """The GPUs of this machine. Not for several threads at once."""

    def __init__(self, load: Callable[[], Nvml] = load_nvml) -> None:
        self._load = load
        self._nvml: Nvml | None = None
        self._absent = False

    def look(self) -> tuple[Gpu, ...]:
        """How they are, now; empty where there are none. Blocks for some milliseconds. Never raises."""
        nvml = self._nvml or self._begin()
        if nvml is None:
            return ()
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:  # the driver went: it is loaded anew at the next look
            _log.debug("the GPUs' driver does not answer", reason=str(error))
            self.close()
            return ()
        found = (self._one(nvml, index) for index in range(count))
        return tuple(gpu for gpu in found if gpu is not None)

    def close(self) -> None:
        """Let go of the driver. Idempotent."""
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            _told(nvml, nvml.nvmlShutdown)

    def _begin(self) -> Nvml | None:
        if self._absent:
            return None
        try:
            nvml = self._load()
        except ImportError as error:
            self._give_up(str(error))
            return None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self._give_up(str(error))
            return None
        self._nvml = nvml
        return nvml

    def _give_up(self, reason: str) -> None:
        self._absent = True
        _log.debug("no NVIDIA GPUs", reason=reason)

    def _one(self, nvml: Nvml, index: int) -> Gpu | None:
        handle = _told(nvml, lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        name = _told(nvml, lambda: nvml.nvmlDeviceGetName(handle)) if handle is not None else None
        if name is None:
            return None
        rates = _told(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = _told(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        power_mw = _told(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        energy_mj = _told(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        return Gpu(
            index,
            name.decode("utf-8", "replace") if isinstance(name, bytes) else name,
            busy_ratio=rates.gpu / 100 if rates is not None else None,
            memory_used=memory.used if memory is not None else None,
            memory_total=memory.total if memory is not None else None,
            power_w=power_mw / 1000 if power_mw is not None else None,
            temperature_c=_told(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, _CHIP)),
            energy_j=energy_mj / 1000 if energy_mj is not None else None,
        )


def _told(nvml: Nvml, ask: Callable[[], ValueT]) -> ValueT | None:
    """What the driver says; None for what it does not support, or of a GPU that is lost."""
    try:
        return ask()
    except nvml.NVMLError:
        return None
