"""The gateway's composition root: a gateway, its listeners, and the order in which they come and go."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable

import structlog
from prometheus_client import disable_created_metrics

from neurogate import __version__
from neurogate.config import Effective
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.listeners import api_limits, follow_cors, follow_http
from neurogate.gateway.public_listeners import PublicListeners
from neurogate.gateway.settings import GatewayConfig
from neurogate.httpd import HttpServer, descriptors, health_only
from neurogate.process import on_hangup, run
from neurogate.telemetry import logging
from neurogate.telemetry.log_files import boot_log

_log = structlog.get_logger("neurogate.gateway")


def main(effective: Effective[GatewayConfig]) -> int:
    """Run a gateway until SIGTERM or SIGINT. Returns the process's exit code."""
    config = effective.config
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with boot_log(config.logs, host=socket.gethostname(), now=time.time) as copy:  # noqa: TID251 - the composition root
        logging.configure(level=config.gateway.log_level, form=config.gateway.log_format, process="gateway", copy=copy)
        return run(lambda stopping: serve(config, stopping, effective=effective))


async def serve(
    config: GatewayConfig,
    stopping: asyncio.Event,
    *,
    on_ports: Callable[[int, int], None] = lambda _http, _ops: None,
    effective: Effective[GatewayConfig] | None = None,
) -> None:
    """Serve until `stopping` is set, then drain. `on_ports` hears the HTTP and the ops port.

    `effective` is `config` with where it comes from, so that it can be reloaded.

    Raises ConfigError for settings that cannot work, OSError when a port is taken.
    """
    settings = config.gateway
    gateway = Gateway(config, rng=random.Random(), now_ns=time.time_ns, effective=effective)  # noqa: S311, TID251 - the composition root
    connections = descriptors.connections_within(config.http.max_connections, descriptors.raise_limit())
    public = PublicListeners(
        config,
        gateway.certificates,
        app=gateway.app,
        grpc=gateway.grpc,
        choose_id=gateway.request_ids.choose,
        limits=api_limits(config, connections=connections),
        on_refused=gateway.metrics.refused,
    )
    for server in public.http_servers:
        follow_http(gateway.reloader, server, connections=connections)
    follow_cors(gateway.reloader, public.http_servers, gateway.front)
    gateway.reloader.also(gateway.certificates.ask)
    ops_http = HttpServer(gateway.ops_app, name="METRICS_PORT", host=settings.host, port=settings.metrics_port)
    alive = HttpServer(health_only.app, name="PORT_HEALTH", host=settings.host, port=config.http.health_port)
    async with asyncio.TaskGroup() as tasks:
        pool = tasks.create_task(gateway.pool.run(gateway.resolver), name="pool")
        reloading = tasks.create_task(gateway.reloader.run(), name="reload")
        watching = tasks.create_task(gateway.keys.watch(lambda _: gateway.tell_keys()), name="keys")
        certificates = tasks.create_task(gateway.certificates.watch(), name="certificates")
        await gateway.limiter.start()
        if gateway.access_log is not None:
            gateway.access_log.start()
        await gateway.pool.resolved()
        health_port = await alive.start(tasks) if config.http.health_port >= 0 else None
        ops_port = await ops_http.start(tasks)
        ports = await public.start(tasks)
        gateway.lifecycle.ready = True
        _log.info("gateway listens", **ports, ops_port=ops_port, health_port=health_port, version=__version__)
        on_ports(ports["http_port"], ops_port)
        with on_hangup(gateway.reloader.ask):
            await stopping.wait()
        reloading.cancel()
        watching.cancel()
        certificates.cancel()
        gateway.lifecycle.draining = True
        drain_s = gateway.reloader.config.gateway.drain_timeout_s
        _log.info("draining", requests=gateway.dispatcher.in_flight, timeout_s=drain_s)
        await public.stop(drain_s)
        pool.cancel()
        await gateway.limiter.close()
        if gateway.access_log is not None:
            await asyncio.to_thread(gateway.access_log.close)
        await ops_http.stop(1)
        await alive.stop(1)
    _log.info("gateway stopped")
