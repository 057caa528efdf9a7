"""`neurogate certs dev`: a local CA and the certificates that gateways, workers and clients need to try TLS."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Annotated

import typer

from neurogate.errors import ConfigError, NeuroGateError
from neurogate.tls.authority import Authority

app = typer.Typer(help="Certificates for TLS.", no_args_is_help=True, rich_markup_mode=None)

_LOCAL = ("DNS:localhost", "IP:127.0.0.1", "IP:::1")


@app.callback()
def _common() -> None:
    """Certificates for TLS."""


@app.command()
def dev(
    directory: Annotated[Path, typer.Option("--dir", help="Where they go.")] = Path("certs"),
    name: Annotated[str, typer.Option(help="First part of the names in the certificates.")] = "neurogate",
    san: Annotated[
        list[str] | None,
        typer.Option(help="A further name of servers and workers: DNS:name or IP:address. Repeatable."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long they are valid.")] = 365,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Make a CA, and certificates for a gateway, its workers and its clients, for trying TLS on this machine."""
    authority = Authority(f"{name} CA", now=time.time(), days=days)
    hosts = (*_LOCAL, f"DNS:{socket.gethostname()}", *(san or ()))
    issued = {
        "ca": authority.issued,
        "server": authority.issue(f"{name} server", server=True, client=False, sans=hosts),
        "worker": authority.issue(f"{name} worker", server=True, client=True, sans=hosts),
        "client": authority.issue(f"{name} client", server=False, client=True, sans=("DNS:client",)),
    }
    paths = [directory / f"{stem}.{ending}" for stem in issued for ending in ("crt", "key")]
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise NeuroGateError(f"{', '.join(there)}: there already; --force replaces all of them")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stem, one in issued.items():
            _write(directory / f"{stem}.key", one.key, 0o600)
            _write(directory / f"{stem}.crt", one.cert, 0o644)
    except OSError as error:
        raise ConfigError(f"--dir {directory}: {error.strerror}") from error
    print(_told(directory.absolute(), days))


def _write(path: Path, data: bytes, mode: int) -> None:
    """Never readable by others for a moment, and never half there."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    scratch.chmod(mode)
    scratch.replace(path)


def _told(directory: Path, days: int) -> str:
    return f"""\
Made in {directory}, valid for {days} days. For trying TLS, not for production.

For clients of a gateway (HTTPS on HTTP_PORT, gRPC on NEUROGATE_GRPC_TLS_PORT), in the gateway's environment:
  NEUROGATE_TLS_CERT={directory}/server.crt
  NEUROGATE_TLS_KEY={directory}/server.key
  # NEUROGATE_TLS_CLIENT_CA={directory}/ca.crt    only clients with a certificate, such as client.crt

Between gateways and workers, in the gateway's environment:
  NEUROGATE_LINK_TLS_CERT={directory}/client.crt
  NEUROGATE_LINK_TLS_KEY={directory}/client.key
  NEUROGATE_LINK_TLS_CA={directory}/ca.crt
and in the workers':
  NEUROGATE_LINK_TLS_CERT={directory}/worker.crt
  NEUROGATE_LINK_TLS_KEY={directory}/worker.key
  NEUROGATE_LINK_TLS_CA={directory}/ca.crt

Then: curl --cacert {directory}/ca.crt https://localhost:8080/health"""
