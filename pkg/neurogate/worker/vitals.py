"""The worker's vitals: what it counts already, in the words that pollers ask for."""

from __future__ import annotations

from collections.abc import Mapping

from neurogate.endpoint import WorkerReport


def vitals(
    report: WorkerReport, *, active: int, failed: int, links: int, machine: Mapping[str, float]
) -> dict[str, object]:
    """`active` requests are held, `failed` so far; `links` to gateways are up; `machine` tells of the machine."""
    return {
        "ready": report.ready,
        "version": report.version,
        "uptime_seconds": round(report.uptime_s, 3),
        "requests_in_progress": active,
        "requests_total": report.requests_total,
        "failed_responses": failed,
        "connected_peers": links,
        **machine,
        "slots": {"total": report.slots_total, "busy": report.slots_busy},
        "tokens_per_second": round(report.tokens_per_s, 2),
    }
