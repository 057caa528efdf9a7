"""How a gateway goes: in the order of ADR 0021, each step announced before it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from neurogate.gateway.lifecycle import Lifecycle, Why

QUIET_S = 1.0
"""How long a kept connection must be without a request before it is closed."""

_log = structlog.get_logger("neurogate.gateway")


class Listening(Protocol):
    """What takes requests."""

    async def stop(self, grace_s: float, *, quiet_s: float) -> None:
        """Take no new connection, answer what comes on the others, close them, and cut them after `grace_s`."""
        ...


async def leave(
    lifecycle: Lifecycle, listeners: Sequence[Listening], *, delay_s: float, grace_s: float, quiet_s: float = QUIET_S
) -> None:
    """Be not ready, wait `delay_s` for those who look, then stop the listeners within `grace_s`."""
    lifecycle.drain(Why.STOP)
    if delay_s:
        await asyncio.sleep(delay_s)
    _log.info("taking no more connections", timeout_s=grace_s)
    async with asyncio.TaskGroup() as tasks:
        for each in listeners:
            tasks.create_task(each.stop(grace_s, quiet_s=min(quiet_s, grace_s)), name="listener-stop")
