"""What one sampled request went through, as spans: a `Journal` that is handed on when the request is over (ADR 0026).

    POST /v1/chat/completions      SERVER, from the request's head to the last byte of its answer
      queue                        it waited: for its turn, or for a worker to come
      pick                         a worker was looked for
      attempt                      CLIENT, one worker was asked; the worker's own spans hang under it
      resume                       a stream had broken: from then until it went on

Only what is sampled has one; for everything else the cost is a comparison with None.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from starlette.types import Scope

from neurogate.channel import Call, End, EndCode
from neurogate.edge.admission import Ticket
from neurogate.edge.caller import Caller
from neurogate.endpoint import ModelIdentity
from neurogate.inference import Usage
from neurogate.telemetry import genai
from neurogate.telemetry.spans import Event, Kind, Trace, Value
from neurogate.telemetry.tracing import Tracer

PROVIDER = "neurogate"
"""Whom a client asks, as far as it can tell."""

_WORKER = "neurogate.worker_id"
_AGENT_BYTES_MAX = 256


class Traced(Protocol):
    """A request that may be traced."""

    traceparent: str
    """The trace context that it came with, and then the one that it goes on with; empty without one."""
    trace: RequestTrace | None
    """None when it is not sampled."""


class Over(Protocol):
    """What is known of a request that is over."""

    caller: Caller
    model: str
    status: int
    ticket: Ticket | None

    @property
    def request_id(self) -> str:
        """Its id."""
        ...

    @property
    def broken(self) -> bool:
        """Its answer began, and ended with an error."""
        ...

    @property
    def failure(self) -> str:
        """The code of the error that it ended with; empty without one."""
        ...

    @property
    def usage(self) -> Usage | None:
        """What the engine counted; None when it was not heard of."""
        ...


class RpcOver(Over, Protocol):
    """What is known of a gRPC call that is over."""

    peer: str
    worker_id: str
    """The last one that was asked."""


def begin(tracer: Tracer, request: Traced) -> None:
    """Trace a request from now on, if it is sampled; either way its context tells those after us."""
    trace = tracer.begin(request.traceparent)
    if trace is not None:
        request.trace = RequestTrace(trace)
        request.traceparent = trace.context
    elif not request.traceparent:
        request.traceparent = tracer.unsampled()


def http_facts(scope: Scope) -> dict[str, Value]:
    """What a request's head has to say of itself."""
    facts: dict[str, Value] = {
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if scope.get("client"):
        facts["client.address"] = scope["client"][0]
    for name, value in scope["headers"]:
        if name == b"user-agent":
            facts["user_agent.original"] = value[:_AGENT_BYTES_MAX].decode("latin-1")
    return facts


class _Attempt:
    """One worker that was asked."""

    __slots__ = ("began_at", "beside", "events", "first_at", "number", "resumed", "span_id")

    def __init__(self, span_id: str, number: int, began_at: float, *, resumed: bool, beside: bool) -> None:
        self.span_id = span_id
        self.number = number
        self.began_at = began_at
        self.resumed = resumed
        self.beside = beside
        self.first_at: float | None = None
        self.events: tuple[Event, ...] = ()


class RequestTrace:
    """One request's record."""

    __slots__ = (
        "_attempts",
        "_broke_at",
        "_broken_worker",
        "_finish_reason",
        "_first_at",
        "_looked_at",
        "_path",
        "_resumes",
        "_sought",
        "_stream",
        "_trace",
        "_under_way",
        "_waits_since",
        "_worker",
    )

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._path = ""
        self._stream = False
        self._attempts = 0
        self._resumes = 0
        self._under_way: dict[str, _Attempt] = {}
        self._looked_at = 0.0
        self._waits_since: float | None = None
        self._broke_at: float | None = None
        self._broken_worker = ""
        self._sought = False
        self._worker = ""
        self._first_at: float | None = None
        self._finish_reason = ""

    def __repr__(self) -> str:
        return f"<RequestTrace {self.trace_id} attempts={self._attempts}>"

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to."""
        return self._trace.trace_id

    @property
    def context(self) -> str:
        """The trace context of the request's own span, which its client is told."""
        return self._trace.context

    @property
    def header(self) -> tuple[bytes, bytes]:
        """It as a header of the answer, as W3C's draft of trace context level 2 names it."""
        return (b"traceresponse", self._trace.context.encode())

    def looks(self, call: Call, tried: Collection[str], like: ModelIdentity | None) -> None:  # noqa: ARG002 - a Journal
        """A worker is looked for."""
        self._path, self._stream = call.path, call.stream
        self._looked_at = now = self._trace.now()
        self._sought = self._broke_at is not None
        self._waited(now)

    def waits(self) -> None:
        """There is none."""
        self._waits_since = now = self._trace.now()
        self._trace.add("pick", self._looked_at, now, attributes={"neurogate.found": False})

    def asked(self, worker_id: str, *, resumed: bool = False, beside: bool = False) -> str:
        """A worker is asked."""
        now = self._trace.now()
        self._attempts += 1
        self._resumes += resumed
        self._worker = worker_id
        if not beside:
            self._trace.add("pick", self._looked_at, now, attributes={"neurogate.found": True, _WORKER: worker_id})
        attempt = _Attempt(self._trace.new_id(), self._attempts, now, resumed=resumed, beside=beside)
        self._under_way[worker_id] = attempt
        return self._trace.context_of(attempt.span_id)

    def answered(self, worker_id: str) -> None:
        """The first piece of a streamed answer came from it."""
        now = self._trace.now()
        self._first_at = self._first_at or now
        self._worker = worker_id
        attempt = self._under_way.get(worker_id)
        if attempt is not None:
            attempt.first_at = now
            attempt.events = (self._trace.event("first chunk", now),)
        self._went_on(now, worker_id)

    def left(self, worker_id: str, end: End | None) -> None:
        """It is asked no longer."""
        attempt = self._under_way.pop(worker_id, None)
        if attempt is None:
            return
        now = self._trace.now()
        failed = end is not None and (end.code is not EndCode.ANSWERED or end.http_status >= 500)
        if failed and attempt.first_at is not None:
            self._broke_at, self._broken_worker, self._sought = now, worker_id, False
        if end is not None and end.finish_reason:
            self._finish_reason = end.finish_reason
        attributes: dict[str, Value] = {
            **genai.asked(self._path, PROVIDER, ""),
            _WORKER: worker_id,
            "neurogate.attempt": attempt.number,
            "neurogate.hedge": attempt.beside,
            "neurogate.resumed": attempt.resumed,
            "neurogate.end": "taken_back" if end is None else end.code.name.lower(),
        }
        if attempt.first_at is not None:
            attributes[genai.FIRST_CHUNK_S] = attempt.first_at - attempt.began_at
        error = None
        if end is not None:
            attributes |= {**genai.used(end.usage), **genai.finished(end.finish_reason)}
            if end.http_status:
                attributes["http.response.status_code"] = end.http_status
            if failed:
                attributes[genai.ERROR_TYPE] = str(end.http_status or end.code.name.lower())
                error = end.message
        self._trace.add(
            "attempt",
            attempt.began_at,
            now,
            kind=Kind.CLIENT,
            span_id=attempt.span_id,
            attributes=attributes,
            events=attempt.events,
            error=error,
        )

    def over_http(self, request: Over, path: str, facts: Mapping[str, Value]) -> None:
        """The request is over; `facts` are those of its head."""
        attributes: dict[str, Value] = {
            "http.request.method": "POST",
            "http.route": path,
            "url.path": path,
            "http.response.status_code": request.status,
            **facts,
        }
        self._over(f"POST {path}", path, request, attributes)

    def over_rpc(self, request: RpcOver, method: str, *, status: str) -> None:
        """The call is over; `method` is like `/llm.v1.LLMService/GenerateText`, `status` like `UNAVAILABLE`."""
        name = method.lstrip("/")
        attributes: dict[str, Value] = {
            "rpc.system.name": "grpc",
            "rpc.method": name,
            "rpc.response.status_code": status,
            "client.address": request.peer,
        }
        if request.worker_id:
            attributes[_WORKER] = request.worker_id
        self._over(name, self._path, request, attributes)

    def _over(self, name: str, path: str, request: Over, attributes: dict[str, Value]) -> None:
        trace, now = self._trace, self._trace.now()
        self._waited(now)
        ticket = request.ticket
        if ticket is not None:
            turn_at = ticket.turn_at or now
            trace.add("queue", ticket.queued_at, turn_at, attributes={"neurogate.waits_for": "turn"})
        if self._sought and request.broken:  # else nobody was to go on, or the client had everything, or has left
            self._add_resume(now, {}, error="it was not continued")
        attributes |= {
            **genai.asked(path, PROVIDER, request.model),
            "neurogate.request_id": request.request_id,
            "neurogate.attempts": self._attempts,
            **genai.used(request.usage),
            **genai.finished(self._finish_reason),
        }
        if request.caller.key_id:
            attributes["neurogate.key_id"] = request.caller.key_id
        if self._worker:
            attributes |= {
                _WORKER: self._worker,
                genai.REQUEST_STREAM: self._stream,
                "neurogate.resumes": self._resumes,
            }
        if self._first_at is not None:
            attributes[genai.FIRST_CHUNK_S] = self._first_at - trace.began_at
        error = None
        if request.status >= 500 or request.broken:
            attributes[genai.ERROR_TYPE] = request.failure or str(request.status)
            error = request.failure
        trace.finish(name, kind=Kind.SERVER, attributes=attributes, error=error)

    def _waited(self, now: float) -> None:
        if self._waits_since is not None:
            self._trace.add("queue", self._waits_since, now, attributes={"neurogate.waits_for": "worker"})
            self._waits_since = None

    def _went_on(self, now: float, worker_id: str) -> None:
        if self._broke_at is not None:
            self._add_resume(now, {_WORKER: worker_id})

    def _add_resume(self, now: float, attributes: dict[str, Value], error: str | None = None) -> None:
        if self._broke_at is not None:
            broken = {"neurogate.broken_worker_id": self._broken_worker}
            self._trace.add("resume", self._broke_at, now, attributes=attributes | broken, error=error)
            self._broke_at, self._sought = None, False
