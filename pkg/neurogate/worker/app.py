"""The worker's composition root: engine, backend, listeners, and the order in which they come and go."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import structlog
from prometheus_client import disable_created_metrics

from neurogate import __version__
from neurogate.engines import factory
from neurogate.engines.engine import Engine, EngineFatalError
from neurogate.errors import ConfigError
from neurogate.httpd import HttpServer
from neurogate.process import on_hangup, run, was_terminated
from neurogate.rpc.link_server import LinkServerSettings
from neurogate.rpc.worker_service import GenerationLimits, WorkerServer
from neurogate.telemetry import logging, ops
from neurogate.telemetry.certificates import CertificateMetrics
from neurogate.telemetry.log_files import EngineLog, boot_log, engine_log
from neurogate.telemetry.machine import Machine
from neurogate.telemetry.masking import secrets_of
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.telemetry.process_metrics import LogLines, ProcessMetrics
from neurogate.telemetry.settings import TraceSettings
from neurogate.telemetry.traces import Traces
from neurogate.tls.live import LiveTls
from neurogate.tls.settings import LinkTlsSettings
from neurogate.worker.backend import Worker, WorkerLimits
from neurogate.worker.checks import link_side
from neurogate.worker.draining import Draining
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.ops_admin import admin_routes
from neurogate.worker.outside_metrics import OutsideMetrics
from neurogate.worker.settings import WorkerConfig, WorkerSettings
from neurogate.worker.vigil import WatchSettings
from neurogate.worker.vitals import vitals

_log = structlog.get_logger("neurogate.worker")


def main(config: WorkerConfig) -> int:
    """Run a worker until SIGTERM or SIGINT. Returns the process's exit code."""
    settings = config.worker
    host = socket.gethostname()
    with ExitStack() as files:
        copy = files.enter_context(boot_log(config.logs, host=host, now=time.time))  # noqa: TID251 - the composition root
        lines = LogLines()
        level, form, secrets = settings.log_level, settings.log_format, secrets_of(config)
        logging.configure(level=level, form=form, process="worker", copy=copy, count=lines, secrets=secrets)
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def log_of(model: str) -> EngineLog | None:
            kind = settings.worker_type or model
            return files.enter_context(engine_log(config.logs, kind=kind, host=host, now=time.time))  # noqa: TID251

        return run(
            lambda stopping: serve(
                settings,
                _build_engine(config, log_of),
                stopping,
                tls=config.link_tls,
                tracing=config.tracing,
                metric_settings=config.metrics,
                log_lines=lines,
            )
        )


async def serve(
    settings: WorkerSettings,
    engine: Engine,
    stopping: asyncio.Event,
    *,
    tls: LinkTlsSettings | None = None,
    tracing: TraceSettings | None = None,
    on_ports: Callable[[int, int], None] = lambda _grpc, _ops: None,
    metric_settings: MetricSettings | None = None,
    log_lines: LogLines | None = None,
) -> None:
    """Serve one engine until `stopping` is set, then drain. `on_ports` hears the gRPC and the ops port.

    Raises ConfigError when the engine can never start as configured or a certificate cannot be used, OSError when a
    port is taken.
    """
    loop = asyncio.get_running_loop()
    metrics = WorkerMetrics(metric_settings or MetricSettings(), process=ProcessMetrics("worker", log_lines))
    certificates = _certificates(tls or LinkTlsSettings(), metrics)
    changed = asyncio.Event()
    traces = _traces(tracing or TraceSettings(), metrics)
    worker = Worker(
        engine,
        limits=WorkerLimits(max_requests=settings.max_requests, max_answer_bytes=settings.max_answer_bytes),
        metrics=metrics,
        loop=loop,
        now=time.time,  # noqa: TID251 - the composition root
        on_change=changed.set,
        tracer=traces.tracer,
        watch=WatchSettings(
            canary_interval_s=settings.canary_interval_s,
            canary_timeout_s=settings.canary_timeout_s,
            stall_prefill_s=settings.stall_prefill_s,
            stall_decode_s=settings.stall_decode_s,
        ),
    )
    server = WorkerServer(
        worker,
        LinkServerSettings(
            outbox_bytes=settings.outbox_bytes,
            linger_s=settings.linger_ms / 1000,
            stats_interval_s=settings.stats_interval_s,
            max_body_bytes=settings.max_body_bytes,
        ),
        max_message_bytes=settings.grpc_max_message_bytes,
        limits=GenerationLimits(settings.request_timeout_s, settings.max_answer_bytes),
    )
    draining = Draining(worker, server.servicer)
    metrics.count_links(lambda: server.servicer.sessions)
    outside = OutsideMetrics(engine, worker, metrics, loop=loop)
    machine = Machine(now=loop.time)
    http = HttpServer(
        ops.build_app(
            metrics.registry,
            health=lambda: (True, _state(worker)),
            ready=lambda: (worker.ready, _state(worker)),
            vitals=lambda: vitals(
                worker.report(),
                active=worker.active,
                failed=metrics.failed_total(),
                links=server.servicer.sessions,
                machine=machine.vitals(),
            ),
            refresh=outside.refresh,
            more=admin_routes(settings.admin_key, draining, grace_s=settings.drain_delay_s),
        ),
        name="METRICS_PORT",
        host=settings.host,
        port=settings.metrics_port,
    )
    hangup = ExitStack()  # from the start: loading a model takes minutes
    hangup.enter_context(on_hangup(_nothing_to_read if certificates is None else certificates.ask))
    traces.start()
    try:
        await engine.start()
        async with asyncio.TaskGroup() as tasks:
            credentials = None if certificates is None else certificates.server_credentials()
            grpc_port = await server.start(f"{settings.host}:{settings.grpc_port}", credentials)
            worker.name = settings.worker_id or f"{socket.gethostname()}:{grpc_port}"
            ops_port = await http.start(tasks)
            background = [
                tasks.create_task(engine.run(), name="engine"),
                tasks.create_task(worker.observe(settings.stats_interval_s), name="observe"),
                tasks.create_task(worker.watch(), name="watch"),
                tasks.create_task(metrics.process.watch_loop(loop.time), name="loop-lag"),
                tasks.create_task(_tell_changes(worker, server, changed), name="tell-changes"),
            ]
            if certificates is not None:
                background.append(tasks.create_task(certificates.watch(), name="certificates"))
            _log.info("worker listens", grpc_port=grpc_port, ops_port=ops_port, engine=engine.kind, version=__version__)
            on_ports(grpc_port, ops_port)
            await stopping.wait()
            _log.info("draining", requests=worker.active, timeout_s=settings.drain_timeout_s)
            await draining.drain(grace_s=settings.drain_delay_s if was_terminated(stopping) else 0.0)
            await _finish(worker, server, settings.drain_timeout_s)
            for task in background:
                task.cancel()
            await http.stop(1)
    except* EngineFatalError as group:
        raise ConfigError(str(group.exceptions[0])) from group
    finally:
        await server.stop(0)
        await engine.stop()
        outside.close()
        hangup.close()
        await asyncio.to_thread(traces.close)
        _log.info("worker stopped")


def _traces(settings: TraceSettings, metrics: WorkerMetrics) -> Traces:
    return Traces(
        settings,
        service="neurogate-worker",
        instance=f"{socket.gethostname()}:{os.getpid()}",
        on_loss=metrics.process.spans_lost,
        rng=random.Random(),  # noqa: S311 - ids and chance, no secrets
        now=asyncio.get_running_loop().time,
        wall_ns=time.time_ns,  # noqa: TID251 - the composition root
    )


def _certificates(settings: LinkTlsSettings, metrics: WorkerMetrics) -> LiveTls | None:
    files = link_side(settings)
    if files is None:
        return None
    return LiveTls(files, now=time.time, observer=CertificateMetrics(metrics.registry))  # noqa: TID251 - the composition root


async def _tell_changes(worker: Worker, server: WorkerServer, changed: asyncio.Event) -> None:
    """A change of readiness reaches gateways and health checks at once, not with the next report."""
    while True:
        await server.set_serving(serving=worker.ready)
        await changed.wait()
        changed.clear()
        server.servicer.refresh()


def _nothing_to_read() -> None:
    _log.info("SIGHUP is ignored: there are no certificates to read again")


async def _finish(worker: Worker, server: WorkerServer, timeout_s: float) -> None:
    """Wait for what is held; then the links may end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await worker.idle()
            await server.servicer.flushed()
    if worker.active:
        _log.warning("requests cut by the end of the drain", requests=worker.active)


def _state(worker: Worker) -> dict[str, object]:
    """What health and readiness tell. Whoever restarts workers asks for health: one that loads or drains is alive."""
    report = worker.report()
    return {
        "status": "draining" if report.draining else "healthy" if report.ready else "unhealthy",
        "detail": report.detail,
        "last_words": report.last_words,
        "worker_id": report.worker_id,
        "version": report.version,
        "engine": {"kind": report.engine_kind, "version": report.engine_version},
        "canary": worker.canary.told(),
        "active_requests": report.running + report.queued,
    }


def _build_engine(config: WorkerConfig, log_of: Callable[[str], EngineLog | None]) -> Engine:
    def resolve_model(name: str) -> tuple[str, Path]:
        from neurogate.models.store import ModelStore

        return ModelStore(config.models.directory).resolve(name)

    def mend_model(path: Path, stop: threading.Event) -> str:
        from neurogate.models.store import ModelStore

        return ModelStore(config.models.directory).mend(path, stop=stop)

    return factory.build(
        config.engine,
        config.sim,
        resolve_model=resolve_model,
        rng=random.Random(),  # noqa: S311 - chance, no secrets
        now=time.time,  # noqa: TID251 - the composition root
        log_of=log_of,
        mend_model=mend_model,
    )
