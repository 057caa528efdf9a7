"""One gRPC call of a gateway, from its head to its status: what is known of it, and what it holds."""

from __future__ import annotations

from urllib.parse import unquote

from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.journal import Journal
from neurogate.edge.address_limits import Visit
from neurogate.edge.admission import Ticket
from neurogate.edge.caller import ANYBODY, Caller
from neurogate.edge.limits import Reservation
from neurogate.gateway.explain import Explanation, both
from neurogate.gateway.intake import BodyBudget
from neurogate.gateway.request_trace import RequestTrace
from neurogate.gateway.response import CLIENT_GONE
from neurogate.inference import Usage
from neurogate.rpc.public_backend import IncomingRpc
from neurogate.rpc.status import Metadata
from neurogate.telemetry.trace_context import well_formed, well_formed_state


class ServedRpc:
    """Filled in as the call goes on; whoever holds it reads what there is by then."""

    __slots__ = (
        "_bodies",
        "_held",
        "attempts",
        "began_at",
        "body",
        "bytes_sent",
        "caller",
        "carried",
        "chunks",
        "deadline",
        "exchange",
        "explanation",
        "failure",
        "first_byte_at",
        "forwarded_for",
        "model",
        "peer",
        "proxied",
        "reservation",
        "rpc",
        "status",
        "ticket",
        "trace",
        "traceparent",
        "usage",
        "visit",
        "worker_id",
    )

    def __init__(self, rpc: IncomingRpc, *, bodies: BodyBudget, began_at: float, timeout_s: float) -> None:
        self.rpc = rpc
        self.peer = host_of(rpc.peer)
        """Address of the other end of the connection."""
        self.forwarded_for = rpc.header("x-forwarded-for")
        self.began_at = began_at
        """Loop time."""
        self.deadline = began_at + timeout_s
        self.traceparent = well_formed(rpc.header("traceparent"))
        """The trace context that it came with, and then the one that it goes on with; empty without one."""
        self.trace: RequestTrace | None = None
        """None when it is not sampled."""
        self.status = CLIENT_GONE
        """In HTTP's numbers."""
        self.caller: Caller = ANYBODY
        self.model = ""
        """Once it is known which one is meant."""
        self.body = b""
        """A prompt's, as `POST /prompt` would have it."""
        self.carried = 0
        """Bytes of a proxied call's messages, both ways, that its reservation has not been told of."""
        self.reservation: Reservation | None = None
        self.visit: Visit | None = None
        self.ticket: Ticket | None = None
        """None when it had not to wait for its turn."""
        self.usage: Usage | None = None
        """What the engine counted; None when it was not heard of."""
        self.worker_id = ""
        self.attempts = 0
        self.exchange: Exchange | None = None
        """What a prompt has become."""
        self.explanation: Explanation | None = None
        """Why it went where it went, for a client that wants to know."""
        self.proxied = False
        """It has a worker, and becomes no exchange."""
        self.failure = ""
        """The code of the error that it ended with; empty without one."""
        self.chunks = 0
        """Events of a streamed answer: about one a token."""
        self.bytes_sent = 0
        """Of the messages that the client was sent."""
        self.first_byte_at: float | None = None
        """Loop time of the first token of a streamed answer."""
        self._bodies = bodies
        self._held = 0

    @property
    def broken(self) -> bool:
        """Its last word was an error, after its first token."""
        return self.status >= 400 and self.status != CLIENT_GONE and self.chunks > 0

    @property
    def request_id(self) -> str:
        """Its id, as its client named it or the gateway did."""
        return self.rpc.request_id

    @property
    def tracestate(self) -> str:
        """What goes on with its trace context."""
        states = [value for key, value in self.rpc.metadata if key == "tracestate"] if self.traceparent else []
        return well_formed_state([state if isinstance(state, bytes) else state.encode() for state in states])

    @property
    def journal(self) -> Journal | None:
        """Who is to hear of its exchange."""
        return both(self.trace, self.explanation)

    @property
    def trace_id(self) -> str:
        """Of the trace that it is recorded in; empty when it is not sampled."""
        return self.trace.trace_id if self.trace is not None else ""

    def hold(self, size: int) -> None:
        """Hold memory for the prompt, in all. Raises BusyError when there is not enough left."""
        self._bodies.take(size - self._held)
        self._held = size

    def asked(self, exchange: Exchange) -> None:
        """What the exchange has come to."""
        self.usage = exchange.usage
        self.worker_id = exchange.worker_id
        self.attempts = exchange.attempts

    def head(self, exchange: Exchange) -> Metadata:
        """The initial metadata of an answer."""
        quota = self.reservation.headers if self.reservation is not None else ()
        return (
            ("x-request-id", self.rpc.request_id),
            ("x-neurogate-worker", exchange.worker_id),
            ("x-neurogate-attempts", str(exchange.attempts)),
            *((("traceresponse", self.trace.context),) if self.trace is not None else ()),
            *((("x-neurogate-explain", self.explanation.short().decode()),) if self.explanation is not None else ()),
            *((name.decode(), value.decode()) for name, value in quota),
        )

    def let_go(self, *, tokens: int | None) -> None:
        """Give back what is held; `tokens` as Reservation.settle takes them."""
        self.hold(0)
        if self.reservation is not None:
            self.reservation.settle(tokens)
        if self.visit is not None:
            self.visit.end()


def host_of(peer: str) -> str:
    """The address in a peer as gRPC writes it: `ipv4:10.0.0.7:51312`, `ipv6:%5B::1%5D:51312`."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0]
    return host.strip("[]") or peer
