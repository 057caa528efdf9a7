"""One request of a hot endpoint, from its head to its last byte: what is known of it, and what it holds."""

from __future__ import annotations

from starlette.types import Scope

from neurogate.dataplane.exchange import Exchange
from neurogate.edge.address_limits import Visit
from neurogate.edge.admission import Ticket
from neurogate.edge.caller import ANYBODY, Caller
from neurogate.edge.limits import Header, Reservation
from neurogate.gateway.intake import BodyBudget, Headers
from neurogate.gateway.request_trace import RequestTrace
from neurogate.gateway.response import CLIENT_GONE, ClientResponse
from neurogate.httpd.answer_head import lines_of
from neurogate.inference import Usage
from neurogate.telemetry.trace_context import well_formed


class Served:
    """Filled in as the request goes on; whoever holds it reads what there is by then."""

    __slots__ = (
        "_bodies",
        "_held",
        "began_at",
        "body",
        "caller",
        "headers",
        "model",
        "peer",
        "problem",
        "refusal_bytes",
        "request_id",
        "reservation",
        "response",
        "status",
        "ticket",
        "trace",
        "traceparent",
        "visit",
    )

    proxied = False
    """It becomes an exchange."""

    def __init__(self, scope: Scope, headers: Headers, request_id: str, *, bodies: BodyBudget, began_at: float) -> None:
        client = scope.get("client")
        self.peer: str = client[0] if client else ""
        """Address of the other end of the connection."""
        self.headers = headers
        self.request_id = request_id
        self.began_at = began_at
        """Loop time."""
        self.traceparent = well_formed(headers.traceparent) if headers.traceparent else ""
        """The trace context that it came with, and then the one that it goes on with; empty without one."""
        self.trace: RequestTrace | None = None
        """None when it is not sampled."""
        self.status = CLIENT_GONE
        self.caller: Caller = ANYBODY
        self.model = ""
        """Once it is known which one is meant."""
        self.body = b""
        self.response: ClientResponse | None = None
        """None when it was refused before it had one."""
        self.problem = ""
        """The code of the error that refused it before it became an exchange."""
        self.refusal_bytes = 0
        """Of the body that told its client why it never became an exchange."""
        self.reservation: Reservation | None = None
        self.visit: Visit | None = None
        self.ticket: Ticket | None = None
        """None when it had not to wait for its turn."""
        self._bodies = bodies
        self._held = 0

    @property
    def broken(self) -> bool:
        """Its answer began, and ended with an error."""
        return self.response is not None and self.response.broken

    @property
    def exchange(self) -> Exchange | None:
        """What it has become, while it goes on."""
        return self.response.exchange if self.response is not None else None

    @property
    def worker_id(self) -> str:
        """Who was asked last, once it is over; empty when nobody was."""
        return self.response.worker_id if self.response is not None else ""

    @property
    def failure(self) -> str:
        """The code of the error that it ended with; empty without one."""
        return (self.response.problem if self.response is not None else "") or self.problem

    @property
    def headers_out(self) -> tuple[Header, ...]:
        """What its answer's head has of its quota and of its trace."""
        quota = self.reservation.headers if self.reservation is not None else ()
        return quota if self.trace is None else (*quota, self.trace.header)

    @property
    def lines_out(self) -> bytes:
        """The same as lines."""
        quota = self.reservation.lines if self.reservation is not None else b""
        return quota if self.trace is None else quota + lines_of([self.trace.header])

    @property
    def usage(self) -> Usage | None:
        """What the engine counted; None when it was not heard of."""
        return self.response.usage if self.response is not None else None

    @property
    def trace_id(self) -> str:
        """Of the trace that it is recorded in; empty when it is not sampled."""
        return self.trace.trace_id if self.trace is not None else ""

    def take(self, size: int) -> None:
        """Hold memory for a piece of the body. Raises BusyError when there is not enough left."""
        self._bodies.take(size)
        self._held += size

    def let_go(self, *, tokens: int | None) -> None:
        """Give back what is held; `tokens` as Reservation.settle takes them."""
        self._bodies.give(self._held)
        self._held = 0
        if self.reservation is not None:
            self.reservation.settle(tokens)
        if self.visit is not None:
            self.visit.end()
