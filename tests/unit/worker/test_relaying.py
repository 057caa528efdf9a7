"""A stream on its way through a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from neurogate.engines.engine import EngineReply
from neurogate.engines.sse import SseTap
from neurogate.virtual_time import run
from neurogate.worker.relaying import relay
from worker_support import FakeOutlet, progress

EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


def test_an_outlet_that_others_have_filled_stops_pieces_of_events_as_well() -> None:
    async def main() -> None:
        outlet, asked = FakeOutlet(limit=1), 0
        outlet.chunk(b"of another call")

        async def said() -> AsyncIterator[bytes]:
            nonlocal asked
            for piece in (EVENT[:9], EVENT[9:], b"data: [DONE]\n\n"):
                asked += 1
                yield piece

        relaying = asyncio.create_task(
            relay(SseTap(), EngineReply(200, "text/event-stream", said()), outlet, progress())
        )
        for waits in (1, 2, 3):
            while outlet.waited < waits and not relaying.done():
                await asyncio.sleep(0)
            assert asked == waits
            outlet.read()
        assert (await relaying).http_status == 200
        assert outlet.chunks[1:] == [EVENT, b"data: [DONE]\n\n"]

    run(main())
