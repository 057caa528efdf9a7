"""How busy the machine is, from files like those of /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurogate.telemetry.machine import WINDOW_S, Machine


class Clocked:
    """A machine whose files and clock the test sets."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.now_s = 0.0
        self.memory(total=1000, available=1000)
        self.cpu(busy=0, idle=0)
        self.machine = Machine(now=lambda: self.now_s, proc=proc)

    def cpu(self, *, busy: int, idle: int) -> None:
        (self.proc / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 9 9\ncpu0 1 2 3 4 5 6 7 8 9 9\n")

    def memory(self, *, total: int, available: int) -> None:
        told = f"MemTotal: {total} kB\nMemFree: 5 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n"
        (self.proc / "meminfo").write_text(told)


def test_usage_is_in_percent_of_all_cores_and_all_memory(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path)
    clocked.cpu(busy=30, idle=90)
    clocked.memory(total=1000, available=400)
    assert clocked.machine.vitals() == {"cpu_usage": 25.0, "memory_usage": 60.0}


def test_several_who_look_do_not_shorten_one_anothers_window(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path)
    for now_s, busy, idle, said in [
        (0.1, 10, 0, 100.0),
        (0.2, 10, 90, 100.0),
        (0.1 + WINDOW_S, 35, 75, 25.0),
        (0.2 + WINDOW_S, 999, 75, 25.0),
        (9.0, 35, 75, 25.0),  # the clock of the cores stood still
    ]:
        clocked.now_s = now_s
        clocked.cpu(busy=busy, idle=idle)
        assert clocked.machine.vitals()["cpu_usage"] == said


def test_before_any_time_has_passed_cpu_usage_is_not_known(tmp_path: Path) -> None:
    assert Clocked(tmp_path).machine.vitals() == {"memory_usage": 0.0}


@pytest.mark.parametrize(
    "broken", ["", "cpu\n", "cpu a b c d e\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", "MemTotal:\n"]
)
def test_what_the_machine_does_not_tell_is_left_out(tmp_path: Path, broken: str) -> None:
    clocked = Clocked(tmp_path)
    for name in ("stat", "meminfo"):
        (tmp_path / name).write_text(broken)
    assert clocked.machine.vitals() == {}


def test_a_machine_without_such_files_tells_nothing(tmp_path: Path) -> None:
    assert Machine(now=lambda: 0.0, proc=tmp_path / "none").vitals() == {}


def test_this_machine_tells_something_plausible() -> None:
    told = Machine(now=lambda: 0.0).vitals()
    assert 0 < told["memory_usage"] < 100
