"""A run next to an earlier one. Machines drift, so what is compared are ratios to another gateway of the same run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from report.book import Book, Spread
from report.goals import OWN

_REFERENCES = ("nginx", "haproxy", "envoy", "vllm-router")
_FIELDS = {
    "gateway_us": "gateway CPU",
    "together_us": "gateway and worker CPU",
    "first_token_p50_us": "time to first token, p50",
    "first_token_p99_us": "time to first token, p99",
    "transit_p99_us": "a token's way, p99",
    "latency_p50_us": "latency, p50",
    "latency_p99_us": "latency, p99",
    "gateway_peak_mib": "peak memory",
}
_TIMES = ("first_token", "transit", "latency")
_LEAST_CPU = 1.05
_LEAST_TIME = 1.25
"""How much worse a median must be, besides being outside what was found before."""


_OTHERS_MOST = 0.25
"""Of a core: with more work of others, figures are theirs as well."""


def lines(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """What became worse or better than noise explains, and whether noise may be all there is."""
    return [*_noise(now), *_compared(now, before)]


def _noise(now: Mapping[str, Any]) -> Iterator[str]:
    others = [sample["others_share"] for sample in now["samples"] if "error" not in sample]
    if others and median(others) > _OTHERS_MOST:
        yield f"NOISE: other work used {median(others):.2f} of a core throughout: measure again before keeping it."


def _compared(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    if before is None:
        return ["There is no earlier run."]
    found = [] if _same_machine(now, before) else ["It was another machine: ratios are compared, and are less alike."]
    found += _differences(Book(now), Book(before))
    return found or [
        f"Nothing differs from {before['taken']['commit']} by more than the rounds differ among themselves."
    ]


def regressions(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Those that became worse."""
    return [line for line in lines(now, before) if line.startswith("REGRESSION")]


def _differences(now: Book, before: Book) -> Iterator[str]:
    for workload in now.results["workloads"]:
        common = [peer for peer in _REFERENCES if peer in now.peers(workload) and peer in before.peers(workload)]
        if not common:
            continue
        for field, title in _FIELDS.items():
            peer_field = "gateway_us" if field == "together_us" else field
            new = now.ratio(workload, OWN, field, common[0], peer_field)
            old = before.ratio(workload, OWN, field, common[0], peer_field)
            if new is None or old is None:
                continue
            least = _LEAST_TIME if field.startswith(_TIMES) else _LEAST_CPU
            if new.low > old.high and new.median > least * old.median:
                verdict = "REGRESSION"
            elif new.high < old.low and least * new.median < old.median:
                verdict = "better"
            else:
                continue
            yield f"{verdict}: {title}, {workload}: {_told(old)} of {common[0]}'s was, {_told(new)} is"


def _told(spread: Spread) -> str:
    return f"{spread.median:.3g} ({spread.low:.3g} to {spread.high:.3g})"


def _same_machine(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return all(now["machine"][fact] == before["machine"].get(fact) for fact in ("cpu", "cores", "kernel"))
