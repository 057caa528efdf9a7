"""Reaching a worker for its link, over real sockets: what is found there, what is said of it, and what stays open."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from http2_support import RecordingOwner
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from neurogate.rpc.http2.call import GrpcCall
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.dialing import DialError, LinkDialer
from neurogate.tls.live import LiveTls
from real_loop import eventually, run_real
from tls_support import Pki

MIB = 1 << 20
Stream = grpc.aio.ServicerContext[pb.GatewayFrame, pb.WorkerFrame]


class Echoing(worker_pb2_grpc.WorkerServicer):
    """gRPC's own server at the other end: gives back what it gets, and ends as it is told."""

    def __init__(self) -> None:
        self.authorities: list[str] = []

    async def Link(self, _: object, context: Stream) -> None:  # noqa: N802 - gRPC's name
        while isinstance(frame := await context.read(), pb.GatewayFrame):
            if frame.cancels:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "genug für 100 %")
            for part in frame.parts:
                await context.write(pb.WorkerFrame(ids=[part.id], chunks=[part.data]))


@asynccontextmanager
async def grpc_worker(live: LiveTls | None = None, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1),))
    worker_pb2_grpc.add_WorkerServicer_to_server(Echoing(), server)  # type: ignore[no-untyped-call]
    if live is None:
        port = server.add_insecure_port(re.sub("^(ipv4|dns):", "", address))
    else:
        port = server.add_secure_port(address, live.server_credentials())
    await server.start()
    try:
        yield address if address.startswith("unix:") else address.replace(":0", f":{port}")
    finally:
        await server.stop(None)


async def dialled(
    address: str, dialer: LinkDialer | None = None, timeout_s: float = 10
) -> tuple[RecordingOwner, GrpcCall]:
    owner = RecordingOwner()
    return owner, await (dialer or LinkDialer())(address, owner, timeout_s=timeout_s, max_message_bytes=8 * MIB)


async def ended(owner: RecordingOwner) -> CallEnd:
    await eventually(lambda: bool(owner.ends))
    return owner.ends[0]


def part(number: int, data: bytes) -> bytes:
    return pb.GatewayFrame(parts=[pb.BodyPart(id=number, data=data)]).SerializeToString()


async def echoes(owner: RecordingOwner, call: GrpcCall, sizes: list[int]) -> None:
    """Messages of these sizes go there and come back."""
    for number, size in enumerate(sizes):
        call.send(part(number, os.urandom(16) * (size // 16)))
    await eventually(lambda: len(owner.messages) == len(sizes) or bool(owner.ends))
    frames = [pb.WorkerFrame.FromString(each) for each in owner.messages]
    assert [len(frame.chunks[0]) for frame in frames] == [size // 16 * 16 for size in sizes]
    assert [frame.ids[0] for frame in frames] == list(range(len(sizes)))


def files_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "ipv4:127.0.0.1:0", "dns:localhost:0", "unix:{}/s"])
def test_messages_of_every_size_go_to_grpcs_own_server_and_back(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with grpc_worker(address=address.format(tmp_path)) as where:
            owner, call = await dialled(where)
            await echoes(owner, call, [0, 16, 100, 16_384, 70_000, 3 * MIB, 0, 5 * MIB, 1000])
            await eventually(lambda: call.sendable)
            call.send(pb.GatewayFrame(cancels=[1]).SerializeToString())
            assert await ended(owner) == CallEnd(grpc.StatusCode.RESOURCE_EXHAUSTED, "genug für 100 %")
            await call.closed()

    run_real(main())


def test_more_than_a_window_goes_both_ways() -> None:
    async def main() -> None:
        async with grpc_worker() as where:
            owner, call = await dialled(where)
            await echoes(owner, call, [200_000] * 100)
            call.abort()
            await call.closed()

    run_real(main())


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    async def main() -> None:
        with pytest.raises(DialError, match=r"\[::1\]:1: "):
            await dialled("[::1]:1")

    run_real(main())


def test_with_tls_and_certificates_on_both_sides(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        at_gateway = pki.live("gateway", ca=pki.ca)
        async with grpc_worker(pki.live("worker", ca=pki.ca)) as where:
            owner, call = await dialled(where, LinkDialer(at_gateway.dialling))
            await echoes(owner, call, [0, 100, 3 * MIB, 70_000, 5 * MIB, 16])
            call.abort()
            await call.closed()
        async with grpc_worker(pki.live("worker", ca=pki.ca, sans=("DNS:workers.internal",))) as where:
            owner, call = await dialled(where, LinkDialer(at_gateway.dialling, name="workers.internal"))
            await echoes(owner, call, [100])
            call.abort()
            await call.closed()

    run_real(main())


def test_an_intermediate_or_a_certificate_of_its_own_is_enough_to_trust(tmp_path: Path) -> None:
    """As gRPC takes it: whatever is in the CA file is trusted, be it a root or not."""

    async def main() -> None:
        pki = Pki(tmp_path)
        live = pki.live("worker")
        async with grpc_worker(live) as where:
            owner, call = await dialled(where, LinkDialer(pki.live(ca=str(tmp_path / "worker.crt")).dialling))
            await echoes(owner, call, [100])
            call.abort()
            await call.closed()

    run_real(main())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong CA of the gateway", "its certificate is not accepted: .*issuer|its certificate is not accepted: self"),
        ("wrong name", "its certificate is not accepted: .*other.internal"),
        ("plain worker", "TLS failed|closed"),
    ],
)
def test_a_worker_that_tls_does_not_accept_is_told_with_the_reason(tmp_path: Path, kind: str, reason: str) -> None:
    async def main() -> None:
        pki, stranger = Pki(tmp_path / "a"), Pki(tmp_path / "b", name="another")
        trusted = stranger.ca if kind == "wrong CA of the gateway" else pki.ca
        dialer = LinkDialer(pki.live("g", ca=trusted).dialling, name="other.internal" if kind == "wrong name" else "")
        async with grpc_worker(None if kind == "plain worker" else pki.live("worker", ca=pki.ca)) as where:
            with pytest.raises(DialError, match=f"{where}: ({reason})"):
                await dialled(where, dialer)

    run_real(main())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no certificate", "before a word was said; does it know this side's certificate|TLS failed: "),
        ("wrong CA of the worker", "before a word was said; does it know this side's certificate|TLS failed: "),
        ("plain gateway", "before a word was said; does it want TLS|it does not speak HTTP/2: "),
        ("no HTTP/2", "it speaks TLS, but no HTTP/2"),
    ],
)
def test_a_worker_that_does_not_accept_the_gateway_ends_the_call_with_the_reason(
    tmp_path: Path, kind: str, reason: str
) -> None:
    async def main() -> None:
        pki, stranger = Pki(tmp_path / "a"), Pki(tmp_path / "b", name="another")
        live = stranger.live("g", ca=pki.ca) if kind == "wrong CA of the worker" else pki.live(ca=pki.ca)
        dialer = LinkDialer() if kind == "plain gateway" else LinkDialer(live.dialling)
        if kind == "no HTTP/2":
            context = pki.live("https").https()
            server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
            owner, call = await dialled(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", dialer)
            server.close()
        else:
            async with grpc_worker(pki.live("worker", ca=pki.ca)) as where:
                owner, call = await dialled(where, dialer)
                await ended(owner)
        end = await ended(owner)
        await call.closed()
        assert re.search(reason, end.message), end

    run_real(main())


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: connection refused"),
        ("no-such-host.invalid:5", "no address is known for no-such-host.invalid: "),
        ("x" * 70 + ".example:5", "no address is known for x"),
        ("nothing", "nothing: it is not host:port"),
        ("host:port", "host:port: it is not host:port"),
        ("unix:/nowhere/at/all", "unix:/nowhere/at/all: no such file or directory"),
    ],
)
def test_an_address_where_nobody_is_is_told_with_the_reason(address: str, reason: str) -> None:
    async def main() -> None:
        before = files_open()
        with pytest.raises(DialError, match=reason):
            await dialled(address)
        assert files_open() == before

    run_real(main())


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_that_does_not_come_about_is_given_up_and_leaves_nothing_open(
    tmp_path: Path, secure: bool
) -> None:
    """Its queue is full, or it never answers the handshake of TLS."""

    async def main() -> None:
        pki = Pki(tmp_path)
        dialer = LinkDialer(pki.live(ca=pki.ca).dialling) if secure else LinkDialer()
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            address = f"127.0.0.1:{deaf.getsockname()[1]}"
            fillers = [socket.socket() for _ in range(0 if secure else 4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            before = files_open()
            with pytest.raises(DialError, match=rf"{address}: no connection within 0\.2 s"):
                await dialled(address, dialer, timeout_s=0.2)
            await eventually(lambda: files_open() <= before)
            for filler in fillers:
                filler.close()

    run_real(main())


def test_a_host_of_several_addresses_is_reached_by_any_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with grpc_worker() as where:
            port = int(where.rpartition(":")[2])
            loop = asyncio.get_running_loop()

            async def found(*_: object, **__: object) -> list[object]:
                return [(0, 0, 0, "", (host, port)) for host in ("127.0.0.2", "127.0.0.2", "127.0.0.1")]

            monkeypatch.setattr("asyncio.get_running_loop", lambda: _Resolving(loop, found))
            owner, call = await dialled(f"workers.internal:{port}")
            await echoes(owner, call, [100])
            call.abort()
            await call.closed()

    run_real(main())


@pytest.mark.parametrize("secure", [False, True])
def test_an_address_that_never_answers_costs_a_moment_and_not_its_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: bool
) -> None:
    """Its queue is full, or it never answers the handshake of TLS. Nothing of it stays open."""

    async def main() -> None:
        pki = Pki(tmp_path)
        dialer = LinkDialer(pki.live("g", ca=pki.ca).dialling, name="localhost") if secure else LinkDialer()
        async with grpc_worker(pki.live("worker", ca=pki.ca) if secure else None) as where:
            port = int(where.rpartition(":")[2])
            with socket.socket() as deaf:
                deaf.bind(("127.0.0.2", port))
                deaf.listen(0)
                fillers = [socket.socket() for _ in range(0 if secure else 4)]
                for filler in fillers:
                    filler.setblocking(False)
                    filler.connect_ex(deaf.getsockname())
                loop = asyncio.get_running_loop()

                async def found(*_: object, **__: object) -> list[object]:
                    return [(0, 0, 0, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

                monkeypatch.setattr("asyncio.get_running_loop", lambda: _Resolving(loop, found))
                _, warm = await dialled(where, dialer)
                before = files_open()
                owner, call = await dialled(f"workers.internal:{port}", dialer, timeout_s=600)
                await echoes(owner, call, [100])
                for each in (warm, call):
                    each.abort()
                    await each.closed()
                await eventually(lambda: files_open() < before)
                for filler in fillers:
                    filler.close()

    run_real(main())


class _Resolving:
    """A loop with a name server of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, found: object) -> None:
        self._loop = loop
        self.getaddrinfo = found

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)
