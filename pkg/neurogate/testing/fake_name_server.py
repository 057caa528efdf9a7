"""A name server over UDP and TCP that answers from a zone, and fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_UDP_BYTES = 512


class FakeNameServer:
    """Use as an async context manager."""

    def __init__(self) -> None:
        self.port = 0
        self.zone: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        """(seconds to live, records as a zone file has them) by absolute name and kind."""
        self.failing = False
        """Answer SERVFAIL."""
        self.asked: list[tuple[str, str, str]] = []
        """(udp or tcp, name, kind) of every question."""
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    def put(self, name: str, kind: str, records: Iterable[str], *, ttl_s: int = 5) -> None:
        """Replace the records of a name."""
        self.zone[name, kind] = ttl_s, tuple(records)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        while True:
            self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
            try:
                self._transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
                )
            except OSError:  # somebody has this number of the other protocol
                self._server.close()
                continue
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._transport is not None  # noqa: S101 - entered
        assert self._server is not None  # noqa: S101
        self._transport.close()
        self._server.close()
        await self._server.wait_closed()

    def answer(self, wire: bytes, transport: str) -> bytes:
        """The answer to a question."""
        query = dns.message.from_wire(wire)
        name, kind = str(query.question[0].name).lower(), dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((transport, name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        ttl_s, records = self.zone.get((name, kind), (0, ()))
        if self.failing:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif records:
            answer.answer.append(dns.rrset.from_text(name, ttl_s, "IN", kind, *records))
        elif name not in {known for known, _ in self.zone}:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        told = answer.to_wire()
        if transport == "udp" and len(told) > _UDP_BYTES:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
            told = answer.to_wire()
        return told

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        told = self.answer(wire, "tcp")
        writer.write(len(told).to_bytes(2) + told)
        await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: FakeNameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(self._server.answer(data, "udp"), addr)
