"""Lines go to a disk that may be slow, full or gone, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import structlog

from neurogate.telemetry.line_writer import LineWriter

NEVER = 60.0


class Disk:
    """Records lines; it hangs while closed to writes, and fails with what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.files: list[list[bytes]] = [self.lines]
        self.largest = 0
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()
        self.tried = threading.Semaphore(0)
        self.error: OSError | None = None
        self.closed = False

    def append(self, lines: Sequence[bytes]) -> None:
        self.busy.set()
        assert self.free.wait(NEVER)
        self.largest = max(self.largest, len(lines))
        error = self.error
        if error is None:
            self.lines += lines
        self.tried.release()
        if error is not None:
            raise error

    def reopen(self) -> None:
        if self.error:
            raise self.error
        self.lines = []
        self.files.append(self.lines)

    def close(self) -> None:
        self.closed = True


class Rig:
    """A writer, its disk and what is counted."""

    def __init__(self, max_waiting: int = 1000) -> None:
        self.disk = Disk()
        self.losses: list[int] = []
        self.writer = LineWriter(
            self.disk,
            lambda number: b"%d\n" % number,
            name="test",
            max_waiting=max_waiting,
            on_loss=self.losses.append,
            gather_s=0.001,
        )

    def written(self) -> list[bytes]:
        """Everything, once all is over."""
        self.writer.close(NEVER)
        assert self.disk.closed
        assert "log test" not in {thread.name for thread in threading.enumerate()}
        return self.disk.lines

    def hang(self) -> None:
        """Let the disk take one line, and hang with it."""
        self.disk.free.clear()
        self.writer.write(-1)
        assert self.disk.busy.wait(NEVER)

    def attempt(self) -> None:
        """Write a line and wait until the disk has been asked to take it."""
        self.writer.write(0)
        assert self.disk.tried.acquire(timeout=NEVER)


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d\n" % number for number in range(first, end)]


def test_all_lines_are_written_in_order_a_bounded_number_at_once() -> None:
    rig = Rig(max_waiting=2000)
    for number in range(1000):
        rig.writer.write(number)
    rig.writer.start()
    for number in range(1000, 2000):
        rig.writer.write(number)
    assert rig.written() == numbers(0, 2000)
    assert rig.disk.largest <= 256
    assert rig.losses == []
    assert rig.writer.lost == 0


def test_lines_are_written_soon_without_anybody_closing() -> None:
    rig = Rig()
    rig.writer.start()
    for _ in range(3):
        rig.attempt()
    assert rig.disk.lines == [b"0\n"] * 3
    rig.written()


def test_a_hanging_disk_costs_the_lines_that_find_no_room_and_nobody_waits() -> None:
    rig = Rig(max_waiting=10)
    rig.writer.start()
    rig.hang()
    with structlog.testing.capture_logs() as logged:
        for number in range(15):
            rig.writer.write(number)
    assert rig.losses == [1] * 5
    assert rig.writer.lost == 5
    assert [entry["event"] for entry in logged] == ["log lines are lost: the disk does not keep up"]
    assert repr(rig.writer) == "<LineWriter test [10 waiting, 5 lost]>"
    rig.disk.free.set()
    assert rig.written() == [b"-1\n", *numbers(0, 10)]


def test_every_time_that_lines_are_lost_is_said_once() -> None:
    with structlog.testing.capture_logs() as logged:
        rig = Rig(max_waiting=1)
        rig.writer.start()
        for _ in range(2):
            rig.hang()
            rig.writer.write(1)
            rig.writer.write(2)
            rig.disk.free.set()
            assert rig.disk.tried.acquire(timeout=NEVER)
            assert rig.disk.tried.acquire(timeout=NEVER)
            rig.disk.busy.clear()
            while rig.writer._full:
                assert rig.writer._thread.is_alive()
        rig.written()
    assert [entry.get("lost_in_all") for entry in logged] == [None, 1, None, 2]


def test_a_disk_that_refuses_costs_lines_and_is_tried_again() -> None:
    rig = Rig()
    with structlog.testing.capture_logs() as logged:
        rig.writer.start()
        rig.disk.error = OSError(28, "No space left on device")
        rig.attempt()
        rig.attempt()
        rig.disk.error = None
        rig.attempt()
        assert rig.written() == [b"0\n"]
    assert rig.losses == [1, 1]
    assert rig.writer.lost == 2
    assert [entry["event"] for entry in logged] == [
        "log lines are lost: the file cannot be written",
        "the file can be written again",
    ]
    assert "No space left" in logged[0]["reason"]


def test_after_a_reopening_lines_go_to_the_new_file() -> None:
    rig = Rig()
    rig.writer.start()
    rig.attempt()
    rig.writer.reopen()
    rig.attempt()
    rig.written()
    assert rig.disk.files == [[b"0\n"], [b"0\n"]]


def test_a_file_that_cannot_be_reopened_is_said() -> None:
    rig = Rig()
    with structlog.testing.capture_logs() as logged:
        rig.disk.error = PermissionError(13, "Permission denied")
        rig.writer.reopen()
        rig.writer.start()
        rig.written()
    assert [entry["event"] for entry in logged] == ["log lines are lost: the file cannot be written"]
    assert rig.losses == [0]


def test_a_disk_that_hangs_does_not_hold_up_the_end() -> None:
    rig = Rig()
    rig.writer.start()
    rig.hang()
    rig.writer.write(1)
    rig.writer.write(2)
    with structlog.testing.capture_logs() as logged:
        rig.writer.close(0.01)
    assert rig.losses == [2]
    assert [entry["lost_in_all"] for entry in logged] == [2]
    rig.disk.free.set()
    rig.writer._thread.join(NEVER)


@pytest.mark.parametrize("lines", [0, 2])
def test_a_writer_that_never_started_can_be_closed(lines: int) -> None:
    rig = Rig()
    for number in range(lines):
        rig.writer.write(number)
    rig.writer.close(NEVER)
    assert rig.losses == ([lines] if lines else [])


def test_losses_need_not_be_counted() -> None:
    writer = LineWriter(Disk(), lambda number: b"%d\n" % number, name="test", max_waiting=0)
    writer.write(1)
    assert writer.lost == 1
