"""The parts of a gateway, put together: data plane, edge, endpoints, apps, and what follows the configuration."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, Container
from typing import cast

import structlog
from starlette.types import ASGIApp

from neurogate.balancing import picker
from neurogate.config import Effective, Source
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.outlier_watch import OutlierWatch
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.prober import Prober
from neurogate.dataplane.room import Room
from neurogate.discovery.following import Following
from neurogate.discovery.listed import ListedResolver
from neurogate.discovery.sources import dynamic
from neurogate.edge.address_limits import AddressLimits
from neurogate.edge.admin_keys import AdminKeys
from neurogate.edge.admission import Admission
from neurogate.edge.key_source import KeySource
from neurogate.edge.limiter import build_limiter
from neurogate.gateway import discovery
from neurogate.gateway.admin import Admin
from neurogate.gateway.certificates import Certificates
from neurogate.gateway.dialects.table import dialects
from neurogate.gateway.edge import Edge
from neurogate.gateway.explain import Explainer
from neurogate.gateway.front import FrontDoor
from neurogate.gateway.generation import GenerationEndpoint
from neurogate.gateway.grpc_edge import GrpcEdge
from neurogate.gateway.in_flight import InFlight
from neurogate.gateway.intake import BodyBudget, RequestIds
from neurogate.gateway.lifecycle import Lifecycle
from neurogate.gateway.limit_log import LimitLog
from neurogate.gateway.links import connector
from neurogate.gateway.live.recent import Recent
from neurogate.gateway.live.show import show
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.model_names import ModelNames
from neurogate.gateway.observer import FleetObserver
from neurogate.gateway.ollama_routes import ollama_routes
from neurogate.gateway.openapi.routes import openapi_routes
from neurogate.gateway.reception import received
from neurogate.gateway.records import Recorder, access_log
from neurogate.gateway.reload import Reloader
from neurogate.gateway.resuming import Transcripts
from neurogate.gateway.routes import build_app, describe, health, readiness
from neurogate.gateway.settings import GatewayConfig
from neurogate.gateway.subscriptions import (
    ENDPOINT_SETTINGS,
    GRPC_SETTINGS,
    breaker_settings,
    dispatch_limits,
    follow_discovery,
    follow_edge,
    follow_fleet,
    follow_live,
    follow_process,
    outlier_settings,
)
from neurogate.gateway.vitals import Vitals
from neurogate.httpd import cors
from neurogate.operations import OPERATIONS
from neurogate.resilience.retry import RETRIES_AT_ONCE, RetryBudget
from neurogate.rpc.link_client import LinkClient, LinkCounts
from neurogate.telemetry import ops
from neurogate.telemetry.machine import Machine
from neurogate.telemetry.process_metrics import LogLines, ProcessMetrics
from neurogate.telemetry.traces import Traces

_log = structlog.get_logger("neurogate.gateway")


class Gateway:
    """The parts of one gateway, wired together on the running loop.

    `effective` is the configuration with where it comes from, to be read again; without it, it is what it is.
    `log_lines` counts what is logged.
    Raises ConfigError for settings that cannot work.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        rng: random.Random,
        now_ns: Callable[[], int],
        effective: Effective[GatewayConfig] | None = None,
        log_lines: LogLines | None = None,
    ) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._rng = rng
        self._now_ns = now_ns
        self.metrics = GatewayMetrics(config.metrics, process=ProcessMetrics("gateway", log_lines))
        self.lifecycle = Lifecycle()
        self.reloader = Reloader(
            effective or Source(GatewayConfig, base=config).read(), now=self._wall, count=self.metrics.config_reload
        )
        for warning in effective.warnings if effective is not None else ():
            _log.warning("settings", problem=warning)
        self.traces = Traces(
            config.tracing,
            service="neurogate-gateway",
            instance=f"{socket.gethostname()}:{os.getpid()}",
            on_loss=self.metrics.process.spans_lost,
            rng=rng,
            now=self._loop.time,
            wall_ns=now_ns,
        )
        self._build_data_plane()
        self._build_edge()
        self._build_listeners_backends()
        self._build_apps()

    def tell_keys(self) -> None:
        """Say what there is to know about the keys that were read because their file has changed."""
        self.metrics.config_reload("invalid" if self.keys.loaded.error else "ok")
        self._log_keys()

    def _log_keys(self) -> None:
        found = self.keys.loaded
        for warning in found.warnings:
            _log.warning("keys", problem=warning)
        if found.error:
            _log.error("the keys were not read", reason=found.error)
        if not self.keys.ring.enforced:
            _log.warning("authentication is off: anyone may call this gateway; set API_KEYS or AUTH_KEYS_FILE")
        elif not found.keys_loaded:
            _log.error("authentication is misconfigured: no API keys are loaded; every request is refused")

    def _wall(self) -> float:
        return self._now_ns() / 1e9

    def _build_data_plane(self) -> None:
        """Who the workers are, how they are reached, and how one of them is chosen."""
        config, settings = self._config, self._config.gateway
        self.certificates = Certificates(config.tls, config.link_tls, registry=self.metrics.registry, now=self._wall)
        self.resolver = ListedResolver(discovery.static_addresses(config))
        discovery.check(config.discovery)
        sources = discovery.DiscoveryLog(self.metrics.registry)
        self.discovery = Following(
            self.resolver,
            discovery.Resolvers(config.discovery, observer=sources, loop=self._loop, rng=self._rng),
            dynamic(config.discovery.sources),
            observer=sources,
        )
        follow_discovery(
            self.reloader,
            resolver=self.resolver,
            discovery=self.discovery,
            observer=sources,
            loop=self._loop,
            rng=self._rng,
        )
        self.recent = Recent(wall=self._wall)
        observer = FleetObserver(self.metrics, self.recent)
        links = LinkCounts()
        self.pool = EndpointPool(
            connector(
                config,
                self.certificates.dialer,
                self.certificates.dial,
                loop=self._loop,
                rng=self._rng,
                counts=links,
            ),
            breaker=breaker_settings(config),
            loop=self._loop,
            observer=observer,
            leave_s=settings.drain_timeout_s,
            rest_max_s=config.resilience.rest_max_s,
        )
        self.prober = Prober(
            self.pool,
            enabled=config.resilience.canary_probes,
            timeout_s=config.resilience.canary_probe_timeout_s,
            loop=self._loop,
            observer=observer,
        )
        self.outliers = OutlierWatch(self.pool, outlier_settings(config), loop=self._loop)
        budget = RetryBudget(ratio=settings.retry_budget, reserve=RETRIES_AT_ONCE)
        self.metrics.show_retry_budget(lambda: budget.balance)
        self.dispatcher = Dispatcher(
            self.pool,
            picker.build(settings.balancer, rng=self._rng),
            budget=budget,
            limits=dispatch_limits(config),
            loop=self._loop,
            observer=observer,
            recovery=Transcripts(),
        )
        self.metrics.count_active(lambda: self.dispatcher.in_flight)
        self.metrics.show_fleet(self.pool, links)
        follow_fleet(
            self.reloader,
            pool=self.pool,
            dispatcher=self.dispatcher,
            prober=self.prober,
            outliers=self.outliers,
            budget=budget,
            rng=self._rng,
        )

    def _build_edge(self) -> None:
        """Who may call, how much, and who waits."""
        config, loop = self._config, self._loop
        self.keys = KeySource(config.keys, now=self._wall)
        self._log_keys()
        self.limiter = build_limiter(
            config.limits,
            loop=loop,
            wall=self._wall,
            rng=self._rng,
            observer=LimitLog(self.metrics, fail=config.limits.redis_fail),
        )
        self.metrics.show_keys(self.keys.ring.callers, self.limiter)
        room = Room(self.dispatcher, max_concurrent=config.admission.max_concurrent, factor=config.admission.factor)
        self.admission = Admission(config.admission, has_room=room.has_room, loop=loop, on_left=self.metrics.waited)
        self.pool.on_publish(self.admission.wake)
        self.metrics.count_queue(lambda: self.admission.waiting)
        self.names = ModelNames(config.models)
        self.edge = Edge(
            self.keys.ring,
            addresses=AddressLimits(config.limits, loop=loop),
            names=self.names,
            models=self._models,
            limits=config.limits,
            limiter=self.limiter,
            admission=self.admission,
        )
        follow_edge(
            self.reloader,
            keys=self.keys,
            tell_keys=self._log_keys,
            limiter=self.limiter,
            edge=self.edge,
            admission=self.admission,
            room=room,
            names=self.names,
        )

    def _build_listeners_backends(self) -> None:
        """What serves the requests of either listener, and writes down what became of them."""
        config, settings = self._config, self._config.gateway
        self.access_log = access_log(config.access_log, on_loss=self.metrics.log_lines_lost)
        self._recorder: Recorder | None = None
        if (log := self.access_log) is not None:
            self._recorder = Recorder(log.write, self.edge, wall=self._wall, loop=self._loop, prompts=log.prompts)
            self.reloader.also(log.reopen)
        self.request_ids = RequestIds(self._now_ns)
        self.bodies = BodyBudget(settings.max_bodies_bytes)
        self.in_flight = InFlight(self.recent.failed)
        self.explainer = Explainer(self.dispatcher, loop=self._loop, wall=self._wall, enabled=config.live.explain)
        self._hot = self._endpoints(config)
        self.reloader.subscribe(ENDPOINT_SETTINGS, lambda config: self._hot.update(self._endpoints(config)))
        self.grpc = GrpcEdge(
            self.dispatcher,
            self.edge,
            channel_of=lambda member: cast("LinkClient", member.channel).calls,
            bodies=self.bodies,
            metrics=self.metrics,
            settings=settings,
            resume=config.resilience.resume,
            max_calls=config.grpc.grpc_max_calls,
            in_flight=self.in_flight,
            explainer=self.explainer,
            loop=self._loop,
            recorder=self._recorder,
            tracer=self.traces.tracer,
        )
        self.reloader.subscribe(
            GRPC_SETTINGS, lambda config: self.grpc.configure(config.gateway, resume=config.resilience.resume)
        )

    def _build_apps(self) -> None:
        """The ASGI apps of the API's ports and of the ops port."""
        config, loop = self._config, self._loop
        admin_keys = AdminKeys(config.admin.admin_key)
        follow_process(self.reloader, admin_keys=admin_keys, bodies=self.bodies, traces=self.traces)
        admin = Admin(
            admin_keys,
            self.reloader,
            pool=self.pool,
            resolver=self.resolver,
            lifecycle=self.lifecycle,
            keys_loaded=lambda: len(self.keys.ring),
            describe=lambda member: describe(member, loop.time()),
        )
        ollama = ollama_routes(
            self.pool, self.edge.identify, started_at=self._wall(), aliases=lambda: self.names.aliases
        )
        routes = build_app(
            self.pool,
            self.edge.identify,
            self.lifecycle,
            hot=self._hot,
            now=loop.time,
            names=self.names,
            guard_workers=config.keys.workers_auth,
            details=self._details,
            more=[*admin.routes(), *openapi_routes(authenticated=lambda: self.keys.ring.enforced), *ollama],
        )
        others = received(
            routes,
            edge=self.edge,
            request_ids=self.request_ids,
            metrics=self.metrics,
            loop=loop,
            recorder=self._recorder,
        )
        self.front = FrontDoor(self._hot, others, immediate=lambda: self.edge.immediate)
        self.app = cors.around(self.front, config.http.cors_origins)
        self.live, seen = show(
            self.pool,
            self.in_flight,
            self.explainer,
            admin_keys,
            waiting=lambda: self.admission.waiting,
            recent=self.recent,
            registry=self.metrics.registry,
            lifecycle=self.lifecycle,
            viewers_max=config.live.live_viewers_max,
            loop=loop,
            wall=self._wall,
        )
        follow_live(self.reloader, hub=self.live, explainer=self.explainer)
        self.ops_app = ops.build_app(
            self.metrics.registry,
            health=lambda: health(self.pool, self._details()),
            ready=lambda: readiness(self.lifecycle),
            vitals=Vitals(
                self.metrics,
                pool=self.pool,
                ready=lambda: readiness(self.lifecycle)[0],
                in_flight=lambda: self.dispatcher.in_flight,
                waiting=lambda: self.admission.waiting,
                machine=Machine(now=loop.time).vitals,
                now=loop.time,
            ),
            more=seen,
        )

    def _endpoints(self, config: GatewayConfig) -> dict[str, ASGIApp]:
        """Endpoints hold their bounds: a reload puts others into their places, and a request keeps the one it met."""
        return {
            path: GenerationEndpoint(
                OPERATIONS[path],
                dialect,
                dispatcher=self.dispatcher,
                edge=self.edge,
                record=self._recorder.served if self._recorder is not None else None,
                tracer=self.traces.tracer,
                in_flight=self.in_flight,
                explainer=self.explainer,
                request_ids=self.request_ids,
                bodies=self.bodies,
                metrics=self.metrics,
                settings=config.gateway,
                resume=config.resilience.resume,
                loop=self._loop,
            )
            for path, dialect in dialects(self._models).items()
        }

    def _details(self) -> dict[str, object]:
        """What is wrong, or right, beside the workers."""
        found: dict[str, object] = {
            "queue": {"depth": self.admission.waiting},
            "authentication": {"enabled": self.keys.ring.enforced, "keys_loaded": len(self.keys.ring)},
            "config": self.reloader.status(),
        }
        if self.certificates.problem:
            found["certificates"] = {"status": "invalid", "error": self.certificates.problem}
        return found

    def _models(self) -> Container[str]:
        """The names of all models there are now."""
        return self.pool.snapshot.models
