"""`neurogate up` shows the fleet until it is told to stop, or the fleet does not work any more."""

from __future__ import annotations

import asyncio
import io
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rich.console import Console

from neurogate.local.demo import KEY
from neurogate.local.fleet import Fleet
from neurogate.local.state import FleetState, WorkerState
from neurogate.local.table import Row
from neurogate.local.up import up, view_on


@pytest.fixture
def run_up(prepared, console, nothing_left):
    """Runs `up`, and `meanwhile` once the fleet is ready. Returns why it failed and what was shown."""

    def run(
        fleet: Fleet,
        meanwhile: Callable[[Fleet, asyncio.Event], Awaitable[None]] | None = None,
        shown: Console = console,
    ) -> tuple[str, str]:
        async def both() -> str:
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(up(prepared, fleet, stopping, shown))
                if meanwhile is not None:
                    while "ready; Ctrl-C" not in shown.file.getvalue():
                        await asyncio.sleep(0.05)
                    await meanwhile(fleet, stopping)
                return await running

        failure = asyncio.run(both())
        nothing_left(fleet)
        return failure, shown.file.getvalue()

    return run


async def stop(_: Fleet, stopping: asyncio.Event) -> None:
    stopping.set()


def test_it_shows_where_everything_is_until_it_is_stopped(make_fleet, run_up, prepared):
    failure, shown = run_up(make_fleet(), stop)

    assert failure == ""
    for fact in (prepared.plan.url, prepared.plan.gateway.ops_url, KEY, str(prepared.directory), "fake none"):
        assert fact in shown
    assert shown.endswith("stopping\nstopped\n")
    assert shown.count("worker ") <= 3, "the table is printed at changes only"


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_table_is_live_on_a_terminal(make_fleet, run_up, terminal):
    failure, shown = run_up(make_fleet(), stop, terminal)

    assert failure == ""
    assert "closed" in shown


def test_where_the_platform_lacks_what_a_takeover_takes_it_runs_without(make_fleet, run_up, prepared):
    async def look(fleet: Fleet, stopping: asyncio.Event) -> None:
        assert [path.name for path in prepared.directory.iterdir() if path.is_socket()] == []
        assert "NEUROGATE_TAKEOVER_SOCKET" not in environment_of(fleet.gateway.pid)
        stopping.set()

    failure, _ = run_up(make_fleet(lacking="darwin has no SO_PEERCRED"), look)

    assert failure == ""


def environment_of(pid: int) -> set[str]:
    """Names of its variables."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {variable.partition(b"=")[0].decode() for variable in variables}


def test_it_can_be_stopped_while_it_starts(make_fleet, prepared, console, nothing_left):
    fleet = make_fleet(gateway="never-ready")

    async def run() -> str:
        stopping = asyncio.Event()
        stopping.set()
        return await up(prepared, fleet, stopping, console)

    assert asyncio.run(run()) == ""
    nothing_left(fleet)


def test_failed_start_is_its_failure(make_fleet, run_up):
    failure, shown = run_up(make_fleet(worker_0="die"))

    assert failure.startswith("worker-0 ended with exit code 1")
    assert "ready; Ctrl-C" not in shown


@pytest.mark.parametrize("name", ["gateway", "worker-0"])
def test_whoever_dies_is_told_and_started_again(make_fleet, run_up, name):
    async def kill_one(fleet: Fleet, stopping: asyncio.Event) -> None:
        [child] = [child for child in fleet.children if child.name == name]
        pid = child.pid
        child.signal(signal.SIGKILL)
        while child.pid == pid or not await _is_ready(fleet):
            await asyncio.sleep(0.05)
        stopping.set()

    failure, shown = run_up(make_fleet(), kill_one)

    assert failure == ""
    assert f"{name} was killed by SIGKILL; its log" in shown
    assert f"{name} is started again in 0.5 s" in shown


async def _is_ready(fleet: Fleet) -> bool:
    state = await fleet.state()
    return state is not None and state.ready


def test_what_had_to_be_killed_is_told(make_fleet, run_up):
    failure, shown = run_up(make_fleet(worker_1="ignore-term", grace_s=0.3), stop)

    assert failure == ""
    assert "stopped; these had to be killed: worker-1" in shown


def test_gateway_that_does_not_answer_yet_is_said_on_a_terminal_only(console, terminal):
    for target in (terminal, console):
        with view_on(target) as view:
            view(None)

    assert "the gateway is starting" in terminal.file.getvalue()
    assert console.file.getvalue() == ""


def test_dumb_terminal_gets_whole_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    dumb = Console(file=io.StringIO(), force_terminal=True, width=100)
    state = FleetState((WorkerState(Row("worker-0", "a:1", "ready", "closed"), ""),), accepting=True)

    with view_on(dumb) as view:
        view(state)
        view(state)

    assert dumb.file.getvalue().count("worker-0") == 1
