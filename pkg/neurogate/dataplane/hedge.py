"""A second attempt beside the first, for a request whose first token is late: whoever speaks first has the request.

A hedge is the sink of its own attempt. Until it speaks it is an attempt that may be dropped at any moment; when it
speaks, the exchange takes its lease for its own and the hedge does no more than hand on what it hears.
"""

from __future__ import annotations

from typing import Protocol

from neurogate.channel import Call, End
from neurogate.dataplane.lease import Lease
from neurogate.resilience.breaker import Outcome


class Hedged(Protocol):
    """The exchange that a hedge works for."""

    def on_chunk(self, data: bytes) -> None:
        """Take a chunk of the attempt that has the request."""
        ...

    def on_end(self, end: End) -> None:
        """Take the end of the attempt that has the request."""
        ...

    def hedge_speaks(self, hedge: Hedge) -> None:
        """The hedge has an answer first: it has the request now."""
        ...

    def hedge_failed(self, hedge: Hedge, end: End) -> None:
        """The hedge ended without having had the request."""
        ...


class Hedge:
    """One second attempt."""

    __slots__ = ("_exchange", "_leads", "lease", "ticket")

    def __init__(self, exchange: Hedged, call: Call, lease: Lease) -> None:
        self._exchange = exchange
        self._leads = False
        self.lease = lease
        self.ticket = lease.member.channel.submit(call, self)

    def lead(self) -> None:
        """Have the request from now on."""
        self._leads = True

    def drop(self, outcome: Outcome = Outcome.IGNORED) -> None:
        """Somebody else has the request: free the slot."""
        self.lease.member.channel.cancel(self.ticket)
        self.lease.release(outcome)

    def on_chunk(self, data: bytes) -> None:
        """Its first words decide."""
        if not self._leads:
            self._exchange.hedge_speaks(self)
        self._exchange.on_chunk(data)

    def on_end(self, end: End) -> None:
        """It may also have the request because the first attempt failed."""
        if self._leads:
            self._exchange.on_end(end)
        else:
            self._exchange.hedge_failed(self, end)
