"""Passing a request to the engine and its answer back, byte for byte.

A stream is passed on in whole events, so that a worker's death never leaves half an event with the client, and it is
complete only when the engine's own end mark came: everything else is BROKEN, and said so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from neurogate.channel import End, EndCode
from neurogate.engines.engine import Engine, EngineCall, EngineReply
from neurogate.engines.payload import chunk_of
from neurogate.engines.sse import SseTap
from neurogate.inference import Usage
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.progress import Progress

_ERROR_BODY_BYTES = 64 * 1024


async def forward(engine: Engine, call: IncomingCall, outlet: Outlet, progress: Progress) -> End:
    """Answer a call with the engine's bytes.

    Raises EngineError as the engine does, and CancelledError, which stops the engine.
    """
    async with engine.forward(EngineCall(call.path, call.body, call.request_id)) as reply:
        if not 200 <= reply.status < 300:
            body = await _read(reply.body, _ERROR_BODY_BYTES)
            return End(
                http_status=reply.status,
                content_type=reply.content_type,
                body=body,
                retry_after_s=reply.retry_after_s,
            )
        if reply.content_type == "text/event-stream":
            return await _stream(reply, outlet, progress)
        return await _whole(reply, outlet)


async def _stream(reply: EngineReply, outlet: Outlet, progress: Progress) -> End:
    tap = SseTap()
    seen = 0
    async for data in reply.body:
        events = tap.feed(data)
        if events:
            outlet.chunk(events)
            progress.tokens(tap.events - seen)
            seen = tap.events
            if outlet.full:
                await outlet.room()
        if tap.error is not None:
            break
    ending = tap.finish()
    if ending.error is not None:
        return End(EndCode.BROKEN, usage=ending.usage, message=f"the engine reported: {ending.error}")
    if not ending.complete:
        return End(EndCode.BROKEN, usage=ending.usage, message="the engine's stream ended without its end mark")
    return End(http_status=reply.status, usage=ending.usage, finish_reason=ending.finish_reason)


async def _whole(reply: EngineReply, outlet: Outlet) -> End:
    parts: list[bytes] = []
    async for data in reply.body:
        parts.append(data)
        if outlet.full:
            await outlet.room()
    body = b"".join(parts)
    outlet.chunk(body)
    usage, finish_reason = _accounting(body)
    return End(http_status=reply.status, content_type=reply.content_type, usage=usage, finish_reason=finish_reason)


def _accounting(body: bytes) -> tuple[Usage | None, str]:
    """Usage and finish reason of an OpenAI answer; nothing of anything else."""
    answer = chunk_of(body)
    if answer is None:
        return None, ""
    reasons = [choice.finish_reason for choice in answer.choices if choice.finish_reason]
    return answer.total(), reasons[0] if reasons else ""


async def _read(body: AsyncIterator[bytes], limit: int) -> bytes:
    """The beginning of a body, up to a limit."""
    read = bytearray()
    async for data in body:
        read += data
        if len(read) >= limit:
            break
    return bytes(read[:limit])
