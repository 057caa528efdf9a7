"""Workers by DNS: the addresses of a name, or the targets of its SRV records, asked again and again.

An answer is asked for again before its time to live is over, and at the latest after `refresh_s`: how long a record may
be kept says nothing about how long it must. A name server that fails changes nothing. One that answers that there is
nobody is believed after a minute: a name that is missing for a moment, while it is written anew, must not cost a fleet,
and workers that are gone are found out by their links at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from neurogate.discovery.addresses import host_port
from neurogate.discovery.resolver import EMPTY_S, SourceObserver, SourceUnavailableError
from neurogate.discovery.sources import DnsSource
from neurogate.endpoint import Endpoint

ASK_TIMEOUT_S = 5.0
TTL_MIN_S = 1.0

Kind = Literal["A", "AAAA", "SRV"]


@dataclass(frozen=True, slots=True)
class Record:
    """An address of A or AAAA, or a target of SRV."""

    host: str
    port: int = 0
    """0 but for SRV."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a name server said: nobody, when it said that there is no such name or record."""

    records: tuple[Record, ...]
    ttl_s: float


class Lookup(Protocol):
    """Asks a name server."""

    async def __call__(self, name: str, kind: Kind) -> Answer:
        """One question. Raises SourceUnavailableError when no name server gives an answer."""
        ...


class DnsResolver:
    """A `Resolver`."""

    def __init__(
        self,
        source: DnsSource,
        lookup: Lookup,
        *,
        refresh_s: float,
        observer: SourceObserver,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        known: tuple[Endpoint, ...] = (),
    ) -> None:
        """`known` is what was found of the source before, by another one of its resolvers."""
        self._source = source
        self._lookup = lookup
        self._refresh_s = refresh_s
        self._observer = observer
        self._loop = loop
        self._rng = rng
        self._known = known

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The set when it is known first, and whenever it has changed."""
        known = self._known or None
        empty_since: float | None = None
        failures = 0
        while True:
            try:
                found, ttl_s = await self._ask()
            except SourceUnavailableError as error:
                failures += 1
                self._observer.failed(self._source.text, str(error))
                wait_s = min(self._refresh_s, 0.5 * 2 ** min(failures, 10)) * self._rng.uniform(0.5, 1.0)
            else:
                failures = 0
                self._observer.found(self._source.text, len(found))
                now = self._loop.time()
                empty_since = None if found else now if empty_since is None else empty_since
                believed = bool(found) or not known or (empty_since is not None and now - empty_since >= EMPTY_S)
                if believed and found != known:
                    known = found
                    yield found
                wait_s = min(ttl_s, self._refresh_s) * self._rng.uniform(0.8, 1.0)
            await asyncio.sleep(max(wait_s, TTL_MIN_S))

    async def _ask(self) -> tuple[tuple[Endpoint, ...], float]:
        """Who there is, by address, and how long that may be kept. Raises SourceUnavailableError."""
        name = self._source.name
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                if not self._source.port:
                    services = await self._lookup(name, "SRV")
                    return _of_services(services.records), services.ttl_s
                # A worker with both has a record of each, and nothing tells which two belong together: one family is
                # taken, and the other one asked for only where there is none of that, so that it cannot be in the way.
                four = await self._lookup(name, "A")
                if four.records:
                    return _of_addresses(four.records, self._source.port), four.ttl_s
                six = await self._lookup(name, "AAAA")
                return _of_addresses(six.records, self._source.port), min(four.ttl_s, six.ttl_s)
        except TimeoutError:
            raise SourceUnavailableError(f"no name server answered within {ASK_TIMEOUT_S:g} s") from None


def worker_name(host: str) -> str:
    """What a worker is called of which only the address is known: the same at every gateway.

    Clients see names, and an address is none of their business. Whoever guesses it can check it: this is no secret.
    """
    return f"worker-{hashlib.blake2s(host.encode(), digest_size=5).hexdigest()}"


def _of_addresses(records: Iterable[Record], port: int) -> tuple[Endpoint, ...]:
    hosts = sorted({record.host for record in records})
    return tuple(Endpoint(worker_name(host), host_port(host, port)) for host in hosts)


def _of_services(records: Iterable[Record]) -> tuple[Endpoint, ...]:
    """Named by the first label of each target, which is a pod's name; by all of it where two have the same.

    "A Target of "." means that the service is decidedly not available at this domain" (RFC 2782). Priorities and
    weights say nothing here: who gets a request is the balancer's business.
    """
    targets = sorted({(record.host.rstrip("."), record.port) for record in records} - {("", 0)})
    labels = Counter(host.partition(".")[0] for host, _ in targets)
    return tuple(
        Endpoint(label if labels[label] == 1 else f"{host}-{port}", host_port(host, port))
        for host, port in targets
        if host and port
        for label in (host.partition(".")[0],)
    )
