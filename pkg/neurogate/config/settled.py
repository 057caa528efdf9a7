"""Waiting for a file that somebody may still be writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SETTLE_S = 0.5
"""A changed file must stay the same for so long before it is read: until then it may be half written."""
LOOKS_MAX = 20
"""A file that changes all the time is read as it is after so many looks."""


async def settled(fingerprint: Callable[[], bytes], *, pause_s: float = SETTLE_S) -> None:
    """Return when `fingerprint`, called in a thread, gave the same twice with `pause_s` between; or after LOOKS_MAX."""
    seen = None
    for _ in range(LOOKS_MAX):
        now = await asyncio.to_thread(fingerprint)
        if now == seen:
            return
        seen = now
        await asyncio.sleep(pause_s)
