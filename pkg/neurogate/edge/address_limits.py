"""Bounds on client addresses, for abuse: asked before a key is looked at, counted in this gateway alone.

An address is what one customer of a network provider has: an IPv4 address, or the /64 of an IPv6 one. The one idea that
keeps memory bounded is that an address without a request in flight may be forgotten: the longest unseen goes first.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections import OrderedDict

from neurogate.edge.settings import LimitSettings
from neurogate.edge.windows import Window
from neurogate.errors import ConfigError, RateLimitedError

_MERGE_S = 10.0
"""Coarser than for keys: six entries an address, which may be refused for ten seconds longer."""
_MAX_FORWARDED = 32
"""Entries of one X-Forwarded-For that are looked at; more than any chain of proxies has."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Seen:
    __slots__ = ("concurrent", "failures", "requests")

    def __init__(self) -> None:
        self.requests = Window(merge_s=_MERGE_S)
        self.failures = Window(merge_s=_MERGE_S)
        self.concurrent = 0


class Visit:
    """One request of an address; whoever got it calls `end` once it is over."""

    __slots__ = ("_limits", "_seen")

    def __init__(self, limits: AddressLimits, seen: _Seen) -> None:
        self._limits = limits
        self._seen: _Seen | None = seen

    def failed(self) -> None:
        """The key it presented was not known, or there was none."""
        if self._seen is not None:
            self._limits.failed(self._seen)

    def end(self) -> None:
        """The request is over; the second call does nothing."""
        seen, self._seen = self._seen, None
        if seen is not None:
            seen.concurrent -= 1


class AddressLimits:
    """Requests a minute, failed authentications a minute and requests in flight of each address."""

    def __init__(self, settings: LimitSettings, *, loop: asyncio.AbstractEventLoop) -> None:
        """Raises ConfigError for a trusted proxy that is no address or network."""
        self._now = loop.time
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self.reload(settings)

    def __repr__(self) -> str:
        return f"<AddressLimits {len(self._seen)} addresses>"

    def reload(self, settings: LimitSettings) -> None:
        """Other bounds from now on. Raises ConfigError like the constructor, and then changes nothing."""
        self._trusted = trusted_networks(settings)
        self._per_minute = settings.address_requests_per_minute
        self._failures = settings.address_failures_per_minute
        self._concurrent = settings.address_concurrent
        self._max_addresses = settings.max_addresses
        self.enabled = bool(self._per_minute or self._failures or self._concurrent)
        """Whether anything is bounded; when not, nobody needs to `visit`."""

    def client(self, peer: str, forwarded_for: bytes = b"") -> str:
        """The client's address: the peer's, or, behind trusted proxies, the last that none of them is.

        What is no address, such as a Unix socket's peer, stays as it is.
        """
        if not forwarded_for or not self._trusted:
            return peer
        found = peer
        chain = forwarded_for.decode("latin-1").rsplit(",", _MAX_FORWARDED)[-_MAX_FORWARDED:]
        while self._trusts(found) and chain:
            claimed = _without_port(chain.pop().strip())
            if _address(claimed) is None:
                break
            found = claimed
        return found

    def visit(self, client: str) -> Visit:
        """Count a request of this address, and hold one of its places in flight.

        Raises RateLimitedError naming the bound; what is refused counts nowhere.
        """
        now = self._now()
        key = _key(client)
        seen = self._seen.get(key)
        if seen is None:
            self._forget()
            seen = _Seen()
        self._check(seen, now)
        seen.requests.charge(now, 1, 0)
        seen.concurrent += 1
        self._seen[key] = seen
        self._seen.move_to_end(key)
        return Visit(self, seen)

    def failed(self, seen: _Seen) -> None:
        """Count a failed authentication."""
        seen.failures.charge(self._now(), 1, 0)

    def _check(self, seen: _Seen, now: float) -> None:
        if self._concurrent and seen.concurrent >= self._concurrent:
            raise RateLimitedError(
                f"Rate limit reached for this client address on concurrent requests: limit {self._concurrent}. "
                "Please wait until one has ended.",
                limit="address",
            )
        for window, limit, what in (
            (seen.failures, self._failures, "failed authentications"),
            (seen.requests, self._per_minute, "requests"),
        ):
            window.expire(now)
            if limit and window.requests >= limit:
                wait_s = window.wait_s(now, requests=window.requests + 1 - limit, tokens=0)
                raise RateLimitedError(
                    f"Rate limit reached for this client address on {what} per minute: limit {limit}, "
                    f"used {window.requests}. Please try again in {wait_s:.0f}s.",
                    retry_after_s=math.ceil(wait_s),
                    limit="address",
                )

    def _forget(self) -> None:
        """Make room for an address; those with requests in flight stay, which are as many as requests at most."""
        for _ in range(len(self._seen)):
            if len(self._seen) < self._max_addresses:
                return
            key, seen = next(iter(self._seen.items()))
            if seen.concurrent:
                self._seen.move_to_end(key)
            else:
                del self._seen[key]

    def _trusts(self, client: str) -> bool:
        address = _address(client)
        return address is not None and any(address in network for network in self._trusted)


def trusted_networks(settings: LimitSettings) -> tuple[_Network, ...]:
    """Those of the trusted proxies. Raises ConfigError for what is no address or network."""
    return tuple(_network(text) for text in settings.trusted_proxies)


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"NEUROGATE_TRUSTED_PROXIES: must be addresses or networks such as 10.0.0.0/8 (got {text!r})"
        ) from error


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def _key(client: str) -> str:
    address = _address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return address.exploded[:19]
    return client if address is None else str(address)


def _without_port(text: str) -> str:
    """Some proxies append the port: 192.0.2.1:4711, [2001:db8::1]:4711."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
