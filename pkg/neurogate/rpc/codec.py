"""Protobuf messages to the domain's records and back.

What an engine counted or said is fitted to the wire: a number out of range or a lone surrogate would make protobuf
raise where everybody's frames are written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import End, EndCode, Resume
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage

_CODES: dict[int, EndCode] = {code.value: code for code in EndCode}
_UINT32_MAX = (1 << 32) - 1
_UINT64_MAX = (1 << 64) - 1
_INT64_MAX = (1 << 63) - 1


def end_to_wire(ticket: int, end: End) -> pb.End:
    """An end for the link. LINK_LOST is the gateway's own finding and has no place on the wire."""
    message = pb.End(id=ticket)
    if end.code:
        message.code = cast("pb.EndCode", end.code.value)
    if end.http_status:
        message.http_status = end.http_status
    if end.content_type and end.content_type != "application/json":
        message.content_type = _text(end.content_type)
    if end.body:
        message.body = end.body
    if end.usage is not None:
        message.usage.CopyFrom(usage_to_wire(end.usage))
    if end.finish_reason:
        message.finish_reason = _text(end.finish_reason)
    if end.retry_after_s is not None:
        message.retry_after_ms = max(1, _uint32(end.retry_after_s * 1000 + 0.5))  # to the nearest
    if end.message:
        message.message = _text(end.message)
    return message


def end_from_wire(message: pb.End) -> End:
    """An end from the link; a code of a newer worker that is not known here counts as INTERNAL."""
    return End(
        _CODES.get(message.code, EndCode.INTERNAL),
        message.http_status,
        message.content_type,
        message.body,
        usage_from_wire(message.usage) if message.HasField("usage") else None,
        message.finish_reason,
        message.retry_after_ms / 1000 if message.retry_after_ms else None,
        message.message,
    )


def usage_to_wire(usage: Usage) -> pb.Usage:
    """Token counts."""
    return pb.Usage(
        prompt_tokens=_uint32(usage.prompt_tokens),
        completion_tokens=_uint32(usage.completion_tokens),
        cached_tokens=_uint32(usage.cached_tokens),
    )


def usage_from_wire(message: pb.Usage) -> Usage:
    """Token counts."""
    return Usage(message.prompt_tokens, message.completion_tokens, message.cached_tokens)


def report_to_wire(report: WorkerReport) -> pb.WorkerStatus:
    """A worker's report."""
    return pb.WorkerStatus(
        worker_id=report.worker_id,
        version=report.version,
        ready=report.ready,
        draining=report.draining,
        detail=_text(report.detail),
        engine=pb.EngineInfo(
            kind=report.engine_kind,
            version=_text(report.engine_version),
            restarts=_uint32(report.engine_restarts),
        ),
        models=[
            pb.Model(
                name=_text(model.name),
                loaded=model.loaded,
                context_length=_uint32(model.context_length),
                family=_text(model.family),
                parameters=_uint64(model.parameters),
                quantization=_text(model.quantization),
                size_bytes=_uint64(model.size_bytes),
                digest=_text(model.digest),
            )
            for model in report.models
        ],
        slots_total=_uint32(report.slots_total),
        slots_busy=_uint32(report.slots_busy),
        running=_uint32(report.running),
        queued=_uint32(report.queued),
        tokens_outstanding=_uint64(report.tokens_outstanding),
        kv_used_ratio=report.kv_used_ratio,
        decode_tokens_per_s=report.decode_tokens_per_s,
        prompt_tokens_per_s=report.prompt_tokens_per_s,
        requests_total=_uint64(report.requests_total),
        prompt_tokens_total=_uint64(report.prompt_tokens_total),
        completion_tokens_total=_uint64(report.completion_tokens_total),
        uptime_s=report.uptime_s,
        seq=_uint64(report.seq),
        apis=sorted(report.apis),
        resumes=sorted(report.resumes),
        last_words=_text(report.last_words),
        loading=report.loading,
    )


def _model_from_wire(model: pb.Model) -> ServedModel:
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


@lru_cache(maxsize=32)
def _paths(told: tuple[str, ...]) -> frozenset[str]:
    """One set for all workers that tell the same paths: of its own, it was a quarter of what an idle worker takes."""
    return frozenset(told)


def report_from_wire(message: pb.WorkerStatus) -> WorkerReport:
    """A worker's report."""
    return WorkerReport(
        worker_id=message.worker_id,
        version=message.version,
        ready=message.ready,
        draining=message.draining,
        detail=message.detail,
        engine_kind=message.engine.kind,
        engine_version=message.engine.version,
        engine_restarts=message.engine.restarts,
        models=tuple(_model_from_wire(model) for model in message.models),
        slots_total=message.slots_total,
        slots_busy=message.slots_busy,
        running=message.running,
        queued=message.queued,
        tokens_outstanding=message.tokens_outstanding,
        kv_used_ratio=message.kv_used_ratio if message.HasField("kv_used_ratio") else None,
        decode_tokens_per_s=message.decode_tokens_per_s,
        prompt_tokens_per_s=message.prompt_tokens_per_s,
        requests_total=message.requests_total,
        prompt_tokens_total=message.prompt_tokens_total,
        completion_tokens_total=message.completion_tokens_total,
        uptime_s=message.uptime_s,
        seq=message.seq,
        apis=_paths(tuple(message.apis)),
        resumes=_paths(tuple(message.resumes)),
        last_words=message.last_words,
        loading=message.loading,
    )


def resume_to_wire(resume: Resume) -> pb.Resume:
    """Where an answer stopped."""
    return pb.Resume(
        text=_text(resume.text),
        tokens=_uint32(resume.tokens),
        completion_id=_text(resume.completion_id),
        created=min(max(0, resume.created), _INT64_MAX),
        model=_text(resume.model),
        finish_reason=_text(resume.finish_reason),
        usage_sent=resume.usage_sent,
        lengths=resume.lengths,
        system_fingerprint=_text(resume.system_fingerprint),
    )


def resume_from_wire(message: pb.Resume) -> Resume:
    """Where an answer stopped."""
    return Resume(
        text=message.text,
        tokens=message.tokens,
        completion_id=message.completion_id,
        created=message.created,
        model=message.model,
        finish_reason=message.finish_reason,
        usage_sent=message.usage_sent,
        lengths=message.lengths,
        system_fingerprint=message.system_fingerprint,
    )


def prompt_from_wire(message: pb.GenerateRequest) -> Prompt:
    """A prompt of the Generate call."""
    return Prompt(
        text=message.prompt,
        model=message.model,
        system=message.system_prompt,
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        temperature=message.temperature if message.HasField("temperature") else None,
    )


def event_to_wire(event: GenerationEvent, tokens: int) -> pb.GenerateEvent:
    """An event of the Generate call; `tokens` counts those generated so far."""
    if isinstance(event, Token):
        return pb.GenerateEvent(token=pb.Token(text=event.text, tokens_generated=tokens))
    return pb.GenerateEvent(finished=finished_to_wire(event))


def finished_to_wire(event: Finished) -> pb.Finished:
    """The last event of the Generate call."""
    return pb.Finished(
        usage=usage_to_wire(event.usage),
        finish_reason=event.finish_reason,
        model=event.model,
        inference_time_ms=_uint64(event.inference_time_ms),
    )


def _uint32(number: float) -> int:
    if 0 <= number <= _UINT32_MAX:
        return int(number)
    return int(min(max(0, number), _UINT32_MAX))


def _uint64(number: int) -> int:
    return min(max(0, number), _UINT64_MAX)


def _text(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()
