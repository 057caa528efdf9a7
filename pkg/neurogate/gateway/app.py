"""The gateway's composition root: pool, dispatcher, endpoints, listeners, and the order in which they come and go."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Mapping
from typing import cast

import structlog
from prometheus_client import disable_created_metrics
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from neurogate import __version__
from neurogate.balancing import picker
from neurogate.channel import LinkObserver
from neurogate.dataplane.dispatch import Dispatcher, DispatchLimits
from neurogate.dataplane.member import LinkChannel
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.room import Room
from neurogate.discovery.static import StaticResolver
from neurogate.edge.admission import Admission
from neurogate.edge.key_source import KeySource
from neurogate.edge.limiter import build_limiter
from neurogate.endpoint import Endpoint
from neurogate.gateway.dialects.table import dialects
from neurogate.gateway.edge import Edge
from neurogate.gateway.generation import GenerationEndpoint
from neurogate.gateway.grpc_edge import GrpcEdge
from neurogate.gateway.intake import BodyBudget, RequestIds
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.observer import FleetObserver
from neurogate.gateway.routes import Lifecycle, build_app, counted, health, readiness
from neurogate.gateway.settings import GatewayConfig, GatewaySettings
from neurogate.httpd import HttpServer
from neurogate.operations import OPERATIONS
from neurogate.process import run
from neurogate.resilience.breaker import BreakerSettings
from neurogate.resilience.retry import RetryBudget
from neurogate.rpc.link_client import LinkClient, LinkSettings
from neurogate.rpc.public_server import PublicServer
from neurogate.telemetry import logging, ops

_log = structlog.get_logger("neurogate.gateway")


def main(config: GatewayConfig) -> int:
    """Run a gateway until SIGTERM or SIGINT. Returns the process's exit code."""
    logging.configure(level=config.gateway.log_level, form=config.gateway.log_format, process="gateway")
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return run(lambda stopping: serve(config, stopping))


class Gateway:
    """The parts of one gateway, wired together on the running loop.

    Raises ConfigError for settings that cannot work.
    """

    def __init__(self, config: GatewayConfig, *, rng: random.Random, now_ns: Callable[[], int]) -> None:
        settings = config.gateway
        loop = asyncio.get_running_loop()
        self.metrics = GatewayMetrics()
        self.lifecycle = Lifecycle()
        self.resolver = StaticResolver(settings.worker_addresses)
        observer = FleetObserver(self.metrics)
        self.pool = EndpointPool(
            _connector(settings, loop, rng),
            breaker=BreakerSettings(settings.breaker_failures, settings.breaker_reset_s),
            loop=loop,
            observer=observer,
        )
        self.dispatcher = Dispatcher(
            self.pool,
            picker.build(settings.balancer, rng=rng),
            budget=RetryBudget(ratio=settings.retry_budget),
            limits=DispatchLimits(
                retries=settings.retries,
                failfast_s=settings.failfast_s,
                max_waiting=settings.max_waiting,
                max_answer_bytes=settings.max_answer_bytes,
            ),
            loop=loop,
            observer=observer,
        )
        self.metrics.count_active(lambda: self.dispatcher.in_flight)
        self.keys = KeySource(config.keys, now=lambda: now_ns() / 1e9)
        _tell_keys(self.keys)
        keys = self.keys.ring
        self.limiter = build_limiter(config.limits, loop=loop, wall=lambda: now_ns() / 1e9, rng=rng)
        room = Room(self.dispatcher, max_concurrent=config.admission.max_concurrent, factor=config.admission.factor)
        self.admission = Admission(config.admission, has_room=room.has_room, loop=loop)
        self.pool.on_publish(self.admission.wake)
        self.metrics.count_queue(lambda: self.admission.waiting)
        self.edge = Edge(keys, limits=config.limits, limiter=self.limiter, admission=self.admission)
        self.request_ids = RequestIds(now_ns)
        self.bodies = BodyBudget(settings.max_bodies_bytes)
        self.grpc = GrpcEdge(
            self.dispatcher,
            self.edge,
            channel_of=lambda member: cast("LinkClient", member.channel).calls,
            bodies=self.bodies,
            metrics=self.metrics,
            settings=settings,
            loop=loop,
        )
        hot = self._hot(settings, loop)
        routes = build_app(self.pool, keys, self.lifecycle, hot=hot, now=loop.time)
        self.app = _front_door(hot, routes, self.metrics, loop)
        self.ops_app = ops.build_app(
            self.metrics.registry, health=lambda: health(self.pool), ready=lambda: readiness(self.lifecycle)
        )

    def _hot(self, settings: GatewaySettings, loop: asyncio.AbstractEventLoop) -> dict[str, ASGIApp]:
        return {
            path: GenerationEndpoint(
                OPERATIONS[path],
                dialect,
                dispatcher=self.dispatcher,
                edge=self.edge,
                request_ids=self.request_ids,
                bodies=self.bodies,
                metrics=self.metrics,
                settings=settings,
                loop=loop,
            )
            for path, dialect in dialects().items()
        }


async def serve(
    config: GatewayConfig,
    stopping: asyncio.Event,
    *,
    on_ports: Callable[[int, int], None] = lambda _http, _ops: None,
) -> None:
    """Serve until `stopping` is set, then drain. `on_ports` hears the HTTP and the ops port.

    Raises ConfigError for settings that cannot work, OSError when a port is taken.
    """
    settings = config.gateway
    gateway = Gateway(config, rng=random.Random(), now_ns=time.time_ns)  # noqa: S311, TID251 - the composition root
    http = HttpServer(gateway.app, name="HTTP_PORT", host=settings.host, port=settings.http_port)
    ops_http = HttpServer(gateway.ops_app, name="METRICS_PORT", host=settings.host, port=settings.metrics_port)
    async with asyncio.TaskGroup() as tasks:
        pool = tasks.create_task(gateway.pool.run(gateway.resolver), name="pool")
        await gateway.limiter.start()
        await gateway.pool.resolved()
        ops_port = await ops_http.start(tasks)
        http_port = await http.start(tasks)
        gateway.lifecycle.ready = True
        _log.info("gateway listens", http_port=http_port, ops_port=ops_port, version=__version__)
        on_ports(http_port, ops_port)
        await stopping.wait()
        gateway.lifecycle.draining = True
        _log.info("draining", requests=gateway.dispatcher.in_flight, timeout_s=settings.drain_timeout_s)
        await http.stop(settings.drain_timeout_s)
        pool.cancel()
        await gateway.limiter.close()
        await ops_http.stop(1)
    _log.info("gateway stopped")


def _connector(
    settings: GatewaySettings, loop: asyncio.AbstractEventLoop, rng: random.Random
) -> Callable[[Endpoint, LinkObserver], LinkChannel]:
    gateway_id = f"{socket.gethostname()}:{os.getpid()}"
    link = LinkSettings(silence_s=settings.link_silence_s)

    def connect(endpoint: Endpoint, observer: LinkObserver) -> LinkChannel:
        return LinkClient(
            endpoint.address,
            observer,
            gateway_id=gateway_id,
            version=__version__,
            settings=link,
            loop=loop,
            rng=rng,
        )

    return connect


def _tell_keys(source: KeySource) -> None:
    """What there is to know about the keys that were just read."""
    found = source.loaded
    for warning in found.warnings:
        _log.warning("keys", problem=warning)
    if found.error:
        _log.error("the keys were not read", reason=found.error)
    if not source.ring.enforced:
        _log.warning("authentication is off: anyone may call this gateway; set API_KEYS or AUTH_KEYS_FILE")
    elif not found.keys_loaded:
        _log.error("authentication is misconfigured: no API keys are loaded; every request is refused")


def _front_door(
    hot: Mapping[str, ASGIApp], rest: Starlette, metrics: GatewayMetrics, loop: asyncio.AbstractEventLoop
) -> ASGIApp:
    """Hot paths by one dictionary look-up, everything else through Starlette's router and middleware."""
    others = counted(rest, metrics, loop)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = hot.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (endpoint or others)(scope, receive, send)

    return app
