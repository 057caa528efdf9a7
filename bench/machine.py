"""The machine that figures were made on, and how quiet it was."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from usage import machine_busy


def facts() -> dict[str, Any]:
    """What may explain that another machine's figures are others."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in _field("/proc/cpuinfo", "flags"),
        "memory_mib": int(_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": _python(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocksource": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def busy_share(seconds: float = 2.0) -> float:
    """The share of all cores that others use now."""
    before, began = machine_busy()[0], time.monotonic()
    time.sleep(seconds)
    return (machine_busy()[0] - before) / (time.monotonic() - began) / (os.cpu_count() or 1)


def _python() -> str:
    """With how it was built: without a profile to guide the compiler everything in Python costs a fifth more or so."""
    version = platform.python_version()
    if sys.base_prefix == "/usr":
        return f"{version} of {platform.freedesktop_os_release().get('PRETTY_NAME', 'the system')}"
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return f"{version} built {'with' if '--enable-optimizations' in options else 'without'} --enable-optimizations"


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
