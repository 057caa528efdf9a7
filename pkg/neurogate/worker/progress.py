"""One request's progress through a worker, as meters and metrics see it: first token, gaps, end."""

from __future__ import annotations

import asyncio

from neurogate.channel import End, EndCode
from neurogate.inference import Usage
from neurogate.worker.meter import Job
from neurogate.worker.metrics import ModelMetrics


class Progress:
    """Counts one request in at construction and out in `finish`, exactly once."""

    __slots__ = ("_continues", "_gap", "_job", "_last_at", "_metrics", "_now", "began_at", "first_at")

    def __init__(self, job: Job, metrics: ModelMetrics, *, loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._metrics = metrics
        self._gap = metrics.inter_token_latency.observe
        self._now = loop.time
        self.began_at = self._now()
        self.first_at: float | None = None
        """Loop time of the first token."""
        self._last_at = 0.0
        self._continues = False

    @property
    def emitted(self) -> int:
        """Tokens that were seen."""
        return self._job.emitted

    def continues(self) -> None:
        """Another worker began the answer: its tokens are in the usage, and are none of this one's."""
        self._continues = True
        self._metrics.continued.value += 1

    def expect(self, max_tokens: int | None) -> None:
        """The request names a limit: how much work it may become."""
        if max_tokens is not None:
            self._job.expected = max_tokens

    def tokens(self, count: int) -> None:
        """Tokens of a streamed answer arrived."""
        if not count:
            return
        now = self._now()
        if self._last_at:
            self._gap((now - self._last_at) / count)
        else:
            self.first_at = now
            self._metrics.time_to_first_token.observe(now - self.began_at)
        self._last_at = now
        self._job.tokens(count)

    def finish(self, end: End) -> None:
        """The request is over."""
        metrics, usage = self._metrics, end.usage
        if usage is not None and min(usage.prompt_tokens, usage.completion_tokens) < 0:
            usage = None  # an engine that counts so has not counted, and counters only grow
        if usage is not None and self._continues:
            usage = Usage(usage.prompt_tokens, self._job.emitted)
        completion = usage.completion_tokens if usage is not None else self._job.emitted
        self._job.end(usage)
        metrics.tokens_generated.value += completion
        if usage is not None:
            metrics.prompt_tokens.value += usage.prompt_tokens
        if end.code is EndCode.ANSWERED:
            metrics.inference_duration.observe(self._now() - self.began_at)
            metrics.ended(str(end.http_status or 200))
        else:
            metrics.ended(end.code.name.lower())
            if end.code is not EndCode.CANCELLED:
                metrics.failed(end.code.name.lower())
