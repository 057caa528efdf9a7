"""The reference of the metrics, made from their catalogue."""

from __future__ import annotations

from neurogate.telemetry import catalog
from neurogate.telemetry.metric import CounterOf, GaugeOf, HistogramOf, Metric

_KINDS = {CounterOf: "counter", GaugeOf: "gauge", HistogramOf: "histogram"}

_INTRODUCTION = """\
# Metrics

What gateways and workers tell Prometheus at `/metrics` of their ops ports (`METRICS_PORT`: 9091, a worker's 9090; see
[ops.md](ops.md)). Who prefers OpenMetrics, as Prometheus does, gets that, with the trace ids of sampled requests as
exemplars of the histograms by model and of request durations; Prometheus keeps them with
`--enable-feature=exemplar-storage`.

- **A metric of what is not there is missing rather than 0**: an engine that does not tell its KV cache, a machine
  without a GPU, a key without a budget.
- **Labels are bounded.** `model`, `key` and `worker` have at most `NEUROGATE_METRICS_MODELS_MAX`,
  `NEUROGATE_METRICS_KEYS_MAX` and `NEUROGATE_METRICS_WORKERS_MAX` values; what comes later is counted as `other`. A
  model that no worker has is `unknown`, and so is that of a request refused before its model was known. A request
  that names no model counts for the default model of the worker that was asked.
- Gauges of workers and keys that are gone go with them. Counters stay, for rates still need them, until their place
  is wanted by another name. The workers that are `other` are told together: sums, and no breaker, link or KV cache of
  theirs; of the models that are, `neurogate_gateway_model_workers` is the fewest.
- Nothing is counted for each token in a gateway. The gap between tokens is told twice: a worker observes each
  (`neurogate_worker_inter_token_latency_seconds`), a gateway the mean of each answer.
- **An engine's own metrics** are on its worker's port as well, under their names with `_` for `:` and `_total` for
  counters that lack it: `llamacpp_*` of llama.cpp (of a `llama-server` that was started with `--metrics`), `vllm_*` of
  vLLM. An engine that does not answer in time has none in that scrape.
- Energy is the GPU's own count, or else its power over the time between scrapes; scrape often where only power is
  told.

This page is made by `neurogate metrics --markdown`.
"""


def markdown() -> str:
    """docs/metrics.md."""
    parts = [_INTRODUCTION]
    for section, metrics in catalog.sections().items():
        parts += [
            f"## {section.title}",
            "",
            section.about,
            "",
            "| Name | Type | Unit | Labels | What it tells |",
            "|---|---|---|---|---|",
            *(_row(metric) for metric in metrics),
            "",
        ]
    return "\n".join(parts)


def text() -> str:
    """The same for a terminal."""
    lines: list[str] = []
    for section, metrics in catalog.sections().items():
        lines += ["", section.title.upper()] if lines else [section.title.upper()]
        for metric in metrics:
            labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
            lines.append(f"  {metric.name}{labels} ({_KINDS[type(metric)]})\n      {metric.help}")
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    cells = (f"`{metric.name}`", _KINDS[type(metric)], metric.unit, labels, metric.help)
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
