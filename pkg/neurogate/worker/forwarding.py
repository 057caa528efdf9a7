"""Passing a request to the engine and its answer back, byte for byte.

A stream is passed on in whole events, so that a worker's death never leaves half an event with the client, and it is
complete only when the engine's own end mark came. A whole answer is passed on when all of it is there. Everything else
is BROKEN, and said so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from neurogate.channel import End, EndCode
from neurogate.engines.engine import MAX_ANSWER_BYTES, AnswerTooLargeError, Engine, EngineCall, EngineReply
from neurogate.engines.payload import chunk_of, is_json, message_of
from neurogate.engines.sse import SseTap
from neurogate.inference import Usage
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.asked import asked
from neurogate.worker.progress import Progress
from neurogate.worker.refusals import KEY_REFUSED, key_refused

_ERROR_BODY_BYTES = 64 * 1024


async def forward(
    engine: Engine, call: IncomingCall, outlet: Outlet, progress: Progress, *, max_answer_bytes: int = MAX_ANSWER_BYTES
) -> End:
    """Answer a call with the engine's bytes; `max_answer_bytes` bounds an answer that must be held whole.

    Raises EngineError as the engine does, and CancelledError, which stops the engine.
    """
    async with engine.forward(EngineCall(call.path, call.body, call.request_id, max_answer_bytes)) as reply:
        if not 200 <= reply.status < 300:
            return await refused(reply)
        if reply.content_type == "text/event-stream":
            return await _stream(reply, outlet, progress)
        if asked(call.body).stream:
            kind = reply.content_type or "something"
            return End(EndCode.BROKEN, message=f"a stream was asked for, and the engine answered with {kind} instead")
        return await _whole(reply, outlet, max_answer_bytes)


async def refused(reply: EngineReply) -> End:
    """The end of a call that the engine refused: its own status and words, unless it is the worker's key it refuses."""
    body = await _read(reply.body, _ERROR_BODY_BYTES)
    if reply.status in KEY_REFUSED:
        return End(
            EndCode.UNAVAILABLE, message=key_refused(f"HTTP {reply.status} ({message_of(body) or 'no message'})")
        )
    return End(http_status=reply.status, content_type=reply.content_type, body=body, retry_after_s=reply.retry_after_s)


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


async def _whole(reply: EngineReply, outlet: Outlet, limit: int) -> End:
    held = bytearray()
    async for data in reply.body:
        held += data
        if len(held) > limit:
            raise AnswerTooLargeError(limit)
    body = bytes(held)
    if _says_json(reply.content_type) and not is_json(body):  # a body without a length may be cut unnoticed
        return End(EndCode.BROKEN, message="the engine's answer is not whole: it is no valid JSON")
    outlet.chunk(body)
    usage, finish_reason = _accounting(body)
    return End(http_status=reply.status, content_type=reply.content_type, usage=usage, finish_reason=finish_reason)


def _says_json(content_type: str) -> bool:
    return content_type in {"", "application/json"} or content_type.endswith("+json")


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
