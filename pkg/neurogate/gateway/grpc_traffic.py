"""What a proxied call carries: held in memory while it passes, and charged to its key.

What the messages mean is not known here, so their bytes stand for tokens. A call may go on for days: after each minute
it settles what it carried and reserves anew, as another request of its key would, and it ends when that is refused.
"""

from __future__ import annotations

import asyncio

from neurogate.gateway.edge import Edge
from neurogate.gateway.grpc_served import ServedRpc
from neurogate.gateway.intake import BodyBudget

_BYTES_PER_TOKEN = 4
"""As for prompts whose tokens nobody has counted."""

RENEWED_AFTER_S = 60.0
"""The longest that a key's use is not known to its limits: a minute, which is what they count in."""


class ProxiedTraffic:
    """A `Traffic` whose call was let in, and reserved."""

    def __init__(self, served: ServedRpc, edge: Edge, bodies: BodyBudget, loop: asyncio.AbstractEventLoop) -> None:
        self._served = served
        self._edge = edge
        self._bodies = bodies
        self._loop = loop
        self._renew_at = loop.time() + RENEWED_AFTER_S

    async def up(self, size: int) -> None:
        """See Traffic. Raises RateLimitedError when the key has used what it may, BusyError when memory is full."""
        if self._served.reservation is not None and self._loop.time() >= self._renew_at:
            await self._renew()
        self._bodies.take(size)
        self._served.carried += size

    async def down(self, size: int) -> None:
        """See Traffic."""
        await self.up(size)
        self._served.bytes_sent += size

    def passed(self, size: int) -> None:
        """See Traffic."""
        self._bodies.give(size)

    async def _renew(self) -> None:
        self._renew_at = self._loop.time() + RENEWED_AFTER_S  # first: the other direction comes here as well
        served = self._served
        reservation, served.reservation = served.reservation, None
        if reservation is not None:
            reservation.settle(tokens_in(served.carried))
            served.carried = 0
            served.reservation = await self._edge.reserve(
                served.caller, prompt_bytes=0, max_tokens=None, n=1, generates=True
            )


def tokens_in(size: int) -> int:
    """The tokens that so many bytes of messages stand for."""
    return size // _BYTES_PER_TOKEN
