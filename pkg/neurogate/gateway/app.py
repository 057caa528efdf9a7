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
from neurogate.config import Effective, Source
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.member import LinkChannel
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.room import Room
from neurogate.discovery.listed import ListedResolver
from neurogate.edge.address_limits import AddressLimits
from neurogate.edge.admission import Admission
from neurogate.edge.key_source import KeySource
from neurogate.edge.limiter import build_limiter
from neurogate.endpoint import Endpoint
from neurogate.gateway.admin import Admin
from neurogate.gateway.admin_keys import AdminKeys
from neurogate.gateway.certificates import Certificates
from neurogate.gateway.dialects.table import dialects
from neurogate.gateway.edge import Edge
from neurogate.gateway.generation import GenerationEndpoint
from neurogate.gateway.grpc_edge import GrpcEdge
from neurogate.gateway.intake import BodyBudget, RequestIds
from neurogate.gateway.limit_log import LimitLog
from neurogate.gateway.listeners import api_limits, follow_cors, follow_http
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.model_names import ModelNames
from neurogate.gateway.observer import FleetObserver
from neurogate.gateway.ollama_routes import ollama_routes
from neurogate.gateway.openapi.routes import openapi_routes
from neurogate.gateway.public_listeners import PublicListeners
from neurogate.gateway.records import access_log, recorder
from neurogate.gateway.reload import Reloader
from neurogate.gateway.routes import Lifecycle, build_app, counted, describe, health, readiness
from neurogate.gateway.settings import GatewayConfig, GatewaySettings
from neurogate.gateway.subscriptions import (
    ENDPOINT_SETTINGS,
    GRPC_SETTINGS,
    breaker_settings,
    dispatch_limits,
    follow_edge,
    follow_fleet,
    follow_process,
)
from neurogate.httpd import HttpServer, cors, descriptors, health_only
from neurogate.operations import OPERATIONS
from neurogate.process import on_hangup, run
from neurogate.resilience.retry import RetryBudget
from neurogate.rpc.call_channel import Dial
from neurogate.rpc.link_client import LinkClient, LinkSettings
from neurogate.telemetry import logging, ops
from neurogate.telemetry.log_files import boot_log

_log = structlog.get_logger("neurogate.gateway")


def main(effective: Effective[GatewayConfig]) -> int:
    """Run a gateway until SIGTERM or SIGINT. Returns the process's exit code."""
    config = effective.config
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with boot_log(config.logs, host=socket.gethostname(), now=time.time) as copy:  # noqa: TID251 - the composition root
        logging.configure(level=config.gateway.log_level, form=config.gateway.log_format, process="gateway", copy=copy)
        return run(lambda stopping: serve(config, stopping, effective=effective))


class Gateway:
    """The parts of one gateway, wired together on the running loop.

    `effective` is the configuration with where it comes from, to be read again; without it, it is what it is.
    Raises ConfigError for settings that cannot work.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        rng: random.Random,
        now_ns: Callable[[], int],
        effective: Effective[GatewayConfig] | None = None,
    ) -> None:
        settings = config.gateway
        loop = asyncio.get_running_loop()
        self.metrics = GatewayMetrics()
        self.lifecycle = Lifecycle()
        self.resolver = ListedResolver(settings.worker_addresses)
        self.certificates = Certificates(
            config.tls, config.link_tls, registry=self.metrics.registry, now=lambda: now_ns() / 1e9
        )
        observer = FleetObserver(self.metrics)
        self.pool = EndpointPool(
            _connector(config, self.certificates.dial, loop, rng),
            breaker=breaker_settings(settings),
            loop=loop,
            observer=observer,
            leave_s=settings.drain_timeout_s,
        )
        budget = RetryBudget(ratio=settings.retry_budget)
        self.dispatcher = Dispatcher(
            self.pool,
            picker.build(settings.balancer, rng=rng),
            budget=budget,
            limits=dispatch_limits(settings),
            loop=loop,
            observer=observer,
        )
        self.metrics.count_active(lambda: self.dispatcher.in_flight)
        self.keys = KeySource(config.keys, now=lambda: now_ns() / 1e9)
        _tell_keys(self.keys)
        keys = self.keys.ring
        self.limiter = build_limiter(
            config.limits, loop=loop, wall=lambda: now_ns() / 1e9, rng=rng, observer=LimitLog()
        )
        room = Room(self.dispatcher, max_concurrent=config.admission.max_concurrent, factor=config.admission.factor)
        self.admission = Admission(config.admission, has_room=room.has_room, loop=loop)
        self.pool.on_publish(self.admission.wake)
        self.metrics.count_queue(lambda: self.admission.waiting)
        names = ModelNames(config.models)
        self.edge = Edge(
            keys,
            addresses=AddressLimits(config.limits, loop=loop),
            names=names,
            models=lambda: self.pool.snapshot.models,
            limits=config.limits,
            limiter=self.limiter,
            admission=self.admission,
        )
        self.access_log = access_log(config.access_log, on_loss=self.metrics.log_lines_lost)
        self._record = (
            recorder(self.access_log, self.edge, wall=lambda: now_ns() / 1e9, loop=loop)
            if self.access_log is not None
            else None
        )
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
            log=self.access_log,
            wall=lambda: now_ns() / 1e9,
        )
        self.reloader = reloader = Reloader(
            effective or Source(GatewayConfig, base=config).read(),
            now=lambda: now_ns() / 1e9,
            count=self.metrics.config_reload,
        )
        admin_keys = AdminKeys(config.admin.admin_key)
        hot = self._hot(settings, loop)
        reloader.subscribe(ENDPOINT_SETTINGS, lambda config: hot.update(self._hot(config.gateway, loop)))
        reloader.subscribe(GRPC_SETTINGS, lambda config: self.grpc.configure(config.gateway))
        follow_process(reloader, admin_keys=admin_keys, bodies=self.bodies)
        follow_fleet(
            reloader, resolver=self.resolver, pool=self.pool, dispatcher=self.dispatcher, budget=budget, rng=rng
        )
        follow_edge(
            reloader,
            keys=self.keys,
            tell_keys=lambda: _tell_keys(self.keys),
            limiter=self.limiter,
            edge=self.edge,
            admission=self.admission,
            room=room,
            names=names,
        )
        if self.access_log is not None:
            reloader.also(self.access_log.reopen)
        admin = Admin(
            admin_keys,
            reloader,
            pool=self.pool,
            resolver=self.resolver,
            keys_loaded=lambda: len(keys),
            describe=lambda member: describe(member, loop.time()),
        )
        routes = build_app(
            self.pool,
            keys,
            self.lifecycle,
            hot=hot,
            now=loop.time,
            names=names,
            guard_workers=config.keys.workers_auth,
            config_status=reloader.status,
            more=[
                *admin.routes(),
                *openapi_routes(authenticated=keys.enforced),
                *ollama_routes(self.pool, self.edge.identify, started_at=now_ns() / 1e9, aliases=lambda: names.aliases),
            ],
        )
        self.front = _front_door(hot, routes, self.metrics, loop)
        self.app = cors.around(self.front, config.http.cors_origins)
        self.ops_app = ops.build_app(
            self.metrics.registry,
            health=lambda: health(self.pool, reloader.status()),
            ready=lambda: readiness(self.lifecycle),
        )

    def _hot(self, settings: GatewaySettings, loop: asyncio.AbstractEventLoop) -> dict[str, ASGIApp]:
        """Endpoints hold their bounds: a reload puts others into their places, and a request keeps the one it met."""
        return {
            path: GenerationEndpoint(
                OPERATIONS[path],
                dialect,
                dispatcher=self.dispatcher,
                edge=self.edge,
                record=self._record,
                request_ids=self.request_ids,
                bodies=self.bodies,
                metrics=self.metrics,
                settings=settings,
                loop=loop,
            )
            for path, dialect in dialects(lambda: self.pool.snapshot.models).items()
        }


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
        watching = tasks.create_task(gateway.keys.watch(lambda _: _tell_keys(gateway.keys)), name="keys")
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


def _connector(
    config: GatewayConfig, dial: Dial, loop: asyncio.AbstractEventLoop, rng: random.Random
) -> Callable[[Endpoint, LinkObserver], LinkChannel]:
    gateway_id = f"{socket.gethostname()}:{os.getpid()}"
    link = LinkSettings(silence_s=config.gateway.link_silence_s)

    def connect(endpoint: Endpoint, observer: LinkObserver) -> LinkChannel:
        return LinkClient(
            endpoint.address,
            observer,
            gateway_id=gateway_id,
            version=__version__,
            settings=link,
            loop=loop,
            rng=rng,
            dial=dial,
            max_message_bytes=config.grpc.grpc_max_message_bytes,
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
