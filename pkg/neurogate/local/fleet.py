"""A gateway and its workers as child processes: started together, watched, stopped together.

A fleet is an async context manager; when its block is left, for whatever reason, none of its processes is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from neurogate.config import child_environment
from neurogate.errors import NeuroGateError
from neurogate.gateway import handover
from neurogate.local import processes
from neurogate.local.plan import ChildPlan, FleetPlan
from neurogate.local.run_directory import tail
from neurogate.local.state import FleetState, observe

POLL_S = 0.2
_ANSWER_TIMEOUT_S = 2.0
_KILLED_S = 5.0
"""How long the kernel may take to end a process that was killed."""
_ORPHANS_S = 2.0
"""How long what a child left behind may take to notice and end by itself."""
_LEFT_POLL_S = 0.05


class FleetError(NeuroGateError):
    """The fleet does not work. The message holds the last lines of the logs that tell why."""


def launcher() -> tuple[str, ...]:
    """The command that runs a neurogate command which dies with this process."""
    return (sys.executable, "-m", "neurogate.local.child", str(os.getpid()))


class Child:
    """One process of the fleet, with its log."""

    def __init__(self, plan: ChildPlan, log: Path) -> None:
        self.name = plan.name
        self.address = plan.address
        self.log = log
        self._plan = plan
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, command: Sequence[str], fleet: str) -> None:
        """Start it in a session of its own, so that a terminal's Ctrl-C reaches only us."""
        environment = child_environment({**self._plan.environment, processes.MARK: fleet})
        with self.log.open("ab") as log:  # two processes may write to it, one after the other or at once
            self._process = await asyncio.create_subprocess_exec(
                *command,
                self._plan.command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id; 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    @property
    def ending(self) -> str | None:
        """How it ended; None while it runs or before it was started."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal, which is fine for one that ended meanwhile."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signum)

    async def ended(self) -> None:
        """Return when it has ended, or was never started."""
        if self._process is not None:
            await self._process.wait()

    def report(self) -> str:
        """How it ended, with the last lines of its log."""
        return f"{self.name} {self.ending or 'is running'}; its log {self.log} ends with:\n{tail(self.log)}"


class Fleet:
    """A running fleet. `grace_s` is how long its processes may take to finish when it stops."""

    def __init__(
        self,
        plan: FleetPlan,
        directory: Path,
        *,
        grace_s: float,
        command: Sequence[str] | None = None,
        lacking: Callable[[], str] = handover.lacking,
    ) -> None:
        """`lacking` is asked what the platform lacks for restarts without a pause."""
        self.plan = plan
        self.directory = directory
        self.name = uuid.uuid4().hex
        self.can_roll = not lacking()
        """Whether its gateway can be replaced while it serves."""
        self._gateway_plan = _handing_over(plan.gateway, directory) if self.can_roll else plan.gateway
        self._gateway_log = directory / f"{plan.gateway.name}.log"
        self.gateway = Child(self._gateway_plan, self._gateway_log)
        self.workers = [Child(worker, directory / f"{worker.name}.log") for worker in plan.workers]
        self.killed: list[str] = []
        """What had to be killed when the fleet stopped: names of children, command lines of what they left behind."""
        self._successor: Child | None = None
        """A gateway that is about to take over from `gateway`."""
        self._grace_s = grace_s
        self._command = tuple(command or launcher())
        self._client = httpx.AsyncClient(timeout=_ANSWER_TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        try:
            for child in self.children:
                await self.start(child)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def children(self) -> list[Child]:
        """Every process: the gateway first."""
        return [self.gateway, *([self._successor] if self._successor is not None else []), *self.workers]

    async def start(self, child: Child) -> None:
        """Start one of the children, for the first time or again when it has ended."""
        await child.start(self._command, self.name)

    async def end(self, child: Child) -> bool:
        """Ask one of them to end, and kill it when it does not in time. Whether it ended by itself."""
        child.signal(signal.SIGTERM)
        await _ended([child], self._grace_s)
        if child.ending is not None:
            return True
        child.signal(signal.SIGKILL)
        await _ended([child], _KILLED_S)
        return False

    async def replace_gateway(self, timeout_s: float) -> None:
        """Have another gateway take over from the one that runs, and finish what it holds.

        Raises FleetError when that does not come about within `timeout_s`; the one that runs goes on then.
        """
        self._successor = successor = Child(self._gateway_plan, self._gateway_log)
        try:
            await self.start(successor)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as tasks:
                    ends = [tasks.create_task(child.ended()) for child in (self.gateway, successor)]
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    for end in ends:
                        end.cancel()
            if self.gateway.ending is None or successor.ending is not None:
                raise FleetError(successor.report())
            self.gateway = successor
        finally:
            if self.gateway is not successor:
                successor.signal(signal.SIGKILL)
                await successor.ended()
            self._successor = None

    async def state(self) -> FleetState | None:
        """How it is now; None while the gateway does not answer."""
        return await observe(self._client, self.plan)

    async def wait_ready(self, timeout_s: float, seen: Callable[[FleetState | None], None]) -> None:
        """Return when every worker is ready and the gateway may send it requests; `seen` gets each state on the way.

        Raises FleetError with the logs when a process ends before, or when it takes longer than `timeout_s`.
        """
        last: list[FleetState | None] = [None]

        def keep(state: FleetState | None) -> None:
            last[0] = state
            seen(state)

        try:
            async with asyncio.timeout(timeout_s):
                while not await self._ready(keep):  # noqa: ASYNC110 - another process cannot set an Event
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            unready = [child for child in self.children if child.ending is None]
            told = last[0] or "the gateway does not answer"
            logs = "\n".join(child.report() for child in unready)
            raise FleetError(f"the fleet is not ready after {timeout_s:g} s: {told}\n{logs}") from None

    async def _ready(self, seen: Callable[[FleetState | None], None]) -> bool:
        for child in self.children:
            if child.ending is not None:
                raise FleetError(child.report())
        state = await self.state()
        seen(state)
        return state is not None and state.ready

    async def stop(self) -> None:
        """End every process: the gateway first, so that it can finish its requests. Idempotent.

        What does not end in time, or when this is cancelled, is killed; so is any process that a child left behind.
        """
        try:
            for children in ([child for child in self.children if child not in self.workers], self.workers):
                for child in children:
                    child.signal(signal.SIGTERM)
                await _ended(children, self._grace_s)
        finally:
            await self._kill_rest()
            await self._client.aclose()

    async def _kill_rest(self) -> None:
        for child in self.children:
            if child.pid and child.ending is None:
                self.killed.append(child.name)
                child.signal(signal.SIGKILL)
        await _ended(self.children, _KILLED_S)
        left = await self._left_after(_ORPHANS_S)
        for pid, command in left.items():
            self.killed.append(command)
            processes.kill(pid)
        await self._left_after(_KILLED_S)

    async def _left_after(self, seconds: float) -> dict[int, str]:
        """The fleet's processes that are still there after so long; returns at once when there are none."""
        end = asyncio.get_running_loop().time() + seconds
        while left := processes.marked(self.name):
            if asyncio.get_running_loop().time() >= end:
                break
            await asyncio.sleep(_LEFT_POLL_S)
        return left


def _handing_over(plan: ChildPlan, directory: Path) -> ChildPlan:
    """A gateway of which another one can take over."""
    takeover = {"NEUROGATE_TAKEOVER_SOCKET": str(directory / "gateway.sock")}
    return replace(plan, environment={**plan.environment, **takeover})


async def _ended(children: Sequence[Child], timeout_s: float) -> None:
    """Return when all have ended, or after the timeout."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as tasks:
            for child in children:
                tasks.create_task(child.ended(), name=f"end of {child.name}")
