"""TLS with real handshakes: HTTPS, public gRPC, and the link with certificates on both sides."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from config_support import gateway_config
from link_support import READY, RecordingLinkObserver, RecordingSink, ScriptedBackend, call
from neurogate.errors import ConfigError
from neurogate.gateway import app as gateway_app
from neurogate.gateway.assembly import Gateway
from neurogate.httpd import HttpServer
from neurogate.rpc.http2.dialing import LinkDialer
from neurogate.rpc.link_client import LinkClient, LinkSettings
from neurogate.rpc.link_server import LinkServerSettings
from neurogate.rpc.worker_service import WorkerServer
from neurogate.testing.engines import ScriptedEngine
from neurogate.tls.live import LiveTls
from neurogate.tls.settings import LinkTlsSettings
from neurogate.worker import app as worker_app
from neurogate.worker.settings import WorkerSettings
from real_loop import eventually, run_real
from tls_support import Pki


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@asynccontextmanager
async def https(live: LiveTls) -> AsyncIterator[int]:
    server = HttpServer(hello, name="HTTP_PORT", host="127.0.0.1", port=0, ssl=live.https())
    async with asyncio.TaskGroup() as tasks:
        yield await server.start(tasks)
        await server.stop(1)


def trusting(pki: Pki, identity: tuple[str, str] | None = None) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=pki.ca)
    if identity is not None:
        context.load_cert_chain(*identity)
    return httpx.AsyncClient(verify=context, timeout=10)


def serial(port: int, pki: Pki, name: str | None = "localhost") -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=pki.ca)
    context.check_hostname = name is not None
    with (
        socket.create_connection(("127.0.0.1", port), 10) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        assert tls.version() in {"TLSv1.2", "TLSv1.3"}
        assert tls.selected_alpn_protocol() is None
        return int(dict(tls.getpeercert() or {})["serialNumber"], 16)  # type: ignore[arg-type]


# HTTPS


def test_https_answers_whoever_trusts_its_ca(tmp_path: Path) -> None:
    async def main() -> None:
        pki, stranger = Pki(tmp_path / "a"), Pki(tmp_path / "b")
        async with https(pki.live("server")) as port, trusting(pki) as client, trusting(stranger) as other:
            for host in ("localhost", "127.0.0.1"):
                answer = await client.get(f"https://{host}:{port}/")
                assert answer.text == "https"
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await other.get(f"https://localhost:{port}/")
            with pytest.raises(httpx.RemoteProtocolError):
                await httpx.AsyncClient().get(f"http://localhost:{port}/")

    run_real(main())


def test_https_refuses_old_versions(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        async with https(pki.live("server")) as port:

            def old() -> None:
                context = ssl.create_default_context(cafile=pki.ca)
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                    context.maximum_version = ssl.TLSVersion.TLSv1_1
                with socket.create_connection(("127.0.0.1", port), 10) as raw, pytest.raises(ssl.SSLError):
                    context.wrap_socket(raw, server_hostname="localhost")

            await asyncio.to_thread(old)

    run_real(main())


def test_with_a_client_ca_only_its_clients_are_let_in(tmp_path: Path) -> None:
    async def main() -> None:
        pki, stranger = Pki(tmp_path / "a"), Pki(tmp_path / "b")
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(https(pki.live("server", ca=pki.ca)))
            url = f"https://localhost:{port}/"
            known = await stack.enter_async_context(trusting(pki, pki.issue("client", server=False)))
            nobody = await stack.enter_async_context(trusting(pki))
            unknown = await stack.enter_async_context(trusting(pki, stranger.issue("client")))
            assert (await known.get(url)).text == "https"
            for refused in (nobody, unknown):
                with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                    await refused.get(url)

    run_real(main())


@pytest.mark.parametrize("name", ["localhost", None])
def test_new_files_count_from_the_next_handshake_and_open_connections_go_on(tmp_path: Path, name: str | None) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        live = pki.live("server")
        async with https(live) as port, trusting(pki) as client:
            url = f"https://localhost:{port}/"
            answer = await client.get(url)
            stream = answer.extensions["network_stream"]
            first = await asyncio.to_thread(serial, port, pki, name)
            pki.issue("server")
            assert await asyncio.to_thread(serial, port, pki, name) == first
            assert live.reload()
            assert await asyncio.to_thread(serial, port, pki, name) != first
            again = await client.get(url)
            assert again.extensions["network_stream"].get_extra_info("client_addr") == stream.get_extra_info(
                "client_addr"
            ), "the same connection"
            (tmp_path / "server.key").write_text("broken")
            assert not live.reload()
            assert await asyncio.to_thread(serial, port, pki, name) != first

    run_real(main())


# The link


@asynccontextmanager
async def worker(live: LiveTls | None) -> AsyncIterator[tuple[ScriptedBackend, WorkerServer, int]]:
    backend = ScriptedBackend(report=READY)
    server = WorkerServer(backend, LinkServerSettings(8 << 20, 0.0005, 0.05, 10 << 20), max_message_bytes=10 << 20)
    credentials = None if live is None else live.server_credentials()
    port = await server.start("127.0.0.1:0", credentials)
    try:
        yield backend, server, port
    finally:
        await server.stop(0)
        await eventually(lambda: not server.servicer.sessions)


@asynccontextmanager
async def gateway_of(
    port: int, live: LiveTls | None, *, host: str = "127.0.0.1", name: str = ""
) -> AsyncIterator[tuple[LinkClient, RecordingLinkObserver]]:
    observer = RecordingLinkObserver()
    client = LinkClient(
        f"{host}:{port}",
        observer,
        gateway_id="g",
        version="1",
        settings=LinkSettings(silence_s=10, backoff_min_s=0.01, backoff_max_s=0.02),
        loop=asyncio.get_running_loop(),
        rng=random.Random(1),
        dialer=LinkDialer() if live is None else LinkDialer(live.dialling, name=name),
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run())
        try:
            yield client, observer
        finally:
            running.cancel()


async def works(client: LinkClient, observer: RecordingLinkObserver) -> None:
    await observer.hears("up")
    sink = RecordingSink()
    client.submit(call(b"{}"), sink)
    assert (await sink.ended()).http_status == 200


def test_gateway_and_worker_know_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        async with worker(pki.live("worker", ca=pki.ca)) as (_, _, port):
            for host in ("127.0.0.1", "localhost"):
                async with gateway_of(port, pki.live("gateway", ca=pki.ca), host=host) as (client, observer):
                    await works(client, observer)

    run_real(main())


def test_a_worker_that_asks_for_nothing_is_still_verified(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        async with worker(pki.live("worker")) as (_, _, port), gateway_of(port, pki.live(ca=pki.ca)) as gateway:
            await works(*gateway)

    run_real(main())


def test_a_worker_has_the_name_that_is_expected(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        async with worker(pki.live("worker", ca=pki.ca, sans=("DNS:workers.internal",))) as (_, server, port):
            async with gateway_of(port, pki.live("g", ca=pki.ca)) as (_, observer):
                await observer.hears("failed")
                assert not server.servicer.sessions
            async with gateway_of(port, pki.live("g", ca=pki.ca), name="workers.internal") as gateway:
                await works(*gateway)

    run_real(main())


@pytest.mark.parametrize("kind", ["wrong CA of the gateway", "wrong CA of the worker", "no certificate", "plain"])
def test_strangers_are_refused(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        pki, stranger = Pki(tmp_path / "a"), Pki(tmp_path / "b")
        dialling = {
            "wrong CA of the gateway": lambda: stranger.live("gateway", ca=pki.ca),
            "wrong CA of the worker": lambda: pki.live("gateway", ca=stranger.ca),
            "no certificate": lambda: pki.live(ca=pki.ca),
            "plain": lambda: None,
        }[kind]()
        async with (
            worker(pki.live("worker", ca=pki.ca)) as (backend, server, port),
            gateway_of(port, dialling) as (_, observer),
        ):
            await observer.hears("failed", times=2)
            assert "up" not in observer.heard.value
            assert not server.servicer.sessions
            assert not backend.calls

    run_real(main())


def test_links_stand_while_their_certificates_change(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        at_worker, at_gateway = pki.live("worker", ca=pki.ca), pki.live("gateway", ca=pki.ca)
        async with worker(at_worker) as (_, server, port), gateway_of(port, at_gateway) as (client, observer):
            await works(client, observer)
            other = Pki(tmp_path, name="another")  # the CA is replaced, and all that it signed
            other.issue("worker")
            other.issue("gateway")
            assert at_worker.reload()
            await works(client, observer)  # the link of before still stands
            assert observer.heard.value.count("up") == 1
            async with gateway_of(port, at_gateway) as (_, late):  # with the old CA
                await late.hears("failed")
            assert at_gateway.reload()
            async with gateway_of(port, at_gateway) as gateway:
                await works(*gateway)
            await eventually(lambda: server.servicer.sessions == 1)

    run_real(main())


# Whole processes


class Ports:
    def __init__(self, logs: list[Any], event: str) -> None:
        self.logs, self.event = logs, event

    async def found(self) -> dict[str, int]:
        await eventually(lambda: any(log["event"] == self.event for log in self.logs))
        (found,) = [log for log in self.logs if log["event"] == self.event]
        return dict(found)


def test_everything_with_tls(tmp_path: Path) -> None:
    """HTTPS, public gRPC with TLS, and a link with certificates, from the settings alone."""

    async def main() -> None:
        pki = Pki(tmp_path)
        (cert, key), (link_cert, link_key) = pki.issue("server"), pki.issue("link")
        link = {"cert": link_cert, "key": link_key, "ca": pki.ca}
        stopping = asyncio.Event()
        with capture_logs() as logs:
            async with asyncio.TaskGroup() as tasks:
                settings = WorkerSettings(host="127.0.0.1", grpc_port=0, metrics_port=0, stats_interval_s=0.05)
                serving = worker_app.serve(settings, ScriptedEngine(), stopping, tls=LinkTlsSettings(**link))
                tasks.create_task(serving)
                port = (await Ports(logs, "worker listens").found())["grpc_port"]
                config = gateway_config(
                    host="127.0.0.1",
                    http_port=0,
                    https_port=0,
                    metrics_port=0,
                    grpc_port=0,
                    grpc_tls_port=0,
                    worker_addresses=(f"127.0.0.1:{port}",),
                )
                config = replace(config, tls=replace(config.tls, cert=cert, key=key), link_tls=LinkTlsSettings(**link))
                tasks.create_task(gateway_app.serve(config, stopping))
                ports = await Ports(logs, "gateway listens").found()
                async with trusting(pki) as client:
                    while (await client.get(f"https://localhost:{ports['https_port']}/health")).status_code != 200:
                        await asyncio.sleep(0.01)
                    assert (await client.get(f"http://localhost:{ports['http_port']}/health")).status_code == 200
                    metrics = (await client.get(f"http://localhost:{ports['ops_port']}/metrics")).text
                    assert 'neurogate_certificate_expires_timestamp_seconds{setting="NEUROGATE_TLS_CERT"}' in metrics
                    assert (
                        'neurogate_certificate_loads_total{result="used",setting="NEUROGATE_LINK_TLS_CERT"}' in metrics
                    )
                root = grpc.ssl_channel_credentials(pki.authority.issued.cert)
                asked = health_pb2.HealthCheckRequest()
                async with grpc.aio.secure_channel(f"localhost:{ports['grpc_tls_port']}", root) as channel:
                    assert (await health_pb2_grpc.HealthStub(channel).Check(asked)).status == 1
                async with grpc.aio.insecure_channel(f"localhost:{ports['grpc_port']}") as channel:
                    assert (await health_pb2_grpc.HealthStub(channel).Check(asked)).status == 1
                stopping.set()

    run_real(main())


def test_with_a_certificate_the_http_port_is_https(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        cert, key = pki.issue("server")
        config = gateway_config(
            host="127.0.0.1",
            http_port=0,
            metrics_port=0,
            grpc_port=-1,
            grpc_tls_port=-1,
            worker_addresses=("127.0.0.1:1",),
        )
        config = replace(config, tls=replace(config.tls, cert=cert, key=key))
        stopping = asyncio.Event()
        with capture_logs() as logs:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(gateway_app.serve(config, stopping))
                ports = await Ports(logs, "gateway listens").found()
                assert "https_port" not in ports
                assert "grpc_port" not in ports
                async with trusting(pki) as client:
                    assert (await client.get(f"https://localhost:{ports['http_port']}/health")).status_code == 503
                stopping.set()

    run_real(main())


@pytest.mark.parametrize(
    ("section", "fields", "told"),
    [
        ("tls", {"client_ca": "ca"}, "NEUROGATE_TLS_CERT: is needed, because NEUROGATE_TLS_CLIENT_CA"),
        ("tls", {"cert": "cert"}, "NEUROGATE_TLS_KEY: is needed"),
        ("tls", {"key": "key"}, "NEUROGATE_TLS_CERT: is needed"),
        ("tls", {"cert": "nowhere", "key": "key"}, "NEUROGATE_TLS_CERT: cannot read"),
        ("link_tls", {"cert": "cert", "key": "key"}, "NEUROGATE_LINK_TLS_CA: is needed"),
        ("link_tls", {"ca": "nowhere"}, "NEUROGATE_LINK_TLS_CA: cannot read"),
    ],
)
def test_a_gateway_refuses_what_cannot_work(tmp_path: Path, section: str, fields: dict[str, str], told: str) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        cert, key = pki.issue("server")
        given = {"cert": cert, "key": key, "ca": pki.ca}
        config = gateway_config()
        values = {name: given.get(value, str(tmp_path / value)) for name, value in fields.items()}
        config = replace(config, **{section: replace(getattr(config, section), **values)})
        with pytest.raises(ConfigError, match=told):
            Gateway(config, rng=random.Random(1), now_ns=time.time_ns)

    run_real(main())


def test_a_worker_with_a_ca_needs_a_certificate() -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        with pytest.raises(ConfigError, match="NEUROGATE_LINK_TLS_CERT: is needed, because NEUROGATE_LINK_TLS_CA"):
            await worker_app.serve(WorkerSettings(), engine, asyncio.Event(), tls=LinkTlsSettings(ca="ca.crt"))

    run_real(main())
