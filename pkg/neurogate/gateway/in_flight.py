"""What a gateway has in flight, HTTP and gRPC alike, for whoever looks.

Every request is put in and taken out once, in the order in which they came; all else is read off the request itself
when somebody asks (ADR 0027).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.phase import Phase
from neurogate.edge.admission import Ticket
from neurogate.edge.caller import Caller


class Flight(Protocol):
    """A request that is being served."""

    @property
    def request_id(self) -> str:
        """Its id."""
        ...

    @property
    def began_at(self) -> float:
        """Loop time."""
        ...

    @property
    def caller(self) -> Caller:
        """Whose it is."""
        ...

    @property
    def model(self) -> str:
        """Empty until it is known which one is meant, and where it names none."""
        ...

    @property
    def ticket(self) -> Ticket | None:
        """Its place in the queue, or the turn that it had there."""
        ...

    @property
    def exchange(self) -> Exchange | None:
        """What it has become once it had its turn."""
        ...

    @property
    def worker_id(self) -> str:
        """Who was asked last, once it is over; empty when nobody was."""
        ...

    @property
    def proxied(self) -> bool:
        """It passes through to a worker, and becomes no exchange."""
        ...

    @property
    def status(self) -> int:
        """How it ended, in HTTP's numbers."""
        ...

    @property
    def broken(self) -> bool:
        """It ended with an error after its first byte."""
        ...

    @property
    def failure(self) -> str:
        """The code of the error that it ended with."""
        ...


class Row(msgspec.Struct, frozen=True):
    """One request in flight."""

    id: str
    key_id: str
    """Empty for anybody."""
    model: str
    """Empty for the default one."""
    path: str
    """Or the gRPC method."""
    phase: Phase
    age_s: float
    worker: str
    """Who is, or was last, asked; empty when nobody was."""
    attempts: int
    resumes: int
    tokens: int
    """Pieces of a streamed answer so far: about one a token."""
    stream: bool
    number: int
    """Of the request at this gateway, from 1 on: clients may choose an id twice."""


def _nobody(_: Flight) -> None:
    pass


class InFlight:
    """The requests of one gateway."""

    def __init__(self, on_failure: Callable[[Flight], None] = _nobody) -> None:
        """`on_failure` hears of each that ended with an error that is not its client's."""
        self._flights: dict[Flight, tuple[int, str]] = {}
        """With its number, and its path."""
        self._on_failure = on_failure
        self.total = 0
        """Requests that ever came."""

    def __len__(self) -> int:
        return len(self._flights)

    def come(self, flight: Flight, path: str) -> None:
        """A request is being served from now on."""
        self.total += 1
        self._flights[flight] = self.total, path

    def gone(self, flight: Flight) -> None:
        """A request is over."""
        del self._flights[flight]
        if flight.status >= 500 or flight.broken:
            self._on_failure(flight)

    def rows(self, now: float) -> Iterator[Row]:
        """What is in flight, the oldest first; `now` is loop time."""
        return (_row(flight, number, path, now) for flight, (number, path) in self._flights.items())

    def find(self, request_id: str, now: float) -> Iterator[Row]:
        """The requests in flight of that id, the latest first: clients may choose one twice."""
        for flight, (number, path) in reversed(self._flights.items()):
            if flight.request_id == request_id:
                yield _row(flight, number, path, now)


def _row(flight: Flight, number: int, path: str, now: float) -> Row:
    exchange = flight.exchange
    return Row(
        id=flight.request_id,
        key_id=flight.caller.key_id,
        model=flight.model,
        path=path,
        phase=_phase(flight, exchange),
        age_s=round(now - flight.began_at, 3),
        worker=exchange.worker_id if exchange is not None else "",
        attempts=exchange.attempts if exchange is not None else 0,
        resumes=exchange.resumes if exchange is not None else 0,
        tokens=exchange.chunks if exchange is not None else 0,
        stream=exchange is not None and exchange.call.stream,
        number=number,
    )


def _phase(flight: Flight, exchange: Exchange | None) -> Phase:
    if exchange is not None:
        return exchange.phase
    if flight.proxied:
        return Phase.PROXIED
    return Phase.INTAKE if flight.ticket is None else Phase.QUEUE
