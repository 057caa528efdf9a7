"""What a local fleet consists of, decided before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from neurogate.config import Effective, settings_of, value_of
from neurogate.config.layers import DEFAULT
from neurogate.gateway.settings import GatewayConfig
from neurogate.local.ports import OFF, Wanted, free_ports
from neurogate.worker.settings import WorkerConfig

LOOPBACK = "127.0.0.1"

GATEWAY_PORTS = tuple(
    settings_of(GatewayConfig)[key]
    for key in (
        "gateway.http_port",
        "gateway.metrics_port",
        "http.health_port",
        "grpc.grpc_port",
        "tls.https_port",
        "grpc.grpc_tls_port",
    )
)
"""The settings of every listener of a gateway."""

_TLS_ONLY = frozenset({"NEUROGATE_HTTPS_PORT", "NEUROGATE_GRPC_TLS_PORT"})
_METRICS_PORT = settings_of(WorkerConfig)["worker.metrics_port"]


@dataclass(frozen=True, slots=True)
class FleetRequest:
    """What was asked for."""

    workers: int
    keys: tuple[str, ...] = ()
    """Bearer keys; none leaves API_KEYS of the environment and the file in charge."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings of all processes, by environment name."""

    @property
    def flags(self) -> dict[str, str]:
        """All of the request that is a setting, by environment name."""
        return dict(self.settings) | ({"API_KEYS": ",".join(self.keys)} if self.keys else {})


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process."""

    name: str
    command: str
    """`gateway` or `worker`."""
    environment: Mapping[str, str]
    address: str
    """host:port of what it is for: HTTP of a gateway, gRPC of a worker."""
    ops_url: str
    """Of its ops port, which is plain and needs no key."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Every process and address of a fleet."""

    url: str
    """Of the gateway, from this machine: https:// when its HTTP_PORT is."""
    https_url: str
    """Of HTTPS on a port beside `url`; empty without one."""
    grpc_address: str
    """host:port of plain gRPC; empty when it is off."""
    grpc_tls_address: str
    """The same with TLS."""
    gateway: ChildPlan
    workers: tuple[ChildPlan, ...]
    listeners: tuple[tuple[str, int], ...]
    """(address, port) of every listener."""


def plan(
    request: FleetRequest, *, gateway: Effective[GatewayConfig], worker: Effective[WorkerConfig], threads: int | None
) -> FleetPlan:
    """Choose ports and settings; `threads` is what each managed engine gets, None leaves it to its settings.

    The gateway listens on loopback unless another address is set. Raises PortError for a port that is set and taken.
    """
    config = gateway.config
    host = LOOPBACK if gateway.sources["gateway.host"] == DEFAULT else config.gateway.host
    offered = [setting for setting in GATEWAY_PORTS if config.tls.cert or setting.env not in _TLS_ONLY]
    usual = {setting.key: cast("int", value_of(config, setting)) for setting in offered}
    wanted = [Wanted(host, port, _asked(gateway, key) if port else "") for key, port in usual.items()]
    wanted += _worker_ports(worker, request.workers)
    ports = free_ports(wanted)
    count, first = request.workers, len(offered)
    chosen = {setting.env: port for setting, port in zip(offered, ports, strict=False)}
    shared = dict(request.settings) | ({} if threads is None else {"NEUROGATE_ENGINE_THREADS": str(threads)})
    workers = tuple(
        _worker(f"worker-{index}", shared, grpc_port=grpc_port, ops_port=ops_port)
        for index, (grpc_port, ops_port) in enumerate(
            zip(ports[first : first + count], ports[first + count :], strict=True)
        )
    )
    reachable = LOOPBACK if host in {"0.0.0.0", "::"} else host
    bracketed = f"[{reachable}]" if ":" in reachable else reachable

    def address(setting: str) -> str:
        port = chosen.get(setting, OFF)
        return "" if port == OFF else f"{bracketed}:{port}"

    https = address("NEUROGATE_HTTPS_PORT")
    return FleetPlan(
        url=f"{'https' if config.tls.cert and not https else 'http'}://{address('HTTP_PORT')}",
        https_url=f"https://{https}" if https else "",
        grpc_address=address("NEUROGATE_GRPC_PORT"),
        grpc_tls_address=address("NEUROGATE_GRPC_TLS_PORT"),
        gateway=ChildPlan(
            name="gateway",
            command="gateway",
            environment=request.flags
            | {name: str(port) for name, port in chosen.items()}
            | {"NEUROGATE_HOST": host, "WORKER_ADDRESSES": ",".join(worker.address for worker in workers)},
            address=address("HTTP_PORT"),
            ops_url=f"http://{address('METRICS_PORT')}",
        ),
        workers=workers,
        listeners=tuple((listener.host, port) for listener, port in zip(wanted, ports, strict=True) if port != OFF),
    )


def fair_threads(cores: int, workers: int) -> int:
    """CPU threads for each engine, so that together they do not fight over the cores."""
    return max(1, cores // workers)


def _worker(name: str, shared: Mapping[str, str], *, grpc_port: int, ops_port: int) -> ChildPlan:
    return ChildPlan(
        name=name,
        command="worker",
        environment={
            **shared,
            "NEUROGATE_WORKER_ID": name,
            "NEUROGATE_WORKER_HOST": LOOPBACK,
            "GRPC_PORT": str(grpc_port),
            "METRICS_PORT": str(ops_port),
            "NEUROGATE_ENGINE_PORT": "0",
        },
        address=f"{LOOPBACK}:{grpc_port}",
        ops_url=f"http://{LOOPBACK}:{ops_port}",
    )


def _worker_ports(worker: Effective[WorkerConfig], count: int) -> list[Wanted]:
    """GRPC_PORT and those after it, one a worker; then their ops ports.

    METRICS_PORT of the environment or a flag is the gateway's, and theirs come after it; the file has one for each.
    """
    settings = worker.config.worker
    grpc_ports = _row(settings.grpc_port, _asked(worker, "worker.grpc_port"), count)
    source, ops_port = worker.sources[_METRICS_PORT.key], settings.metrics_port
    if source in {f"env {_METRICS_PORT.env}", f"flag {_METRICS_PORT.flag}"}:
        return [*grpc_ports, *_row(ops_port + 1 if ops_port else 0, "", count)]
    if source == DEFAULT:
        usual = (ops_port, *range(ops_port + 2, ops_port + 1 + count))  # the one between is the gateway's
        return [*grpc_ports, *(Wanted(LOOPBACK, port) for port in usual)]
    return [*grpc_ports, *_row(ops_port, _asked(worker, _METRICS_PORT.key), count)]


def _row(port: int, asked: str, count: int) -> list[Wanted]:
    """One port after the other for the workers; any when the first is 0."""
    return [
        Wanted(LOOPBACK, port + index if port else 0, f"{asked} for worker-{index}" if asked and port else "")
        for index in range(count)
    ]


def _asked(effective: Effective[GatewayConfig] | Effective[WorkerConfig], key: str) -> str:
    """The setting and where its value comes from; empty for a default."""
    source = effective.sources[key]
    return "" if source == DEFAULT else f"{settings_of(type(effective.config))[key].env} ({source})"
