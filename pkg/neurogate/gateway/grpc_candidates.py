"""Workers for proxied calls: each with a lease of the data plane and its channel, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.lease import Lease
from neurogate.dataplane.member import Member
from neurogate.errors import NoWorkerError
from neurogate.gateway.settings import GatewaySettings
from neurogate.resilience.breaker import Outcome
from neurogate.rpc.call_channel import CallChannel


class Candidates:
    """The workers that one proxied call may ask."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        call: Call,
        channel_of: Callable[[Member], CallChannel],
        settings: GatewaySettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._channel_of = channel_of
        self._settings = settings
        self._loop = loop
        self._tried: tuple[str, ...] = ()

    @property
    def worker_id(self) -> str:
        """Who was asked last; empty when nobody was."""
        return self._tried[-1] if self._tried else ""

    @property
    def attempts(self) -> int:
        """How many were asked."""
        return len(self._tried)

    async def next(self) -> _LeaseHold:
        """Hold a worker that was not asked yet. Raises GatewayError when there is none, or enough were asked."""
        lease = self._dispatcher.acquire(self._call, self._tried) if self._may_ask() else None
        if lease is None and self._tried:
            raise NoWorkerError(f"{', '.join(self._tried)} could not be reached, and no other worker took the call")
        if lease is None:
            lease = await self._wait()
        self._tried = (*self._tried, lease.member.id)
        return _LeaseHold(lease, self._channel_of(lease.member), self._loop.time)

    def _may_ask(self) -> bool:
        return len(self._tried) <= self._settings.retries

    async def _wait(self) -> Lease:
        """No worker is usable now: one may come (back) within the failfast time, as for every request."""
        pool = self._dispatcher.pool
        until = self._loop.time() + self._settings.failfast_s
        while (left_s := until - self._loop.time()) > 0:
            refusal = self._dispatcher.refuse_to_wait(self._call)
            if refusal is not None:
                raise refusal
            published = asyncio.Event()
            pool.wait(published.set)
            try:
                async with asyncio.timeout(left_s):
                    await published.wait()
            except TimeoutError:
                break
            finally:
                pool.unwait(published.set)
            lease = self._dispatcher.acquire(self._call, ())
            if lease is not None:
                return lease
        raise self._dispatcher.nobody_usable(self._call)


class _LeaseHold:
    """A `Hold` that is a lease of the data plane."""

    def __init__(self, lease: Lease, channel: CallChannel, now: Callable[[], float]) -> None:
        self._now = now
        self._lease: Lease | None = lease
        self.worker_id = lease.member.id
        self.channel = channel

    def answered(self) -> None:
        """The worker began to answer."""
        if self._lease is not None:
            self._lease.answered(self._now())

    def release(self, outcome: Outcome) -> None:
        """The call is over."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome)
