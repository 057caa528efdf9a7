"""The worker behind the wire: one engine, its limits, and the truth about both.

Every request, whichever way it came, is counted in and out, bounded in time, and everything an engine can do wrong to
it becomes one End or one GatewayError. Nothing here knows gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from neurogate import __version__
from neurogate.channel import End, EndCode
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.engines.engine import (
    Engine,
    EngineBrokenError,
    EngineError,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
    Observation,
)
from neurogate.errors import (
    BadRequestError,
    BusyError,
    EngineFailedError,
    GatewayError,
    ModelNotFoundError,
    NoWorkerError,
    StreamBrokenError,
    UnsupportedError,
)
from neurogate.inference import GenerationEvent, Prompt, Token
from neurogate.prompt_api import MAX_TOKENS
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.telemetry import tracing
from neurogate.telemetry.tracing import SpanOf
from neurogate.worker.forwarding import forward
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.progress import Progress
from neurogate.worker.prompting import answer_prompt

_log = structlog.get_logger("neurogate.worker")

_OBSERVE_TIMEOUT_S = 2.5
_BUSY_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of one worker."""

    max_requests: int
    """Requests held at once; more are refused as busy."""


class Worker:
    """A `WorkerBackend` over one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        name: str = "",
        limits: WorkerLimits,
        metrics: WorkerMetrics,
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[], None],
        span_of: SpanOf = tracing.off,
    ) -> None:
        self.name = name
        """What the worker is called in its reports; its address, unless it was given a name."""
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._loop = loop
        self._on_change = on_change
        self._span_of = span_of
        self._meter = Meter()
        self._observation = Observation(ready=False, detail="the engine is starting")
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._seq = 0
        self._started_at = loop.time()

    @property
    def active(self) -> int:
        """Requests held now."""
        return self._meter.active

    @property
    def ready(self) -> bool:
        """Whether a request would be taken."""
        return self._observation.ready and not self._draining

    def drain(self) -> None:
        """Take nothing new; what is held goes on."""
        self._draining = True
        self._on_change()

    async def idle(self) -> None:
        """Wait until nothing is held."""
        await self._idle.wait()

    async def observe(self, interval_s: float) -> None:
        """Ask the engine how it is, for ever; a change is told at once."""
        while True:
            self.take_observation(await self._observe_once())
            await asyncio.sleep(interval_s)

    def take_observation(self, observation: Observation) -> None:
        """Store what the engine said of itself."""
        before, self._observation = self._observation, observation
        self._meter.tick(self._loop.time())
        self._export(observation)
        if (before.ready, before.models) != (observation.ready, observation.models):
            _log.info(
                "engine ready" if observation.ready else "engine not ready",
                engine=self._engine.kind,
                detail=observation.detail,
                models=[model.name for model in observation.models],
            )
            self._on_change()

    def report(self) -> WorkerReport:
        """How the worker is, now."""
        self._seq += 1
        seen, meter = self._observation, self._meter
        busy = seen.slots_busy if seen.slots_busy is not None else min(meter.active, seen.slots_total)
        return WorkerReport(
            worker_id=self.name,
            version=__version__,
            ready=self.ready,
            draining=self._draining,
            detail=seen.detail,
            engine_kind=self._engine.kind,
            engine_version=seen.version,
            engine_restarts=seen.restarts,
            models=tuple(ServedModel(model.name, model.loaded, model.context_length) for model in seen.models),
            slots_total=seen.slots_total,
            slots_busy=busy,
            running=min(meter.active, seen.slots_total),
            queued=max(0, meter.active - seen.slots_total),
            tokens_outstanding=meter.tokens_outstanding,
            kv_used_ratio=seen.kv_used_ratio,
            decode_tokens_per_s=meter.decode_tokens_per_s,
            prompt_tokens_per_s=meter.prompt_tokens_per_s,
            requests_total=meter.requests_total,
            prompt_tokens_total=meter.prompt_tokens_total,
            completion_tokens_total=meter.completion_tokens_total,
            uptime_s=self._loop.time() - self._started_at,
            seq=self._seq,
        )

    async def answer(self, call: IncomingCall, outlet: Outlet) -> End:
        """Answer one call of a link."""
        with self._span_of(call.path, call.traceparent, call.request_id) as ended:
            end = await self._answer(call, outlet)
            ended(end.code.name.lower())
            return end

    async def _answer(self, call: IncomingCall, outlet: Outlet) -> End:
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        progress = self._begin()
        end = End(EndCode.CANCELLED)
        try:
            async with asyncio.timeout(call.timeout_s) as time_left:
                end = await self._respond(call, outlet, progress)
        except EngineError as error:
            end = _end_for(error)
        except Exception as error:  # noqa: BLE001 - one request's bug must not end the link that carries all others
            if isinstance(error, TimeoutError) and time_left.expired():
                end = End(EndCode.DEADLINE, message="the request's time ran out")
            else:
                _log.exception("request failed in the worker", request_id=call.request_id)
                end = End(EndCode.INTERNAL, message=f"{type(error).__name__} in the worker")
        finally:
            self._end(progress, end)
        return end

    async def generate(self, prompt: Prompt, request_id: str) -> AsyncGenerator[GenerationEvent, None]:
        """Generate for callers without a link."""
        _check(prompt)
        refusal = self._refusal()
        if refusal is not None:
            raise _error_for_refusal(refusal)
        progress = self._begin(prompt.max_tokens)
        end = End(EndCode.CANCELLED)
        started = False
        try:
            async with aclosing(self._engine.generate(prompt)) as events:
                async for event in events:
                    if isinstance(event, Token):
                        started = True
                        progress.tokens(1)
                    else:
                        end = End(http_status=200, usage=event.usage, finish_reason=event.finish_reason)
                    yield event
        except EngineError as error:
            end = _end_for(error)
            _log.warning("generation failed", request_id=request_id, error=str(error))
            raise _error_for(error, started=started) from error
        finally:
            self._end(progress, end)

    async def _respond(self, call: IncomingCall, outlet: Outlet, progress: Progress) -> End:
        if call.path == "/prompt":
            return await answer_prompt(self._engine, call, outlet, progress)
        return await forward(self._engine, call, outlet, progress)

    def _begin(self, max_tokens: int | None = None) -> Progress:
        self._idle.clear()
        models = self._observation.models
        of_model = self._metrics.of_model(models[0].name if models else "")
        return Progress(self._meter.begin(max_tokens), of_model, loop=self._loop)

    def _end(self, progress: Progress, end: End) -> None:
        progress.finish(end)
        if not self._meter.active:
            self._idle.set()

    def _refusal(self) -> End | None:
        if self._draining:
            return End(EndCode.CANCELLED, message="the worker drains")  # handed back: says nothing bad about it
        if not self._observation.ready:
            return End(EndCode.UNAVAILABLE, message=self._observation.detail)
        if self._meter.active >= self._limits.max_requests:
            held = f"the worker holds {self._meter.active} requests already (NEUROGATE_WORKER_MAX_REQUESTS)"
            return End(EndCode.BUSY, retry_after_s=_BUSY_RETRY_S, message=held)
        return None

    async def _observe_once(self) -> Observation:
        try:
            async with asyncio.timeout(_OBSERVE_TIMEOUT_S):
                return await self._engine.observe()
        except TimeoutError:
            return Observation(ready=False, detail="the engine does not answer")

    def _export(self, seen: Observation) -> None:
        metrics, meter = self._metrics, self._meter
        metrics.engine_connected.set(seen.ready)
        metrics.engine_restarts.set(seen.restarts)
        metrics.load.set(meter.active / max(1, seen.slots_total))
        metrics.active_inferences.set(meter.active)
        for model in seen.models[:1]:
            metrics.tokens_per_second.labels(model.name).set(meter.decode_tokens_per_s)


def _check(prompt: Prompt) -> None:
    """What `/prompt` has checked by its schema. Raises BadRequestError."""
    if not prompt.text:
        raise BadRequestError("prompt: must not be empty", param="prompt")
    if prompt.max_tokens is not None and not 1 <= prompt.max_tokens <= MAX_TOKENS:
        raise BadRequestError(f"max_tokens: must be from 1 to {MAX_TOKENS}", param="max_tokens")
    if prompt.temperature is not None and not 0 <= prompt.temperature <= 2:
        raise BadRequestError("temperature: must be from 0 to 2", param="temperature")


def _end_for(error: EngineError) -> End:
    told = str(error)
    match error:
        case EngineUnavailableError():
            return End(EndCode.UNAVAILABLE, message=told)
        case EngineRefusedError():
            return End(http_status=error.status, retry_after_s=error.retry_after_s, message=told)
        case EngineUnsupportedError():
            return End(EndCode.UNSUPPORTED, message=told)
        case _:
            return End(EndCode.BROKEN, message=told)


def _error_for(error: EngineError, *, started: bool) -> GatewayError:
    told = str(error)
    match error:
        case EngineRefusedError():
            return _error_for_status(error)
        case EngineUnavailableError():
            return NoWorkerError(told)
        case EngineUnsupportedError():
            return UnsupportedError(told)
        case EngineBrokenError() if started:
            return StreamBrokenError(told)
        case _:
            return EngineFailedError(told)


def _error_for_status(error: EngineRefusedError) -> GatewayError:
    told, status = str(error), error.status
    if status == 404:
        return ModelNotFoundError(told)
    if status == 429 or (status == 503 and error.retry_after_s is not None):
        return BusyError(told, retry_after_s=error.retry_after_s)
    if status < 500:
        return BadRequestError(told)
    return NoWorkerError(told) if status == 503 else EngineFailedError(told)


def _error_for_refusal(refusal: End) -> GatewayError:
    kind = BusyError if refusal.code is EndCode.BUSY else NoWorkerError
    return kind(refusal.message, retry_after_s=refusal.retry_after_s)
