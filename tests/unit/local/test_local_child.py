"""A child of a fleet dies with the process that started it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from neurogate.local import processes

CHILD = [sys.executable, "-m", "neurogate.local.child"]


def test_it_becomes_the_command():
    done = subprocess.run([*CHILD, str(os.getpid()), "--version"], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("neurogate ")


def test_it_does_not_start_for_a_parent_that_is_gone():
    assert subprocess.run([*CHILD, "0", "--version"], capture_output=True, check=False).returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_it_dies_with_its_parent_even_when_that_is_killed():
    script = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-m', 'neurogate.local.child', str(os.getpid()), 'sim-engine', '--port', '0']\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        pid, _, announced = parent.stdout.readline().partition(" ")
        assert announced.startswith("listening on")
        child = os.pidfd_open(int(pid))
        try:
            parent.kill()
            ended, _, _ = select.select([child], [], [], 30)
        finally:
            os.close(child)

    assert ended, "it outlived its parent"


def test_killing_a_process_that_is_gone_is_fine():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    processes.kill(process.pid)


def test_processes_of_another_fleet_are_not_found():
    assert processes.marked("no fleet has this name") == {}


def test_marked_process_is_found_and_killed():
    waiting = [sys.executable, "-c", "import signal; signal.pause()"]
    with subprocess.Popen(waiting, env={processes.MARK: "this-test"}) as process:
        assert processes.marked("this-test") == {process.pid: " ".join(waiting)}
        processes.kill(process.pid)

        assert process.wait() == -signal.SIGKILL
