"""The worker behind the wire: one engine, its limits, and the truth about both.

Every request, whichever way it came, is counted in and out, bounded in time, and everything an engine can do wrong to
it becomes one End or one GatewayError (refusals.py). Nothing here knows gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from neurogate.channel import End, EndCode
from neurogate.endpoint import WorkerReport
from neurogate.engines.engine import (
    MAX_ANSWER_BYTES,
    Engine,
    EngineBrokenError,
    EngineError,
    EngineUnavailableError,
    Observation,
)
from neurogate.errors import BadRequestError
from neurogate.inference import GenerationEvent, Prompt, Token
from neurogate.model_names import known_as
from neurogate.operations import CANARY_PATH
from neurogate.prompt_api import MAX_TOKENS
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.telemetry.concern import concern
from neurogate.telemetry.tracing import Tracer
from neurogate.worker.asked import asked
from neurogate.worker.bound import Bound
from neurogate.worker.call_trace import CallTrace
from neurogate.worker.canary import PAUSE_S, Canary
from neurogate.worker.features import ignored_feature
from neurogate.worker.forwarding import forward
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.ollama_api.api import PATHS as OLLAMA_PATHS
from neurogate.worker.ollama_api.api import OllamaApi
from neurogate.worker.progress import Progress
from neurogate.worker.prompting import answer_prompt
from neurogate.worker.refusals import end_for, error_for, error_for_refusal
from neurogate.worker.reporting import DETAIL_CHARS_MAX, reported
from neurogate.worker.resuming.api import Resumption
from neurogate.worker.stalls import Held
from neurogate.worker.vigil import Vigil, WatchSettings

_log = structlog.get_logger("neurogate.worker")

_OBSERVE_TIMEOUT_S = 2.5
_OBSERVE_GAP_S = 0.05
_BUSY_RETRY_S = 1.0
_DRAINS = End(EndCode.CANCELLED, message="the worker drains")
"""Hands a request back, which says nothing bad about the worker."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of one worker."""

    max_requests: int
    """Requests held at once; more are refused as busy."""
    max_answer_bytes: int = MAX_ANSWER_BYTES
    """Largest answer held whole; a larger one breaks its request."""


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
        now: Callable[[], float],
        on_change: Callable[[], None],
        tracer: Tracer | None = None,
        watch: WatchSettings = WatchSettings(),  # noqa: B008 - frozen
    ) -> None:
        """`now` is the wall clock in Unix seconds, for answers that say when they were made."""
        self.name = name
        """What the worker is called in its reports; its address, unless it was given a name."""
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._loop = loop
        self._on_change = on_change
        self._tracer = tracer
        self._meter = Meter()
        self._ollama = OllamaApi(engine, now=now, max_answer_bytes=limits.max_answer_bytes)
        self._resumption = Resumption(engine, now=now, max_answer_bytes=limits.max_answer_bytes)
        self._seen = Observation(ready=False, detail="the engine is starting", loading=True)
        self._observation = self._seen
        self._vigil = Vigil(
            engine,
            watch,
            tokens=lambda: self._meter.completion_tokens_total,
            metrics=metrics,
            loop=loop,
            on_verdict=self._settle,
        )
        self._draining = self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._seq = 0
        self._started_at = loop.time()
        metrics.show(self.report, active=lambda: self.active, connected=lambda: self._observation.ready)

    @property
    def active(self) -> int:
        """Requests held now."""
        return self._meter.active

    @property
    def ready(self) -> bool:
        """Whether a request would be taken."""
        return self._observation.ready and not self._draining

    @property
    def draining(self) -> bool:
        """Whether it said that it wants nothing new."""
        return self._draining

    def announce_drain(self) -> None:
        """Say that nothing new should come; what comes is taken all the same."""
        self._draining = self._vigil.draining = True
        self._on_change()

    def drain(self) -> None:
        """Say so, and take nothing new; what is held goes on."""
        self._refusing = True
        self.announce_drain()

    def undrain(self) -> None:
        """Take that back."""
        self._draining = self._refusing = self._vigil.draining = False
        self._on_change()

    async def idle(self) -> None:
        """Wait until nothing is held."""
        await self._idle.wait()

    async def observe(self, interval_s: float) -> None:
        """Ask the engine how it is, for ever; a change is told at once.

        One that answers late is asked again at once: some tell what they do only between two steps.
        """
        loop = self._loop
        while True:
            began = loop.time()
            seen = await self._observe_once()
            if seen.ready or loop.time() - began <= _OBSERVE_TIMEOUT_S + PAUSE_S:
                self.take_observation(seen)  # otherwise it was us who slept, and its answer may wait in the socket
            await asyncio.sleep(max(_OBSERVE_GAP_S, began + interval_s - loop.time()))

    async def watch(self) -> None:
        """Watch over the engine, for ever: cut what is stuck, and take it out while it generates nothing."""
        await self._vigil.run()

    @property
    def canary(self) -> Canary:
        """What asks the engine for a token."""
        return self._vigil.canary

    def take_observation(self, observation: Observation) -> None:
        """Store what the engine said of itself."""
        self._seen = observation
        self._meter.tick(self._loop.time())
        self._vigil.observed(observation)
        self._settle()

    def _settle(self) -> None:
        """Tell what the engine says of itself, unless it is known better."""
        before, self._observation = self._observation, self._vigil.told(self._seen)
        observation = self._observation
        told = (before.ready, before.loading, before.models, before.apis, before.resumes)
        if told != (observation.ready, observation.loading, observation.models, observation.apis, observation.resumes):
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
        return reported(
            self._observation,
            self._meter,
            worker_id=self.name,
            engine_kind=self._engine.kind,
            draining=self._draining,
            uptime_s=self._loop.time() - self._started_at,
            seq=self._seq,
        )

    async def answer(self, call: IncomingCall, outlet: Outlet) -> End:
        """Answer one call of a link."""
        tracer = self._tracer if call.path != CANARY_PATH else None
        record = tracer.begin(call.traceparent) if tracer is not None else None
        if record is None:
            concern(call.request_id, call.traceparent, call.tracestate)
            return await self._answer(call, outlet, None)
        trace = CallTrace(record, call, self._engine.kind)
        concern(call.request_id, trace.context, call.tracestate)
        end = End(EndCode.CANCELLED)
        try:
            end = await self._answer(call, outlet, trace)
        finally:
            trace.over(end)
        return end

    async def _answer(self, call: IncomingCall, outlet: Outlet, trace: CallTrace | None) -> End:
        if call.path == CANARY_PATH:
            return await self._answer_canary(call, outlet)
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        model = self._model_of(call)
        progress, held = self._begin(model)
        if trace is not None:
            trace.begun(progress, model)
        held.came(call, outlet)
        end = End(EndCode.CANCELLED)
        try:
            with held.within(Bound(self._loop, call.timeout_s)) as time_left:
                end = await self._respond(call, outlet, progress)
        except EngineError as error:
            end = end_for(error)
        except Exception as error:  # noqa: BLE001 - one request's bug must not end the link that carries all others
            if isinstance(error, TimeoutError) and time_left.expired():
                end = held.end or End(EndCode.DEADLINE, message="the request's time ran out")
            else:
                _log.exception("request failed in the worker", request_id=call.request_id)
                end = End(EndCode.INTERNAL, message=f"{type(error).__name__} in the worker")
        finally:
            self._end(progress, held, end)
        return end

    async def _answer_canary(self, call: IncomingCall, outlet: Outlet) -> End:
        """Whether the engine generates; off the books, and never for an engine that is not ready anyway."""
        if self._draining:
            return _DRAINS
        if not self._seen.ready:
            return End(EndCode.UNAVAILABLE, message=self._seen.detail)
        try:
            async with asyncio.timeout(call.timeout_s):
                verdict = await self.canary.ask()
        except TimeoutError:
            return End(EndCode.DEADLINE, message="the canary's time ran out")
        if not verdict.well:
            return End(EndCode.UNAVAILABLE, message=verdict.detail)
        outlet.chunk(b"{}")
        return End(http_status=200)

    async def generate(self, prompt: Prompt, request_id: str) -> AsyncGenerator[GenerationEvent, None]:
        """Generate for callers without a link."""
        _check(prompt)
        concern(request_id, "")
        refusal = self._refusal()
        if refusal is not None:
            raise error_for_refusal(refusal)
        size = len(prompt.text) + len(prompt.system)
        progress, held = self._begin(self._known_model(prompt.model), prompt.max_tokens, size)
        end = End(EndCode.CANCELLED)
        started = False
        try:
            async with aclosing(_cuttable(self._engine.generate(prompt), held)) as events:
                async for event in events:
                    if isinstance(event, Token):
                        started = True
                        progress.tokens(1)
                    else:
                        end = End(http_status=200, usage=event.usage, finish_reason=event.finish_reason)
                    yield event
        except EngineError as error:
            end = end_for(error)
            _log.warning("generation failed", request_id=request_id, error=str(error))
            raise error_for(error, started=started) from error
        finally:
            self._end(progress, held, end)

    async def _respond(self, call: IncomingCall, outlet: Outlet, progress: Progress) -> End:
        limit = self._limits.max_answer_bytes
        if call.resume is not None:
            return await self._resumption.answer(call, call.resume, outlet, progress, self._observation)
        if call.path == "/prompt":
            return await answer_prompt(self._engine, call, outlet, progress, max_answer_bytes=limit)
        if call.path in OLLAMA_PATHS:
            return await self._ollama.answer(call, outlet, progress, self._observation)
        unsupported = self._observation.unsupported
        ignored = ignored_feature(call.body, unsupported) if unsupported else ""
        if ignored:
            told = f"the engine {self._engine.kind} does not do {ignored!r}, which the request asks for"
            return End(EndCode.UNSUPPORTED, message=told)
        return await forward(self._engine, call, outlet, progress, max_answer_bytes=limit)

    def _begin(self, model: str, max_tokens: int | None = None, prompt_bytes: int = 0) -> tuple[Progress, Held]:
        self._idle.clear()
        job = self._meter.begin(max_tokens)
        held = Held(job, now=self._loop.time(), model=model, prompt_bytes=prompt_bytes)
        self._vigil.begin(held, model)
        return Progress(job, self._metrics.of_model(model), loop=self._loop), held

    def _model_of(self, call: IncomingCall) -> str:
        """The label of a call's metrics; its body is looked into only when there is more than one model."""
        several = len(self._observation.models) > 1
        return self._known_model((asked(call.body).model or "") if several else "")

    def _known_model(self, name: str) -> str:
        """This model when the engine has it, else its first: a client must not make up labels."""
        names = [model.name for model in self._observation.models]
        name = known_as(name, names)
        return name if name in names else names[0] if names else ""

    def _end(self, progress: Progress, held: Held, end: End) -> None:
        progress.finish(end)
        self._vigil.end(held, well=end.code is EndCode.ANSWERED and end.http_status < 500)
        if not self._meter.active:
            self._idle.set()

    def _refusal(self) -> End | None:
        if self._refusing:
            return _DRAINS
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
        except Exception as error:  # noqa: BLE001 - a strange answer makes an engine unusable, not its worker
            detail = f"the engine's state cannot be read ({type(error).__name__}: {error})"[:DETAIL_CHARS_MAX]
            if detail != self._observation.detail:
                _log.exception("the engine cannot be observed", engine=self._engine.kind)
            return Observation(ready=False, detail=detail)


async def _cuttable(events: AsyncGenerator[GenerationEvent, None], held: Held) -> AsyncGenerator[GenerationEvent, None]:
    """The same events. Raises EngineError as well for a request that is cut because its engine is stuck."""
    async with aclosing(events):
        while True:
            try:
                async with held.within(asyncio.timeout(None)):
                    event = await anext(events, None)
            except TimeoutError:
                if held.end is None:
                    raise
                stuck = EngineUnavailableError if held.end.code is EndCode.UNAVAILABLE else EngineBrokenError
                raise stuck(held.end.message) from None
            if event is None:
                return
            yield event


def _check(prompt: Prompt) -> None:
    """What `/prompt` has checked by its schema. Raises BadRequestError."""
    if not prompt.text:
        raise BadRequestError("prompt: must not be empty", param="prompt")
    if prompt.max_tokens is not None and not 1 <= prompt.max_tokens <= MAX_TOKENS:
        raise BadRequestError(f"max_tokens: must be from 1 to {MAX_TOKENS}", param="max_tokens")
    if prompt.temperature is not None and not 0 <= prompt.temperature <= 2:
        raise BadRequestError("temperature: must be from 0 to 2", param="temperature")
