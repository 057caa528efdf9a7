"""Name servers, asked with dnspython as /etc/resolv.conf says: records with their time to live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from neurogate.discovery.dns import ASK_TIMEOUT_S, Answer, Kind, Record
from neurogate.discovery.resolver import SourceUnavailableError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.rrset import RRset

NOBODY_TTL_S = 5.0
"""How long it is kept that there is no such name; a server's own word on that is about other clients' caches."""


class NameServers:
    """A `Lookup`."""

    def __init__(self, configured: Callable[[], Resolver] | None = None) -> None:
        """`configured` makes a resolver of dnspython's; without it, one that follows /etc/resolv.conf as it is then."""
        self._configured = configured or _of_this_machine

    async def __call__(self, name: str, kind: Kind) -> Answer:
        """One question; names that are not absolute are searched for as the machine's own resolver does it."""
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN

        try:
            resolver = await asyncio.to_thread(self._configured)
            answer = await resolver.resolve(name, kind, search=True, lifetime=ASK_TIMEOUT_S, raise_on_no_answer=False)
        except NXDOMAIN:
            return Answer((), NOBODY_TTL_S)
        except (DNSException, OSError, ValueError) as error:
            raise SourceUnavailableError(f"{kind} of {name}: {_reason(error)}") from error
        if answer.rrset is None:
            return Answer((), NOBODY_TTL_S)
        return Answer(tuple(_records(answer.rrset)), answer.chaining_result.minimum_ttl)


def _of_this_machine() -> Resolver:
    """Read each time: whoever moves between networks has it rewritten."""
    from dns.asyncresolver import Resolver

    return Resolver()


def _records(rrset: RRset) -> Iterator[Record]:
    from dns.rdtypes.IN.A import A
    from dns.rdtypes.IN.AAAA import AAAA
    from dns.rdtypes.IN.SRV import SRV

    for data in rrset:
        if isinstance(data, SRV):
            yield Record(str(data.target), data.port)
        elif isinstance(data, A | AAAA):
            yield Record(data.address)


def _reason(error: Exception) -> str:
    """The same for the same trouble: how often a name server was tried, and how long, differs from time to time."""
    from dns.exception import DNSException

    tries = error.kwargs.get("errors") if isinstance(error, DNSException) else None
    if tries:
        return "; ".join(sorted({f"{each[0]}: {_trouble(each[3])}" for each in tries}))
    return str(error).partition("\n")[0] or type(error).__name__


def _trouble(trouble: object) -> str:
    from dns.exception import DNSException

    return (trouble.__doc__ or type(trouble).__name__) if isinstance(trouble, DNSException) else str(trouble)
