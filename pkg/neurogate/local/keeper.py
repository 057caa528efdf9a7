"""Keeps a fleet running: whoever dies is started again, and all of it can be restarted without losing a request.

Its `run` alone starts what has ended, but for a process that a rolling restart has in hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from neurogate.local.fleet import POLL_S, Child, Fleet, FleetError

Say = Callable[[str], None]

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
_GOOD_S = 60.0
"""Who has run for so long is started again at once."""
_READY_S = 300.0
"""How long one process of a rolling restart may take: loading a model, or finishing what it holds."""


@dataclass(slots=True)
class _Record:
    """One child's past."""

    started_at: float
    deaths: int = 0
    due_at: float | None = None
    """When it is started again; None while it runs."""


class Keeper:
    """The keeper of one fleet. `say` takes lines for whoever looks at it."""

    def __init__(self, fleet: Fleet, say: Say) -> None:
        self._fleet = fleet
        self._say = say
        self._records: dict[str, _Record] = {}
        self._in_hand: set[str] = set()
        self._rolling = False

    async def run(self) -> None:
        """Start again what has ended, for ever."""
        while True:
            for child in (self._fleet.gateway, *self._fleet.workers):
                if child.name not in self._in_hand:
                    await self._look_after(child)
            await asyncio.sleep(POLL_S)

    async def roll(self, tell: Say) -> bool:
        """Restart every worker, one after the other, and then the gateway; `tell` hears of each. Whether all went well.

        The first process that does not come back ends it, so that the others go on as they are.
        """
        if self._rolling:
            tell("a rolling restart is under way already")
            return False
        self._rolling = True
        try:
            if len(self._fleet.workers) == 1:
                tell("there is one worker: requests wait while it is away, and fail when that takes long")
            for worker in self._fleet.workers:
                await self._roll_worker(worker, tell)
            await self._roll_gateway(tell)
        except FleetError as error:
            tell(str(error))
            return False
        finally:
            self._rolling = False
        return True

    async def _look_after(self, child: Child) -> None:
        now = asyncio.get_running_loop().time()
        record = self._records.setdefault(child.name, _Record(now))
        if child.ending is None:
            return
        if record.due_at is None:
            record.deaths = record.deaths + 1 if now - record.started_at < _GOOD_S else 1
            wait_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** (record.deaths - 1))
            record.due_at = now + wait_s
            self._say(f"{child.report()}\n{child.name} is started again in {wait_s:g} s")
        elif now >= record.due_at:
            record.started_at, record.due_at = now, None
            await self._fleet.start(child)

    async def _roll_worker(self, worker: Child, tell: Say) -> None:
        began = asyncio.get_running_loop().time()
        await self._until_ready(f"{worker.name} is not restarted, for the fleet")
        self._in_hand.add(worker.name)
        try:
            tell(f"{worker.name}: draining")
            if not await self._fleet.end(worker):
                tell(f"{worker.name}: had to be killed")
            await self._fleet.start(worker)
            await self._until_ready(f"{worker.name} was restarted, and the fleet", worker)
        finally:
            self._in_hand.discard(worker.name)
        tell(f"{worker.name}: ready, after {asyncio.get_running_loop().time() - began:.1f} s")

    async def _roll_gateway(self, tell: Say) -> None:
        began = asyncio.get_running_loop().time()
        gateway = self._fleet.gateway
        self._in_hand.add(gateway.name)
        try:
            tell(f"{gateway.name}: another one takes over")
            await self._fleet.replace_gateway(_READY_S)
            await self._until_ready("the gateway was replaced, and the fleet", self._fleet.gateway)
        finally:
            self._in_hand.discard(gateway.name)
        tell(f"{gateway.name}: ready, after {asyncio.get_running_loop().time() - began:.1f} s")

    async def _until_ready(self, what: str, child: Child | None = None) -> None:
        """Wait for the whole fleet. Raises FleetError when that takes too long, or when the child ends."""
        state = None
        try:
            async with asyncio.timeout(_READY_S):
                while (state := await self._fleet.state()) is None or not state.ready:
                    if child is not None and child.ending is not None:
                        raise FleetError(child.report())
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise FleetError(f"{what} is not ready after {_READY_S:g} s: {state}") from None
