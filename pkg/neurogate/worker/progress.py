"""One request's progress through a worker, as meters and metrics see it: first token, gaps, end."""

from __future__ import annotations

import asyncio

from neurogate.channel import End, EndCode
from neurogate.worker.meter import Job
from neurogate.worker.metrics import WorkerMetrics


class Progress:
    """Counts one request in at construction and out in `finish`, exactly once."""

    __slots__ = ("_began_at", "_job", "_last_at", "_loop", "_metrics", "model")

    def __init__(self, job: Job, metrics: WorkerMetrics, *, model: str, loop: asyncio.AbstractEventLoop) -> None:
        self.model = model
        self._job = job
        self._metrics = metrics
        self._loop = loop
        self._began_at = loop.time()
        self._last_at = 0.0

    def expect(self, max_tokens: int | None) -> None:
        """The request names a limit: how much work it may become."""
        if max_tokens is not None:
            self._job.expected = max_tokens

    def tokens(self, count: int) -> None:
        """Tokens of a streamed answer arrived."""
        if not count:
            return
        now = self._loop.time()
        if self._last_at:
            self._metrics.inter_token_latency.labels(self.model).observe((now - self._last_at) / count)
        else:
            self._metrics.time_to_first_token.labels(self.model).observe(now - self._began_at)
        self._last_at = now
        self._job.tokens(count)

    def finish(self, end: End) -> None:
        """The request is over."""
        metrics, model, usage = self._metrics, self.model, end.usage
        completion = usage.completion_tokens if usage is not None else self._job.emitted
        self._job.end(usage)
        metrics.tokens_generated.labels(model).inc(completion)
        if usage is not None:
            metrics.prompt_tokens.labels(model).inc(usage.prompt_tokens)
        if end.code is EndCode.ANSWERED:
            metrics.inference_duration.labels(model).observe(self._loop.time() - self._began_at)
            metrics.requests.labels(model, str(end.http_status or 200)).inc()
        else:
            metrics.requests.labels(model, end.code.name.lower()).inc()
            if end.code is not EndCode.CANCELLED:
                metrics.errors.labels(model, end.code.name.lower()).inc()
