"""One sampled call as spans of the worker, under the gateway's attempt (ADR 0026).

    call        SERVER, from the call's arrival to its end
      prefill   until its first token: what the engine's own queue and the prompt take
      decode    from the first token to the last

The engine is told the context of `call`. An answer that shows no token before its end has no phases.
"""

from __future__ import annotations

from neurogate.channel import End, EndCode
from neurogate.operations import OPERATIONS
from neurogate.rpc.backend import IncomingCall
from neurogate.telemetry import genai
from neurogate.telemetry.spans import Kind, Trace, Value
from neurogate.worker.asked import wants_stream
from neurogate.worker.progress import Progress


class CallTrace:
    """One call's record."""

    __slots__ = ("_call", "_engine", "_model", "_progress", "_trace")

    def __init__(self, trace: Trace, call: IncomingCall, engine: str) -> None:
        self._trace = trace
        self._call = call
        self._engine = engine
        self._model = ""
        self._progress: Progress | None = None

    @property
    def context(self) -> str:
        """What the engine is told."""
        return self._trace.context

    def begun(self, progress: Progress, model: str) -> None:
        """The call was let in."""
        self._progress, self._model = progress, model

    def over(self, end: End) -> None:
        """The call has ended; once."""
        trace, call = self._trace, self._call
        failed = end.code is not EndCode.ANSWERED or end.http_status >= 500
        asked = genai.asked(call.path, self._engine, self._model)
        if self._progress is not None:
            self._add_phases(self._progress, end, asked)
        attributes: dict[str, Value] = {
            **asked,
            **genai.used(end.usage),
            **genai.finished(end.finish_reason),
            "url.path": call.path,
            "neurogate.request_id": call.request_id,
            "neurogate.resumed": call.resume is not None,
            "neurogate.end": end.code.name.lower(),
        }
        if end.http_status:
            attributes["http.response.status_code"] = end.http_status
        error = None
        if failed:
            attributes[genai.ERROR_TYPE] = str(end.http_status or end.code.name.lower())
            error = end.message if end.code is not EndCode.CANCELLED else None  # who asked took it back
        trace.finish("call", kind=Kind.SERVER, attributes=attributes, error=error)

    def _add_phases(self, progress: Progress, end: End, asked: dict[str, Value]) -> None:
        trace, call, now = self._trace, self._call, self._trace.now()
        usage = end.usage
        prompt: dict[str, Value] = {}
        if usage is not None:
            prompt = {genai.INPUT_TOKENS: usage.prompt_tokens, genai.CACHED_TOKENS: usage.cached_tokens}
        if progress.first_at is None:
            operation = OPERATIONS.get(call.path)
            if operation is not None and wants_stream(operation, call.body):  # else nobody knows what it was about
                told = "there was no token" if end.code is not EndCode.CANCELLED else None
                trace.add("prefill", progress.began_at, now, attributes=asked | prompt, error=told)
            return
        trace.add("prefill", progress.began_at, progress.first_at, attributes=asked | prompt)
        tokens = {genai.OUTPUT_TOKENS: progress.emitted}
        error = end.message if end.code not in {EndCode.ANSWERED, EndCode.CANCELLED} else None
        trace.add("decode", progress.first_at, now, attributes=asked | tokens, error=error)
