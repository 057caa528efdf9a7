"""An engine's answer on its way through the worker: a stream piece by piece, or a whole answer when all of it is there.

Whatever watches a stream go by, a tap, says which bytes may pass and whether they came to their end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from neurogate.channel import End, EndCode
from neurogate.engines.engine import AnswerTooLargeError, EngineReply, pump
from neurogate.engines.sse import Ending
from neurogate.rpc.backend import Outlet
from neurogate.worker.progress import Progress


class Tap(Protocol):
    """Watches one stream go by, like `SseTap` and `NdjsonTap`."""

    error: str | None
    """The engine's message once it reported an error; nothing passes from then on."""
    events: int
    """Pieces of the answer that passed: about one a token."""

    def feed(self, data: bytes) -> bytes:
        """What may pass now that `data` came; possibly nothing. Raises EngineBrokenError for a piece without end."""
        ...

    def finish(self) -> Ending:
        """What the stream amounted to. Raises EngineBrokenError when something in it was none of its API."""
        ...


async def relay(
    tap: Tap, reply: EngineReply, outlet: Outlet, progress: Progress, *, end_mark: str = "its end mark"
) -> End:
    """Pass a stream on as its tap lets it through, no faster than the outlet takes it.

    A stream that breaks off, reports an error, or ends without `end_mark`, as its message calls it, is BROKEN. Raises
    EngineError as the engine does.
    """
    seen = 0
    feed, say, count = tap.feed, outlet.chunk, progress.tokens

    def take(data: bytes) -> bool:
        nonlocal seen
        passing = feed(data)
        if passing:
            goes_on = say(passing)
            events = tap.events
            count(events - seen)
            seen = events
        else:
            goes_on = not outlet.full
        return goes_on and tap.error is None

    while await pump(reply.body, take) and tap.error is None:
        await outlet.room()
    ending = tap.finish()
    if ending.error is not None:
        return End(EndCode.BROKEN, usage=ending.usage, message=f"the engine reported: {ending.error}")
    if not ending.complete:
        return End(EndCode.BROKEN, usage=ending.usage, message=f"the engine's stream ended without {end_mark}")
    return End(http_status=reply.status, usage=ending.usage, finish_reason=ending.finish_reason)


async def read_whole(body: AsyncIterator[bytes], limit: int) -> bytes:
    """All of a body. Raises AnswerTooLargeError when it is longer than `limit`, and EngineError as the engine does."""
    pieces: list[bytes] = []
    held = 0

    def take(piece: bytes) -> bool:
        nonlocal held
        pieces.append(piece)
        held += len(piece)
        return held <= limit

    if await pump(body, take):
        raise AnswerTooLargeError(limit)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
