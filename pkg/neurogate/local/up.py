"""`neurogate up`: a fleet that is kept running until Ctrl-C, with its state in view."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from neurogate.local.banner import banner
from neurogate.local.control import listening, serve
from neurogate.local.fleet import Fleet, FleetError
from neurogate.local.keeper import Keeper
from neurogate.local.plan import FleetRequest
from neurogate.local.prepare import Prepared, prepare
from neurogate.local.run_directory import CONTROL
from neurogate.local.state import FleetState
from neurogate.local.table import Row, table_of
from neurogate.process import EXIT_FAILURE, run, run_until

READY_TIMEOUT_S = 300.0
_GRACE_S = 35.0
"""A little more than the processes' own drain timeout."""
_REFRESH_S = 1.0


class View(Protocol):
    """Where the state of the fleet is shown."""

    def __call__(self, state: FleetState | None) -> None:
        """Show this state instead of the one before; None is a gateway that does not answer."""
        ...


def main(request: FleetRequest) -> int:
    """Run it to its end. Returns the exit code: 1 when the fleet could not start."""
    console = Console(soft_wrap=True, highlight=False)
    prepared = prepare(request, console)
    fleet = Fleet(prepared.plan, prepared.directory, grace_s=_GRACE_S)
    failed: list[str] = []

    async def service(stopping: asyncio.Event) -> None:
        failure = await up(prepared, fleet, stopping, console)
        if failure:
            failed.append(failure)
            console.print(failure, style="red", markup=False)

    code = run(service)
    return EXIT_FAILURE if failed else code


async def up(prepared: Prepared, fleet: Fleet, stopping: asyncio.Event, console: Console) -> str:
    """Start the fleet, show it until `stopping` is set, stop it. Returns why it failed; empty when it was asked to."""
    for line in banner(prepared):
        console.print(line, markup=False)
    async with fleet:
        with view_on(console) as view:
            watching = await run_until(stopping, _watch(fleet, view, console), name="watch")
        console.print("stopping")
    console.print("stopped" + (f"; these had to be killed: {', '.join(fleet.killed)}" if fleet.killed else ""))
    return "" if watching.cancelled() else watching.result()


async def _watch(fleet: Fleet, view: View, console: Console) -> str:
    """Show the fleet, and keep it running. Returns why it could not start."""
    try:
        await fleet.wait_ready(READY_TIMEOUT_S, view)
    except FleetError as error:
        return str(error)
    keeper = Keeper(fleet, lambda line: console.print(line, markup=False))
    with ExitStack() as held:
        listener = held.enter_context(listening(fleet.directory / CONTROL)) if fleet.can_roll else None
        async with asyncio.TaskGroup() as tasks:
            if listener is not None:
                tasks.create_task(serve(listener, keeper.roll), name="control")
            tasks.create_task(keeper.run(), name="keeper")
            console.print("ready; Ctrl-C stops everything")
            while True:
                view(await fleet.state())
                await asyncio.sleep(_REFRESH_S)


@contextmanager
def view_on(console: Console) -> Iterator[View]:
    """A table that is rewritten in place on a terminal, and printed anew at each change elsewhere."""
    if not console.is_interactive:  # no terminal, or a dumb one
        yield _Printed(console)
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        yield lambda state: live.update(_shown(state), refresh=True)


class _Printed:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[Row, ...] = ()

    def __call__(self, state: FleetState | None) -> None:
        if state is not None and state.rows != self._last:
            self._last = state.rows
            self._console.print(_shown(state))


def _shown(state: FleetState | None) -> RenderableType:
    return "the gateway is starting" if state is None else table_of(state.rows)
