"""What a local fleet consists of, decided before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neurogate.local.ports import free_ports

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class FleetRequest:
    """What was asked for."""

    workers: int
    host: str = LOOPBACK
    """Address of the gateway; workers only ever listen on loopback."""
    keys: tuple[str, ...] = ()
    """Bearer keys; none leaves API_KEYS of the environment in charge."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the workers, by environment name."""


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process."""

    name: str
    command: str
    """`gateway` or `worker`."""
    environment: Mapping[str, str]
    address: str
    """host:port of what it is for: HTTP of a gateway, gRPC of a worker."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Every process and address of a fleet."""

    url: str
    """Of the gateway, from this machine."""
    ops_url: str
    gateway: ChildPlan
    workers: tuple[ChildPlan, ...]
    listeners: tuple[tuple[str, int], ...]
    """(address, port) of every listener."""


def plan(request: FleetRequest, *, http_port: int, threads: int | None) -> FleetPlan:
    """Choose ports and settings; `threads` is what each managed engine gets, None leaves it to its settings."""
    count = request.workers
    wanted = [(request.host, port) for port in (http_port, 9091, 8001, 8002)]
    wanted += [(LOOPBACK, 50051 + index) for index in range(count)]
    wanted += [(LOOPBACK, port) for port in (9090, *range(9092, 9091 + count))]  # 9091 is the gateway's
    ports = free_ports(wanted)
    gateway_ports, grpc_ports, ops_ports = ports[:4], ports[4 : 4 + count], ports[4 + count :]
    shared = dict(request.settings) | ({} if threads is None else {"NEUROGATE_ENGINE_THREADS": str(threads)})
    workers = tuple(
        ChildPlan(
            name=f"worker-{index}",
            command="worker",
            environment=shared
            | {
                "NEUROGATE_WORKER_ID": f"worker-{index}",
                "NEUROGATE_WORKER_HOST": LOOPBACK,
                "GRPC_PORT": str(grpc_port),
                "METRICS_PORT": str(ops_port),
                "NEUROGATE_ENGINE_PORT": "0",
            },
            address=f"{LOOPBACK}:{grpc_port}",
        )
        for index, (grpc_port, ops_port) in enumerate(zip(grpc_ports, ops_ports, strict=True))
    )
    reachable = LOOPBACK if request.host in {"0.0.0.0", "::"} else request.host
    host = f"[{reachable}]" if ":" in reachable else reachable
    gateway = ChildPlan(
        name="gateway",
        command="gateway",
        environment={
            "NEUROGATE_HOST": request.host,
            "HTTP_PORT": str(gateway_ports[0]),
            "METRICS_PORT": str(gateway_ports[1]),
            "PORT_HEALTH": str(gateway_ports[2]),
            "NEUROGATE_GRPC_PORT": str(gateway_ports[3]),
            "WORKER_ADDRESSES": ",".join(worker.address for worker in workers),
        }
        | ({"API_KEYS": ",".join(request.keys)} if request.keys else {}),
        address=f"{host}:{gateway_ports[0]}",
    )
    return FleetPlan(
        url=f"http://{gateway.address}",
        ops_url=f"http://{host}:{gateway_ports[1]}",
        gateway=gateway,
        workers=workers,
        listeners=tuple((host, port) for (host, _), port in zip(wanted, ports, strict=True)),
    )


def fair_threads(cores: int, workers: int) -> int:
    """CPU threads for each engine, so that together they do not fight over the cores."""
    return max(1, cores // workers)
