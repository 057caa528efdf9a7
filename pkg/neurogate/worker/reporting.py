"""What a worker reports to gateways: what its engine says of itself, and what the worker counted."""

from __future__ import annotations

from neurogate import __version__
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.engines.engine import ModelInfo, Observation
from neurogate.worker.meter import Meter
from neurogate.worker.ollama_api.api import apis_of
from neurogate.worker.resuming.api import resumes_of

DETAIL_CHARS_MAX = 500
"""Of what an engine says in words."""


def reported(
    seen: Observation, meter: Meter, *, worker_id: str, engine_kind: str, draining: bool, uptime_s: float, seq: int
) -> WorkerReport:
    """The report of a worker whose engine says `seen`.

    `queued` is the larger of two views: what the worker holds beyond the slots, and the engine's own queue, which
    others may fill too. Of slots that are not known none is busy, and whatever is held runs.
    """
    within = min(meter.active, seen.slots_total) if seen.slots_total else meter.active
    busy = seen.slots_busy if seen.slots_busy is not None else min(meter.active, seen.slots_total)
    return WorkerReport(
        worker_id=worker_id,
        version=__version__,
        ready=seen.ready and not draining,
        draining=draining,
        detail=seen.detail,
        engine_kind=engine_kind,
        engine_version=seen.version,
        engine_restarts=seen.restarts,
        models=tuple(_served(model) for model in seen.models),
        slots_total=seen.slots_total,
        slots_busy=busy,
        running=within,
        queued=max(meter.active - within, seen.queued or 0),
        tokens_outstanding=meter.tokens_outstanding,
        kv_used_ratio=seen.kv_used_ratio,
        decode_tokens_per_s=meter.decode_tokens_per_s,
        prompt_tokens_per_s=meter.prompt_tokens_per_s,
        requests_total=meter.requests_total,
        prompt_tokens_total=meter.prompt_tokens_total,
        completion_tokens_total=meter.completion_tokens_total,
        uptime_s=uptime_s,
        seq=seq,
        apis=apis_of(seen),
        resumes=resumes_of(seen, engine_kind),
        last_words=seen.last_words[:DETAIL_CHARS_MAX],
        loading=seen.loading,
    )


def _served(model: ModelInfo) -> ServedModel:
    return ServedModel(
        model.name,
        model.loaded,
        model.context_length,
        family=model.family,
        parameters=model.parameters,
        quantization=model.quantization,
        size_bytes=model.size_bytes,
        digest=model.digest,
    )
