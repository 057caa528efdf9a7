"""The HTTP listener over TLS: the same protocol, on connections that cannot be half-closed."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.types import Receive, Scope, Send

from http_support import Echo, answer, bodies_of, listening, request
from neurogate.httpd import Connection
from raw_client import exchange, statuses
from real_loop import run_real

CLOSE = "Connection: close"


@cache
def server_context() -> ssl.SSLContext:
    """A context with a certificate of its own signing."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        path = Path(directory, "pair.pem")
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context.load_cert_chain(path)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def exchange_tls(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context())
    writer.write(sent)
    received = b""
    with suppress(ConnectionError):
        received = await reader.read()
    writer.transport.abort()
    return received


def test_requests_are_answered_as_without_tls() -> None:
    async def main() -> None:
        async with listening(Echo(), context=server_context(), idle_timeout_s=0.1) as made:
            sent = request("/a") + request("/b", "Upgrade: h2c", "Connection: Upgrade", method="POST", body=b"body")
            received = await exchange_tls(made.port, sent)
            assert [(one["scheme"], one["path"], one["body"]) for one in bodies_of(received)] == [
                ("https", "/a", ""),
                ("https", "/b", "body"),
            ]
            assert b"\r\nstrict-transport-security: max-age=31536000\r\n" in received

    run_real(main())


def test_a_refused_client_that_is_still_sending_gets_its_answer() -> None:
    async def main() -> None:
        async with listening(Echo(), context=server_context(), body_bytes=1000, linger_s=0.2) as made:
            sent = request("/", "Content-Length: 1000000", method="POST") + bytes(200_000)
            assert statuses(await exchange_tls(made.port, sent)) == [413]

    run_real(main())


def test_slow_heads_are_refused() -> None:
    async def main() -> None:
        async with listening(Echo(), context=server_context(), head_timeout_s=0.1, linger_s=0.1) as made:
            assert statuses(await exchange_tls(made.port, b"GET / HT")) == [408]

    run_real(main())


def test_an_endpoint_hears_that_its_client_left() -> None:
    async def main() -> None:
        lost, begun = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, _: Receive, send: Send) -> None:
            connection: Connection = scope["extensions"]["neurogate.connection"]
            connection.on_lost(lost.set)
            begun.set()
            await lost.wait()
            await answer(send, b"to nobody")

        async with listening(app, context=server_context()) as made:
            _, writer = await asyncio.open_connection("127.0.0.1", made.port, ssl=client_context())
            writer.write(request())
            await begun.wait()
            writer.close()
            await lost.wait()

    run_real(main())


def test_a_handshake_that_does_not_go_on_is_given_up() -> None:
    async def main() -> None:
        async with listening(Echo(), context=server_context(), handshake_timeout_s=0.1) as made:
            assert await exchange(made.port, b"") == b""

    run_real(main())


def test_plain_http_on_the_tls_port_is_closed_at_once() -> None:
    async def main() -> None:
        async with listening(Echo(), context=server_context(), handshake_timeout_s=60) as made:
            assert b"HTTP/1.1 200" not in await exchange(made.port, request("/"))

    run_real(main())
