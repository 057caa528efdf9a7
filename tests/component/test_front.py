"""A worker's port on loopback: links are ours, everything else reaches gRPC's server, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hpack import Encoder
from structlog.testing import capture_logs

from http2_support import opening
from link_support import RecordingSink, ScriptedBackend, call, hang, linked, linking, serving
from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from neurogate.channel import End
from neurogate.inference import Finished, Token, Usage
from neurogate.rpc import front as front_module
from neurogate.rpc.back_door import BackDoor, client_of
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.rpc.front import Front
from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.dialing import LINK
from neurogate.rpc.http2.frames import PREFACE
from neurogate.rpc.listening import listen
from neurogate.rpc.worker_service import WorkerServer
from real_loop import eventually, run_real

MIB = 1 << 20


def front_of(server: WorkerServer) -> Front:
    return server._front


def own_links(server: WorkerServer) -> int:
    return len(server._links._links)


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[tuple[Any, Any]]:
    options = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield (
            worker_pb2_grpc.WorkerStub(channel),  # type: ignore[no-untyped-call]
            llm_pb2_grpc.LLMServiceStub(channel),  # type: ignore[no-untyped-call]
        )


async def dialed(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def hung_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def test_a_gateways_link_is_ours_and_every_other_call_is_grpcs() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        with capture_logs() as logs:
            async with serving(backend) as (server, address), linked(address) as client:
                assert (own_links(server), front_of(server).spliced) == (1, 0)
                async with channel_to(address) as (worker, llm):
                    by_grpc = worker.Link()
                    await by_grpc.write(pb.GatewayFrame(hello=pb.Hello(gateway_id="by-grpc")))
                    assert (await by_grpc.read()).HasField("stats")
                    sink = RecordingSink()
                    client.submit(call(b"over the link"), sink)
                    assert (await llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?"))).response == "Hello"
                    await sink.ended()
                    assert sink.body == b"over the link"
                    assert (own_links(server), front_of(server).spliced, server.servicer.sessions) == (1, 1, 2)
                    by_grpc.cancel()
                    await eventually(lambda: server.servicer.sessions == 1)
        linked_peers = {log["gateway"]: log["peer"] for log in logs if log["event"] == "gateway linked"}
        assert linked_peers.keys() == {"gateway-1", "by-grpc"}
        assert all(peer.startswith("ipv4:127.0.0.1:") for peer in linked_peers.values()), linked_peers
        assert len(set(linked_peers.values())) == 2

    run_real(main())


@pytest.mark.parametrize("step", [1, 7, 24, 33])
def test_a_link_that_comes_in_pieces_is_served_by_whomever(step: int) -> None:
    async def main() -> None:
        sent = opening()
        async with serving(ScriptedBackend()) as (server, address):
            reader, writer = await dialed(address)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(sent), step):
                writer.write(sent[at : at + step])
                await asyncio.sleep(0)
            await eventually(lambda: server.servicer.sessions == 1)
            assert await reader.readexactly(9)
            await hung_up(writer)
            await eventually(lambda: server.servicer.sessions == 0)

    run_real(main())


def test_a_proxy_has_links_and_other_calls_on_one_connection() -> None:
    """The first bytes of it are a link's, and none of the others may be turned away for that."""

    async def main() -> None:
        encoder, reader = Encoder(), frames.FrameReader()

        def asks(stream: int, path: str, agent: str) -> bytes:
            fields = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "w"))
            about = (("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", agent))
            return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, encoder.encode((*fields, *about)))

        async with serving(ScriptedBackend()) as (server, address):
            read, writer = await dialed(address)
            writer.write(
                PREFACE
                + frames.settings({})
                + asks(1, LINK, "neurogate/1.2.3")
                + asks(3, "/neurogate.v1.Worker/GetStatus", "grpc-python/1")
                + frames.frame(frames.DATA, frames.END_STREAM, 3, bytes(5))
                + asks(5, LINK, "neurogate/1.2.3")
            )
            told: set[int] = set()
            while told < {1, 3, 5}:
                for kind, _, stream, _ in reader.feed(await read.read(65536)):
                    assert kind not in {frames.RST_STREAM, frames.GOAWAY}
                    told |= {stream} if kind == frames.DATA else set()
            assert (own_links(server), front_of(server).spliced, server.servicer.sessions) == (0, 1, 2)
            await hung_up(writer)

    run_real(main())


def test_large_messages_and_streams_pass_both_ways_at_once() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        texts = [random.Random(seed).randbytes(MIB).hex() for seed in range(3)]
        backend.events = [*map(Token, texts), Finished(Usage(3, 2), "stop", "tiny", 12)]
        prompt = "p" * (4 * MIB)
        async with serving(backend) as (server, address), channel_to(address) as (_, llm), linked(address) as client:
            sinks = [RecordingSink() for _ in range(3)]
            for sink in sinks:
                client.submit(call(bytes(MIB)), sink)
            answers = await asyncio.gather(
                *(llm.GenerateText(llm_pb2.PromptRequest(prompt=prompt)) for _ in range(3)),
            )
            stream = [message.token async for message in llm.StreamGenerateText(llm_pb2.PromptRequest(prompt=prompt))]
            for sink in sinks:
                await sink.ended()
            assert own_links(server) == 1
        assert {answer.response for answer in answers} == {"".join(texts)}
        assert stream[:-1] == texts
        assert {len(seen.text) for seen in backend.prompts} == {len(prompt)}
        assert {sink.body for sink in sinks} == {bytes(MIB)}

    run_real(main())


def test_whoever_does_not_read_is_not_read_for() -> None:
    """What gRPC's server has to say to a slow client stays with the engine: neither side of the splice holds it."""

    async def main() -> None:
        total, said = 256, 0

        async def speak(_: IncomingCall, outlet: Outlet) -> End:
            nonlocal said
            for _number in range(total):
                outlet.chunk(bytes(256 * 1024))
                said += 1
                if outlet.full:
                    await outlet.room()
            return End(http_status=200)

        async with (
            serving(ScriptedBackend(speak), outbox_bytes=MIB, stats_interval_s=60) as (_, address),
            channel_to(address) as (worker, _llm),
        ):
            link = worker.Link()
            await link.write(pb.GatewayFrame(submits=[pb.Submit(id=1, path="/x")]))
            await eventually(lambda: said > 4)
            async with channel_to(address) as (other, _other_llm):
                before = -1
                while before != said:
                    before = said
                    for _ in range(20):
                        await other.GetStatus(pb.StatusRequest())
            assert said < total
            read = 0
            while read < total * 256 * 1024:
                read += sum(map(len, (await link.read()).chunks))
            link.cancel()

    run_real(main())


def test_a_slow_reader_of_our_link_holds_the_engine() -> None:
    async def main() -> None:
        total, said = 64 * MIB, 0

        async def speak(_: IncomingCall, outlet: Outlet) -> End:
            nonlocal said
            while said < total:
                outlet.chunk(bytes(65536))
                said += 65536
                if outlet.full:
                    await outlet.room()
            return End(http_status=200)

        submit = pb.GatewayFrame(submits=[pb.Submit(id=1, path="/x")]).SerializeToString()
        first = opening() + frames.frame(frames.DATA, 0, 1, b"\0" + len(submit).to_bytes(4, "big") + submit)
        first += frames.window_update(0, 1 << 30) + frames.window_update(1, 1 << 30)
        async with serving(ScriptedBackend(speak), outbox_bytes=MIB) as (server, address):
            reader, writer = await dialed(address)
            cast("asyncio.Transport", writer.transport).pause_reading()
            writer.write(first)
            await eventually(lambda: said > 0)
            async with channel_to(address) as (worker, _):
                before = -1
                while before != said:
                    before = said
                    for _ in range(20):
                        await worker.GetStatus(pb.StatusRequest())
            assert own_links(server) == 1
            assert 0 < said < total
            cast("asyncio.Transport", writer.transport).resume_reading()
            read = 0
            while read < total:
                read += len(await reader.read(1 << 20))
            await eventually(lambda: said == total)
            await hung_up(writer)

    run_real(main())


def test_a_connection_that_says_nothing_is_grpcs_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's server speaks at once, so whoever waits for it gets on."""

    async def main() -> None:
        monkeypatch.setattr(front_module, "_FIRST_BYTES_S", 0.01)
        async with serving(ScriptedBackend()) as (server, address):
            reader, writer = await dialed(address)
            assert (await reader.readexactly(9))[3] == frames.SETTINGS
            assert front_of(server).unclear == 0
            await hung_up(writer)
            await eventually(lambda: front_of(server).spliced == 0)

    run_real(main())


def test_unclear_connections_are_bounded_and_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(front_module, "_UNCLEAR", 8)
        monkeypatch.setattr(front_module, "_FIRST_BYTES_S", 600)
        async with serving(ScriptedBackend()) as (server, address):
            front = front_of(server)
            idle = [await dialed(address) for _ in range(30)]
            await eventually(lambda: front.spliced == 22)
            assert front.unclear == 8
            async with linked(address):
                assert own_links(server) == 1
            for _, writer in idle:
                await hung_up(writer)
            await eventually(lambda: front.unclear == front.spliced == 0)

    run_real(main())


def test_what_no_client_of_ours_says_is_answered_by_grpc() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (server, address):
            for sent in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", bytes(100_000)):
                reader, writer = await dialed(address)
                writer.write(sent)
                with contextlib.suppress(ConnectionError):
                    while await reader.read(65536):
                        pass
                await hung_up(writer)
            await eventually(lambda: front_of(server).spliced == 0)

    run_real(main())


def test_half_a_connection_goes_soon_and_a_reset_at_once() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (server, address):
            reader, writer = await dialed(address)
            writer.write(PREFACE + frames.settings({}))
            assert await reader.readexactly(9)
            writer.write_eof()
            while await reader.read(65536):
                pass
            await hung_up(writer)
            _, writer = await dialed(address)
            writer.write(PREFACE + frames.settings({}))
            await eventually(lambda: front_of(server).spliced == 1)
            linger = b"\1\0\0\0\0\0\0\0"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            await eventually(lambda: front_of(server).spliced == 0)

    run_real(main())


def test_a_client_that_cancels_or_leaves_stops_what_it_asked_for() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [Token("Hel"), None]
        async with serving(backend) as (_, address):
            async with channel_to(address) as (_worker, llm):
                stream = llm.StreamGenerateText(llm_pb2.PromptRequest(request_id="a", prompt="Why?"))
                await stream.read()
                stream.cancel()
                await backend.active.until(lambda active: active == 0)
                stream = llm.StreamGenerateText(llm_pb2.PromptRequest(request_id="b", prompt="Why?"))
                await stream.read()
            await backend.active.until(lambda active: active == 0)
            assert backend.cancelled.value == ("a", "b")

    run_real(main())


def test_a_worker_that_stops_ends_everything_on_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(front_module, "_FIRST_BYTES_S", 600)
        backend = ScriptedBackend(hang)
        backend.events = [Token("Hel"), None]
        async with serving(backend) as (server, address), linking(address) as (client, observer):
            await observer.hears("up")
            sink = RecordingSink()
            client.submit(call(), sink)
            silent_reader, silent = await dialed(address)
            await eventually(lambda: front_of(server).unclear == 1)
            async with channel_to(address) as (_, llm):
                stream = llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?"))
                await stream.read()
                await backend.active.until(lambda active: active == 2)
                await server.stop(0)
                assert (own_links(server), front_of(server).spliced) == (0, 0)
                with pytest.raises(grpc.aio.AioRpcError):
                    await stream.read()
                with contextlib.suppress(ConnectionError):
                    assert await silent_reader.read() == b""
                await hung_up(silent)
            assert "the worker stops" in (await sink.ended()).message
            await observer.hears("down")
            await observer.hears("failed")
            await server.stop(0)

    run_real(main())


def test_plain_calls_may_finish_while_a_worker_stops() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        gate = asyncio.Event()

        async def generate(*_: object) -> AsyncIterator[Any]:
            yield Token("Hel")
            await gate.wait()
            yield Finished(Usage(1, 1), "stop", "tiny", 1)

        backend.generate = generate  # type: ignore[assignment, method-assign]
        async with serving(backend) as (server, address), channel_to(address) as (_, llm):
            stream = llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?"))
            assert (await stream.read()).token == "Hel"
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server.stop(20))
                await eventually(lambda: not front_of(server)._servers[0].is_serving())
                gate.set()
                assert (await stream.read()).done

    run_real(main())


def test_health_is_watched_through_the_front() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (server, address):
            await server.set_serving(serving=True)
            async with grpc.aio.insecure_channel(address) as channel:
                watch: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                await server.set_serving(serving=False)
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                watch.cancel()

    run_real(main())


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":::0", "localhost:0", "127.0.0.1:0"])
def test_it_listens_where_grpc_would(address: str) -> None:
    async def main() -> None:
        async with serving(ScriptedBackend(), address=address) as (_, on_loopback), linked(on_loopback):
            pass
        sockets = await listen(address)
        assert len({found.getsockname()[1] for found in sockets}) == 1
        for found in sockets:
            found.close()

    run_real(main())


@pytest.mark.parametrize("address", ["nobody.invalid:0", "127.0.0.1", "127.0.0.1:http", "192.0.2.1:0"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"cannot listen on .* \(GRPC_PORT\): "):
            async with serving(ScriptedBackend(), address=address):
                pass

    run_real(main())


def test_elsewhere_than_on_linux_the_back_door_is_in_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def made() -> list[int]:
        return [found.stat().st_mode & 0o777 for found in tmp_path.iterdir()]

    async def main() -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        async with serving(ScriptedBackend()) as (server, address), linked(address):
            assert made() == [0o700]
            async with channel_to(address) as (worker, _llm):
                assert (await worker.GetStatus(pb.StatusRequest())).worker_id == "w-1"
            assert (own_links(server), front_of(server).spliced) == (1, 1)
        assert made() == []

    run_real(main())


@pytest.mark.parametrize("whose", ["a gateway's", "gRPC's", "nobody's"])
def test_a_connection_that_is_over_frees_itself(whose: str) -> None:
    """Without the collector, which on an idle worker never comes."""

    def ours() -> Counter[str]:
        kinds = (type(thing) for thing in gc.get_objects())
        return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("neurogate.rpc"))

    async def main() -> None:
        said = {"a gateway's": opening(), "gRPC's": PREFACE + frames.settings({}), "nobody's": b""}[whose]
        async with serving(ScriptedBackend()) as (server, address):
            front = front_of(server)

            async def visit() -> None:
                reader, writer = await dialed(address)
                writer.write(said)
                if said:
                    assert await reader.readexactly(9)
                else:
                    await eventually(lambda: front.unclear == 1)
                await hung_up(writer)
                await eventually(lambda: not (front.unclear or front.spliced or own_links(server)))

            await visit()
            gc.collect()
            before = ours()
            for _ in range(5):
                await visit()
            await eventually(lambda: not ours() - before)

    gc.disable()
    try:
        run_real(main())
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="it has no second address on loopback")
def test_one_port_of_a_client_reaches_every_address_of_the_worker() -> None:
    """Two connections from it differ by the worker's address alone, and gRPC's server takes both."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(ScriptedBackend(), address="0.0.0.0:0") as (server, address):
            port, ours = int(address.rpartition(":")[2]), 0
            with contextlib.ExitStack() as opened:
                for host in ("127.0.0.1", "127.0.0.2"):
                    connection = opened.enter_context(socket.socket())
                    connection.setblocking(False)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    connection.bind(("127.0.0.1", ours))
                    ours = connection.getsockname()[1]
                    await loop.sock_connect(connection, (host, port))
                    await loop.sock_sendall(connection, PREFACE + frames.settings({}))
                    assert await loop.sock_recv(connection, 1), host
                assert front_of(server).spliced == 2

    run_real(main())


@pytest.mark.skipif(sys.platform != "linux", reason="only an abstract socket has a name")
def test_who_cannot_be_named_is_connected_without(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(front_module, "peer_of", lambda _: "x" * 200)
        async with serving(ScriptedBackend()) as (_, address), channel_to(address) as (worker, _llm):
            assert (await worker.GetStatus(pb.StatusRequest())).worker_id == "w-1"

    run_real(main())


def test_who_comes_by_the_back_door_is_called_as_at_the_front() -> None:
    assert client_of("unix-abstract:neurogate-0a/ipv4%3A127.0.0.1%3A5/17") == "ipv4:127.0.0.1:5"
    assert client_of("unix-abstract:neurogate-0a/ipv6:[::1]:5/17") == "ipv6:[::1]:5"
    assert client_of("ipv4:127.0.0.1:5") == "ipv4:127.0.0.1:5"
    assert client_of("unix:") == "unix:"


def test_a_connection_that_cannot_be_passed_on_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (server, address):

            async def refuse(*_: object) -> None:
                raise ConnectionRefusedError("nobody listens")

            monkeypatch.setattr(BackDoor, "connect", refuse)
            with capture_logs() as logs:
                reader, writer = await dialed(address)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                await hung_up(writer)
            await eventually(lambda: front_of(server).spliced == 0)
            assert [log["reason"] for log in logs if "passed on" in log["event"]] == ["nobody listens"]

    run_real(main())


def test_whoever_is_being_passed_on_when_a_worker_stops_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (server, address):

            async def wait(*_: object) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(BackDoor, "connect", wait)
            reader, writer = await dialed(address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await eventually(lambda: front_of(server).spliced == 1)
            await server.stop(0)
            assert front_of(server).spliced == 0
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await hung_up(writer)

    run_real(main())


def test_without_ipv6_it_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
        async with serving(ScriptedBackend(), address="0.0.0.0:0") as (_, address), linked(address):
            pass

    run_real(main())
