"""On Ollama itself: the client's bytes to it, its bytes back.

A stream is passed on in whole lines and is complete only with its last one. A whole answer is passed on when all of it
is there and it says that it is done. To load or unload a model is answered with one object, also where a stream was
asked for.
"""

from __future__ import annotations

from neurogate.channel import End, EndCode
from neurogate.engines.engine import Engine, EngineCall
from neurogate.engines.ndjson import NdjsonTap, summary_of
from neurogate.inference import Usage
from neurogate.operations import OPERATIONS, Ending
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.asked import asked
from neurogate.worker.forwarding import refused
from neurogate.worker.ollama_api.wording import STREAM_TYPE
from neurogate.worker.progress import Progress
from neurogate.worker.relaying import read_whole, relay


async def pass_through(
    engine: Engine, call: IncomingCall, outlet: Outlet, progress: Progress, *, max_answer_bytes: int
) -> End:
    """Answer a call with Ollama's bytes. Raises EngineError as the engine does."""
    generates = OPERATIONS[call.path].ending is Ending.NDJSON_DONE
    async with engine.forward(EngineCall(call.path, call.body, call.request_id, max_answer_bytes)) as reply:
        if not 200 <= reply.status < 300:
            return await refused(reply)
        if reply.content_type == STREAM_TYPE:
            return await relay(NdjsonTap(), reply, outlet, progress, end_mark="its last line")
        body = await read_whole(reply.body, max_answer_bytes)
    summary = summary_of(body)
    if summary is None or (generates and not summary.done):
        return End(EndCode.BROKEN, message="the engine's answer is not whole: it does not say that it is done")
    line = generates and asked(call.body).stream is not False
    outlet.chunk(body + b"\n" if line and not body.endswith(b"\n") else body)
    usage = summary.usage if summary.usage != Usage() else None
    return End(http_status=reply.status, usage=usage, finish_reason=summary.done_reason or "")
