"""What in a gateway follows which settings while it runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from neurogate.balancing import picker
from neurogate.config import settings_of
from neurogate.dataplane.dispatch import Dispatcher, DispatchLimits
from neurogate.dataplane.outlier_watch import OutlierWatch
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.prober import Prober
from neurogate.dataplane.room import Room
from neurogate.discovery.following import Following
from neurogate.discovery.listed import ListedResolver
from neurogate.discovery.resolver import SourceObserver
from neurogate.discovery.sources import dynamic
from neurogate.edge.address_limits import AddressLimits
from neurogate.edge.admin_keys import AdminKeys
from neurogate.edge.admission import Admission
from neurogate.edge.key_source import KeySource
from neurogate.edge.limiter import defaults
from neurogate.edge.limits import Limiter
from neurogate.gateway.discovery import Resolvers, check, static_addresses
from neurogate.gateway.edge import Edge
from neurogate.gateway.explain import Explainer
from neurogate.gateway.intake import BodyBudget
from neurogate.gateway.live.hub import Hub
from neurogate.gateway.model_names import ModelNames
from neurogate.gateway.reload import Reloader
from neurogate.gateway.settings import GatewayConfig
from neurogate.resilience.breaker import BreakerSettings
from neurogate.resilience.outliers import OutlierSettings
from neurogate.resilience.retry import RetryBudget
from neurogate.telemetry import logging
from neurogate.telemetry.masking import secrets_of
from neurogate.telemetry.traces import Traces

_REQUEST_SETTINGS = tuple(
    f"gateway.{name}" for name in ("max_body_bytes", "body_timeout_s", "request_timeout_s", "stream_buffer_bytes")
)

ENDPOINT_SETTINGS = (*_REQUEST_SETTINGS, "resilience.resume")
"""What a hot endpoint is built with."""

GRPC_SETTINGS = (*ENDPOINT_SETTINGS, "gateway.retries", "gateway.failfast_s")
"""What the gRPC edge reads."""


_RESILIENCE_LIMITS = (
    "resume_attempts",
    "resume_wait_s",
    "resume_buffer_bytes",
    "hedge_after_s",
    "hedge_share",
    "stall_s",
)


_BREAKER_BOUNDS = (
    "breaker_window_s",
    "breaker_failure_rate",
    "breaker_min_calls",
    "breaker_slow_s",
    "breaker_slow_rate",
    "breaker_slow_min_calls",
    "breaker_probe_s",
)


_OUTLIER_BOUNDS = ("factor", "max_ejected", "min_requests", "out_s")


def dispatch_limits(config: GatewayConfig) -> DispatchLimits:
    """The dispatcher's bounds."""
    settings, resilience = config.gateway, config.resilience
    return DispatchLimits(
        retries=settings.retries,
        failfast_s=settings.failfast_s,
        max_waiting=settings.max_waiting,
        max_answer_bytes=settings.max_answer_bytes,
        resume_attempts=resilience.resume_attempts,
        resume_wait_s=resilience.resume_wait_s,
        resume_buffer_bytes=resilience.resume_buffer_bytes,
        hedge_after_s=resilience.hedge_after_s,
        hedge_share=resilience.hedge_share,
        stall_s=resilience.stall_s,
    )


def breaker_settings(config: GatewayConfig) -> BreakerSettings:
    """Every breaker's bounds."""
    settings, resilience = config.gateway, config.resilience
    return BreakerSettings(
        settings.breaker_failures,
        settings.breaker_reset_s,
        window_s=resilience.breaker_window_s,
        failure_rate=resilience.breaker_failure_rate,
        min_calls=resilience.breaker_min_calls,
        slow_s=resilience.breaker_slow_s,
        slow_rate=resilience.breaker_slow_rate,
        slow_min_calls=resilience.breaker_slow_min_calls,
        probe_s=resilience.breaker_probe_s,
    )


def outlier_settings(config: GatewayConfig) -> OutlierSettings:
    """When a worker is much worse than its peers, and what follows."""
    resilience = config.resilience
    return OutlierSettings(
        enabled=resilience.outliers,
        factor=resilience.outlier_factor,
        max_ejected=resilience.outlier_max_ejected,
        requests_min=resilience.outlier_min_requests,
        base_s=resilience.outlier_out_s,
    )


def follow_discovery(
    reloader: Reloader,
    *,
    resolver: ListedResolver,
    discovery: Following,
    observer: SourceObserver,
    loop: asyncio.AbstractEventLoop,
    rng: random.Random,
) -> None:
    """Where workers come from."""

    def take_sources(config: GatewayConfig) -> None:
        maker = Resolvers(config.discovery, observer=observer, loop=loop, rng=rng)
        discovery.configure(maker, dynamic(config.discovery.sources))

    reloader.subscribe(
        ["gateway.worker_addresses", "discovery.sources"], lambda config: resolver.configure(static_addresses(config))
    )
    reloader.subscribe(["discovery"], take_sources, check=lambda config: check(config.discovery))


def follow_fleet(
    reloader: Reloader,
    *,
    pool: EndpointPool,
    dispatcher: Dispatcher,
    prober: Prober,
    outliers: OutlierWatch,
    budget: RetryBudget,
    rng: random.Random,
) -> None:
    """Workers, and how they are picked, tried and judged."""

    def take_limits(config: GatewayConfig) -> None:
        dispatcher.configure(dispatch_limits(config))
        budget.configure(ratio=config.gateway.retry_budget)

    def take_leave(config: GatewayConfig) -> None:
        pool.leave_s = config.gateway.drain_timeout_s

    def take_rest(config: GatewayConfig) -> None:
        pool.rest_max_s = config.resilience.rest_max_s

    def take_probes(config: GatewayConfig) -> None:
        resilience = config.resilience
        prober.configure(enabled=resilience.canary_probes, timeout_s=resilience.canary_probe_timeout_s)

    reloader.subscribe(
        ["gateway.balancer"], lambda config: dispatcher.use(picker.build(config.gateway.balancer, rng=rng))
    )
    reloader.subscribe(
        [
            *(
                f"gateway.{name}"
                for name in ("retries", "retry_budget", "failfast_s", "max_waiting", "max_answer_bytes")
            ),
            *(f"resilience.{name}" for name in _RESILIENCE_LIMITS),
        ],
        take_limits,
    )
    reloader.subscribe(
        ["gateway.breaker_failures", "gateway.breaker_reset_s", *(f"resilience.{name}" for name in _BREAKER_BOUNDS)],
        lambda config: pool.configure(breaker_settings(config)),
    )
    reloader.subscribe(["gateway.drain_timeout_s"], take_leave)
    reloader.subscribe(
        ["resilience.outliers", *(f"resilience.outlier_{name}" for name in _OUTLIER_BOUNDS)],
        lambda config: outliers.configure(outlier_settings(config)),
    )
    reloader.subscribe(["resilience.rest_max_s"], take_rest)
    reloader.subscribe(["resilience.canary_probes", "resilience.canary_probe_timeout_s"], take_probes)


def follow_edge(
    reloader: Reloader,
    *,
    keys: KeySource,
    tell_keys: Callable[[], None],
    limiter: Limiter,
    edge: Edge,
    admission: Admission,
    room: Room,
    names: ModelNames,
) -> None:
    """Who may call, how much, and who waits; `tell_keys` is called when the keys were read again."""

    async def stage_keys(config: GatewayConfig) -> Callable[[], None]:
        put_in_force = await keys.stage(config.keys)

        def take_keys() -> None:
            put_in_force()
            tell_keys()

        return take_keys

    def check_models(config: GatewayConfig) -> None:
        ModelNames(config.models)

    def check_limits(config: GatewayConfig) -> None:
        AddressLimits(config.limits, loop=asyncio.get_running_loop())

    def take_limits(config: GatewayConfig) -> None:
        limiter.reload(defaults(config.limits))
        edge.configure(config.limits)

    def take_admission(config: GatewayConfig) -> None:
        room.configure(max_concurrent=config.admission.max_concurrent, factor=config.admission.factor)
        admission.configure(config.admission)

    reloader.subscribe_file(["keys"], stage_keys, problem=lambda: keys.loaded.error)
    reloader.subscribe(["limits"], take_limits, check=check_limits)
    reloader.subscribe(["admission"], take_admission)
    reloader.subscribe(["models"], lambda config: names.configure(config.models), check=check_models)


def follow_live(reloader: Reloader, *, hub: Hub, explainer: Explainer) -> None:
    """Who may look, and ask why. Who looks was let in with a key that may be none any more, or with none."""
    reloader.subscribe(["admin.admin_key"], lambda _: hub.send_away())
    reloader.subscribe(
        ["live.live_viewers_max"], lambda config: hub.configure(viewers_max=config.live.live_viewers_max)
    )
    reloader.subscribe(["live.explain"], lambda config: explainer.configure(enabled=config.live.explain))


def follow_process(reloader: Reloader, *, admin_keys: AdminKeys, bodies: BodyBudget, traces: Traces) -> None:
    """What concerns the process as a whole."""
    reloader.subscribe(["tracing.ratio"], lambda config: traces.configure(config.tracing))
    reloader.subscribe(["gateway.max_bodies_bytes"], lambda config: bodies.configure(config.gateway.max_bodies_bytes))
    reloader.subscribe(
        [setting.key for setting in settings_of(GatewayConfig).values() if setting.secret and setting.reloads],
        lambda config: logging.know_secrets(secrets_of(config)),
    )
    reloader.subscribe(["gateway.log_level"], lambda config: logging.set_level(config.gateway.log_level))
    reloader.subscribe(["admin.admin_key"], lambda config: admin_keys.configure(config.admin.admin_key))
