"""Passing a request to the engine and its answer back, byte for byte.

A stream is passed on in whole events, so that a worker's death never leaves half an event with the client, and it is
complete only when the end mark of its API came (`operations.Ending`). A whole answer is passed on when all of it is
there. Everything else is BROKEN, and said so. An engine that turns out not to have an API is UNSUPPORTED, in whatever
words it says so.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from neurogate.channel import End, EndCode
from neurogate.engines import accounting
from neurogate.engines.engine import MAX_ANSWER_BYTES, Engine, EngineCall, EngineReply
from neurogate.engines.payload import is_json, message_of
from neurogate.engines.sse import MARKS, SseTap
from neurogate.operations import OPERATIONS, Ending, Family, Operation
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.asked import end_marks, wants_stream
from neurogate.worker.progress import Progress
from neurogate.worker.refusals import KEY_REFUSED, key_refused
from neurogate.worker.relaying import read_whole, relay

_ERROR_BODY_BYTES = 64 * 1024

_NO_SUCH_ROUTE = frozenset({"File Not Found", "404 page not found", "Not Found", "Method Not Allowed"})
"""How llama.cpp, Ollama, and servers made with FastAPI say that they have no such path. Other 404s are about models."""

_NO_SUCH_INPUT = re.compile(
    r"(?:image|audio|video|multimodal) input is not supported"
    r"|this model is missing data required for image input"
    r"|is not a multimodal model"
)
"""How llama.cpp, Ollama and vLLM say that their model takes text alone, whichever status they give it."""


async def forward(
    engine: Engine, call: IncomingCall, outlet: Outlet, progress: Progress, *, max_answer_bytes: int = MAX_ANSWER_BYTES
) -> End:
    """Answer a call with the engine's bytes; `max_answer_bytes` bounds an answer that must be held whole.

    Raises EngineError as the engine does, and CancelledError, which stops the engine.
    """
    operation = OPERATIONS.get(call.path) or Operation(call.path, Family.NEUROGATE, Ending.NONE)
    async with engine.forward(EngineCall(call.path, call.body, call.request_id, max_answer_bytes)) as reply:
        if not 200 <= reply.status < 300:
            return await refused(reply, f"the engine {engine.kind} cannot do {call.path}")
        if reply.content_type == "text/event-stream":
            if operation.ending not in MARKS:
                return End(EndCode.BROKEN, message="the engine streams events, which this API never does")
            tap = SseTap(operation.ending, marks=end_marks(operation, call.body))
            return await relay(tap, reply, outlet, progress)
        if wants_stream(operation, call.body):
            kind = reply.content_type or "something"
            return End(EndCode.BROKEN, message=f"a stream was asked for, and the engine answered with {kind} instead")
        return await _whole(reply, operation.ending, outlet, max_answer_bytes)


async def refused(reply: EngineReply, cannot: str = "the engine cannot do this") -> End:
    """The end of a call that the engine refused: its own status and words.

    Unless it is the worker's key that it refuses, or what was asked for altogether, which `cannot` names: then another
    worker may do it.
    """
    body = await _read(reply.body, _ERROR_BODY_BYTES)
    told = message_of(body)
    no_route = reply.status in {404, 405} and told in _NO_SUCH_ROUTE
    if reply.status == 501 or no_route or _NO_SUCH_INPUT.search(told):
        return End(EndCode.UNSUPPORTED, message=f"{cannot}: {told or f'it answers {reply.status}'}")
    if reply.status in KEY_REFUSED:
        return End(EndCode.UNAVAILABLE, message=key_refused(f"HTTP {reply.status} ({told or 'no message'})"))
    return End(http_status=reply.status, content_type=reply.content_type, body=body, retry_after_s=reply.retry_after_s)


async def _whole(reply: EngineReply, mark: Ending, outlet: Outlet, limit: int) -> End:
    body = await read_whole(reply.body, limit)
    if _says_json(reply.content_type) and not is_json(body):  # a body without a length may be cut unnoticed
        return End(EndCode.BROKEN, message="the engine's answer is not whole: it is no valid JSON")
    outlet.chunk(body)
    told = accounting.whole(mark, body)
    return End(
        http_status=reply.status,
        content_type=reply.content_type,
        usage=told.usage,
        finish_reason=told.finish_reason,
    )


def _says_json(content_type: str) -> bool:
    return content_type in {"", "application/json"} or content_type.endswith("+json")


async def _read(body: AsyncIterator[bytes], limit: int) -> bytes:
    """The beginning of a body, up to a limit."""
    read = bytearray()
    async for data in body:
        read += data
        if len(read) >= limit:
            break
    return bytes(read[:limit])
