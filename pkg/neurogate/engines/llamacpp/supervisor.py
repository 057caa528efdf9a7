"""Keeps one engine process alive: start, wait until it is healthy, restart it when it dies or hangs.

One task runs `run` and owns the process; `stop` only asks it to end. What being healthy means is the tenant's business:
it is told where the process listens, and that it is gone.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

from neurogate.engines.llamacpp import oom
from neurogate.engines.llamacpp.process import ChildProcess, Launch, Log
from neurogate.engines.llamacpp.restarts import Death, RestartPolicy

MENDED_S = 0.1
"""Until the next start, once what killed the last one is put right."""


class Tenant(Protocol):
    """Whoever uses the process."""

    async def move_in(self, url: str) -> None:
        """The process listens at `url`: returns when it is healthy. Cancelled when the process dies first."""
        ...

    async def move_out(self) -> None:
        """The process is gone. Also called when `move_in` never was."""
        ...


async def _nothing_to_mend() -> str:
    return ""


class Supervisor:
    """Runs one process after the other, until stopped."""

    def __init__(
        self,
        launch: Callable[[], Launch],
        tenant: Tenant,
        *,
        log: Log,
        grace_s: float = 5.0,
        load_timeout_s: float = 600.0,
        mend: Callable[[], Awaitable[str]] = _nothing_to_mend,
        oom_kills: Callable[[], int] = oom.kills,
    ) -> None:
        """`mend` looks for what could have killed a process before it was ready, and says what it has put right.

        It raises EngineFatalError when there is something that it cannot put right. `oom_kills` counts the processes
        that the kernel killed because memory ran out.
        """
        self._launch = launch
        self._tenant = tenant
        self._log = log
        self._grace_s = grace_s
        self._load_timeout_s = load_timeout_s
        self._mend = mend
        self._oom_kills = oom_kills
        self._policy = RestartPolicy()
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._child: ChildProcess | None = None
        self._ready_at: float | None = None
        self._killed_for = ""
        self._overdue = False
        self.deaths: dict[str, int] = {}
        """How often a process died, by cause."""
        self.restarts = 0
        """How often a dead process was followed by another."""
        self.detail = "the engine is not started"
        """Why there is no healthy process; empty when there is. Nothing that the process said: clients may be told."""
        self.last_words = ""
        """What the last one said when it died, or what was put right since; empty once another one is healthy."""

    def __repr__(self) -> str:
        return f"<Supervisor {self._child or 'without a process'} [{self.restarts} restarts]>"

    @property
    def loading(self) -> bool:
        """There is no healthy process, and will be one by itself."""
        return bool(self.detail) and not self._stopping.is_set()

    @property
    def pid(self) -> int | None:
        """The id of the process, while there is one."""
        return self._child.pid if self._child is not None else None

    async def run(self) -> None:
        """Supervise until stopped or cancelled; no process is left then.

        Raises EngineFatalError when starting the engine is pointless.
        """
        self._idle.clear()
        try:
            while not self._stopping.is_set():
                death = await self._live()
                if not self._stopping.is_set():
                    await self._mourn(death)
        finally:
            self.detail = "the engine is stopped"
            self._idle.set()

    async def stop(self) -> None:
        """End the process and `run`; returns when both are over. Idempotent."""
        self._stopping.set()
        if self._child is not None:
            await self._child.end()
        await self._idle.wait()

    def kill(self, reason: str) -> bool:
        """End a process that hangs, for `reason`: another one follows. False when there is none."""
        if self._child is None or self._stopping.is_set() or self._killed_for:
            return False
        self._log.error("engine hangs, killing it", pid=self._child.pid, why=reason)
        self._killed_for = reason
        self._child.kill()
        return True

    async def _live(self) -> Death:
        self.detail = "the engine is loading its model"
        self._ready_at = None
        self._killed_for, self._overdue = "", False
        killed_before = self._oom_kills()
        child = await ChildProcess.spawn(self._launch(), log=self._log, grace_s=self._grace_s)
        self._child = child
        if self._stopping.is_set():  # asked while the process was being created, when there was nothing to end
            await child.end()
        try:
            async with asyncio.TaskGroup() as life:
                moving_in = life.create_task(self._move_in(child))
                status = await child.run()
                moving_in.cancel()
        finally:
            self._child = None
            self.detail = "the engine died"
            await self._tenant.move_out()
        return Death(
            status,
            self._ready_for(),
            child.last_words(),
            out_of_memory=child.out_of_memory or (status == -signal.SIGKILL and self._oom_kills() > killed_before),
            killed_for=self._killed_for,
            overdue=self._overdue,
        )

    async def _move_in(self, child: ChildProcess) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._load_timeout_s):
                url = await child.url()
                await self._tenant.move_in(url)
        except TimeoutError:
            self._overdue = self.kill(
                f"it was not ready within {self._load_timeout_s:g} s (NEUROGATE_ENGINE_LOAD_TIMEOUT_S)"
            )
            return
        self._ready_at = loop.time()
        self.detail = self.last_words = ""
        self._log.info("engine ready", url=url, pid=child.pid, load_s=round(self._ready_at - began, 3))

    def _ready_for(self) -> float | None:
        if self._ready_at is None:
            return None
        return asyncio.get_running_loop().time() - self._ready_at

    async def _mourn(self, death: Death) -> None:
        self.deaths[death.cause.value] = self.deaths.get(death.cause.value, 0) + 1
        mended = "" if death.ready_s is not None or death.killed_for else await self._mend()
        delay_s = MENDED_S if mended else self._policy.after(death)
        self.restarts += 1
        why = "what it needs was broken and has been put right" if mended else str(death)
        self.detail = f"the engine is restarted in {delay_s:g} s because {why}"
        self.last_words = mended or ("" if death.killed_for else death.last_words)
        self._log.warning("engine died", why=mended or str(death), last_words=death.last_words, restart_in_s=delay_s)
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return
