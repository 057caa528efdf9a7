"""The gateway's composition root: a gateway, its listeners, and the order in which they come and go."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import structlog
from prometheus_client import disable_created_metrics

from neurogate import __version__
from neurogate.config import Effective
from neurogate.gateway import takeover
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.handover import Offer
from neurogate.gateway.leaving import Listening, leave
from neurogate.gateway.listeners import api_limits, follow_cors, follow_http
from neurogate.gateway.private_listeners import PrivateListeners
from neurogate.gateway.public_listeners import PublicListeners
from neurogate.gateway.settings import GatewayConfig
from neurogate.httpd import descriptors
from neurogate.process import on_hangup, run, run_until, was_terminated
from neurogate.telemetry import logging
from neurogate.telemetry.log_files import boot_log
from neurogate.telemetry.masking import secrets_of
from neurogate.telemetry.process_metrics import LogLines

_log = structlog.get_logger("neurogate.gateway")

_DISCOVERY_S = 2.0
"""How long a start waits for the sources of workers."""


def main(effective: Effective[GatewayConfig]) -> int:
    """Run a gateway until SIGTERM or SIGINT. Returns the process's exit code."""
    config = effective.config
    disable_created_metrics()  # type: ignore[no-untyped-call]
    lines = LogLines()
    with boot_log(config.logs, host=socket.gethostname(), now=time.time) as copy:  # noqa: TID251 - the composition root
        level, form = config.gateway.log_level, config.gateway.log_format
        logging.configure(level=level, form=form, process="gateway", copy=copy, count=lines, secrets=secrets_of(config))
        return run(lambda stopping: serve(config, stopping, effective=effective, log_lines=lines))


async def serve(
    config: GatewayConfig,
    stopping: asyncio.Event,
    *,
    on_ports: Callable[[int, int], None] = lambda _http, _ops: None,
    effective: Effective[GatewayConfig] | None = None,
    log_lines: LogLines | None = None,
) -> None:
    """Serve until `stopping` is set or another gateway has taken over, then drain.

    `on_ports` hears the HTTP and the ops port.

    `effective` is `config` with where it comes from, so that it can be reloaded.

    Raises ConfigError for settings that cannot work, OSError when a port is taken or cannot be taken over.
    """
    settings = config.gateway
    path = takeover.place(settings.takeover_socket)
    gateway = Gateway(
        config,
        rng=random.Random(),  # noqa: S311 - chance, no secrets
        now_ns=time.time_ns,  # noqa: TID251 - the composition root
        effective=effective,
        log_lines=log_lines,
    )
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
    private = PrivateListeners(config, gateway.ops_app, gateway.live)
    gateway.lifecycle.follow(public.set_draining)
    before = await takeover.find(path) if path is not None else None
    taken = asyncio.Event()
    with ExitStack() as held, on_hangup(gateway.reloader.ask):
        offer = Offer()
        if before is not None:
            held.callback(before.close)
            offer = before.offer
        async with asyncio.TaskGroup() as tasks:
            background = _follow_files(gateway, tasks)
            serving = [*_follow_fleet(gateway, tasks), _watch_loop(gateway, tasks)]
            await _open_books(gateway)
            await _know_fleet(gateway)
            if before is not None:
                await run_until(stopping, takeover.as_usable(gateway.pool, offer.usable), name="links")
                if stopping.is_set():  # the one that runs goes on
                    await _give_up(gateway, [*background, *serving])
                    return
            private_ports = await private.start(tasks, offer)
            ports = await public.start(tasks, offer)
            gateway.lifecycle.ready = True
            if path is not None:
                owner = takeover.Owner(path, lambda: _offer(gateway, public, private), on_taken=taken.set)
                held.callback(owner.close)
                owner.claim()
                background.append(tasks.create_task(owner.run(), name="takeover"))
            if before is not None:
                await before.drain()
                before.close()
                _log.info("took over", pid=offer.pid, version=offer.version)
            _log.info("gateway listens", **ports, **private_ports, version=__version__)
            on_ports(ports["http_port"], private_ports["ops_port"])
            await _either(stopping, taken)
            _cancel(background)
            _log.info("draining", requests=gateway.dispatcher.in_flight, taken_over=taken.is_set())
            leaving: list[Listening] = [public, private] if taken.is_set() else [public]
            await _drain(gateway, leaving, serving, delay_s=settings.drain_delay_s if was_terminated(stopping) else 0.0)
            await private.stop(1)
    _log.info("gateway stopped")


def _watch_loop(gateway: Gateway, tasks: asyncio.TaskGroup) -> asyncio.Task[None]:
    """How late the event loop is."""
    return tasks.create_task(gateway.metrics.process.watch_loop(asyncio.get_running_loop().time), name="loop-lag")


def _offer(gateway: Gateway, public: PublicListeners, private: PrivateListeners) -> Offer:
    """What a gateway that takes over gets."""
    usable = sum(member.usable for member in gateway.pool.snapshot.members)
    return Offer(os.getpid(), __version__, usable, {**public.sockets, **private.sockets}, public.grpc_ports)


def _follow_files(gateway: Gateway, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """What reads files again when they change."""
    return [
        tasks.create_task(gateway.reloader.run(), name="reload"),
        tasks.create_task(gateway.keys.watch(lambda _: gateway.tell_keys()), name="keys"),
        tasks.create_task(gateway.certificates.watch(), name="certificates"),
    ]


def _follow_fleet(gateway: Gateway, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """What looks who the workers are, and how well they do: needed while there are requests, also when draining."""
    return [
        tasks.create_task(gateway.pool.run(gateway.resolver), name="pool"),
        tasks.create_task(gateway.discovery.run(), name="discovery"),
        tasks.create_task(gateway.outliers.run(), name="outliers"),
    ]


async def _know_fleet(gateway: Gateway) -> None:
    """Wait until the workers are known; sources that do not answer are not waited for long."""
    await gateway.discovery.heard(_DISCOVERY_S)
    await gateway.pool.resolved()


async def _open_books(gateway: Gateway) -> None:
    """Where requests are counted and written down."""
    gateway.traces.start()
    await gateway.limiter.start()
    if gateway.access_log is not None:
        gateway.access_log.start()


async def _drain(
    gateway: Gateway,
    listeners: list[Listening],
    serving: list[asyncio.Task[None]],
    *,
    delay_s: float,
) -> None:
    """Let what is under way end, and then what served it; whatever happens, the books are closed."""
    try:
        grace_s = gateway.reloader.config.gateway.drain_timeout_s
        await leave(gateway.lifecycle, listeners, delay_s=delay_s, grace_s=grace_s)
    finally:
        _cancel(serving)
        await _close_books(gateway)


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


async def _give_up(gateway: Gateway, tasks: list[asyncio.Task[None]]) -> None:
    """End before anything was served."""
    _cancel(tasks)
    await _close_books(gateway)
    _log.info("stopped before it took over")


async def _close_books(gateway: Gateway) -> None:
    await gateway.limiter.close()
    await asyncio.to_thread(gateway.traces.close)
    if gateway.access_log is not None:
        await asyncio.to_thread(gateway.access_log.close)


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(event.wait(), name="stop or takeover") for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
