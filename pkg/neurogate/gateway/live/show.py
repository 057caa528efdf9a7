"""What shows one gateway's fleet and its requests, put together: who looks, and the routes on the ops port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from starlette.routing import Route

from neurogate.dataplane.pool import EndpointPool
from neurogate.edge.admin_keys import AdminKeys
from neurogate.gateway.explain import Explainer
from neurogate.gateway.in_flight import InFlight
from neurogate.gateway.lifecycle import Lifecycle
from neurogate.gateway.live.camera import Camera
from neurogate.gateway.live.debug import debug_routes
from neurogate.gateway.live.first_tokens import FirstTokens
from neurogate.gateway.live.hub import Hub
from neurogate.gateway.live.recent import Recent
from neurogate.gateway.live.routes import as_event, live_routes
from neurogate.gateway.routes import readiness
from neurogate.telemetry.catalog import GATEWAY_FIRST_BYTE


def show(
    pool: EndpointPool,
    in_flight: InFlight,
    explainer: Explainer,
    keys: AdminKeys,
    *,
    waiting: Callable[[], int],
    recent: Recent,
    registry: CollectorRegistry,
    lifecycle: Lifecycle,
    viewers_max: int,
    loop: asyncio.AbstractEventLoop,
    wall: Callable[[], float],
) -> tuple[Hub, list[Route]]:
    """The live page, which is shown while the hub runs, and /debug/requests, both behind `keys`.

    `waiting` tells how many requests wait for their turn, `wall` seconds since 1970; `registry` has the metrics.
    """
    camera = Camera(
        gateway=socket.gethostname(),
        pool=pool,
        in_flight=in_flight,
        waiting=waiting,
        recent=recent,
        first_tokens=FirstTokens(registry, GATEWAY_FIRST_BYTE.name),
        readiness=lambda: (readiness(lifecycle)[0], lifecycle.draining),
        loop=loop,
        wall=wall,
    )
    hub = Hub(lambda: as_event(camera), viewers_max=viewers_max)
    return hub, [*live_routes(hub, camera, keys), *debug_routes(in_flight, explainer, keys, loop=loop)]
