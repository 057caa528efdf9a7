"""What a worker measures of itself: requests, tokens, rates. Pure arithmetic on times it is given."""

from __future__ import annotations

from neurogate.inference import Usage

EXPECTED_TOKENS = 256
"""Assumed length of an answer whose request names no limit."""

_SMOOTHING = 0.3
"""Weight of the newest second in the rates (seeds of the token-level balancer use the same)."""


class Job:
    """One request the worker holds."""

    __slots__ = ("_meter", "emitted", "expected")

    def __init__(self, meter: Meter, expected: int) -> None:
        self._meter = meter
        self.expected = expected
        self.emitted = 0

    def tokens(self, count: int) -> None:
        """Count tokens that were generated."""
        self.emitted += count

    def end(self, usage: Usage | None) -> None:
        """Count the request out; exact usage corrects what was counted on the way."""
        self._meter.end(self, usage)


class Meter:
    """Counters of one worker."""

    def __init__(self) -> None:
        self._jobs: set[Job] = set()
        self._active_since_tick = False
        self._ticked_at = 0.0
        self._completed = 0
        """Tokens of requests that are over."""
        self._seen_completion = 0
        self._seen_prompt = 0
        self.requests_total = 0
        self.prompt_tokens_total = 0
        self.decode_tokens_per_s = 0.0
        self.prompt_tokens_per_s = 0.0

    @property
    def active(self) -> int:
        """Requests held now."""
        return len(self._jobs)

    @property
    def completion_tokens_total(self) -> int:
        """Tokens generated so far: counted up when somebody looks, so that a token itself is one addition."""
        return self._completed + sum(job.emitted for job in self._jobs)

    @property
    def tokens_outstanding(self) -> int:
        """Tokens still to be generated for them, estimated."""
        return sum(max(1, job.expected - job.emitted) for job in self._jobs)

    def begin(self, max_tokens: int | None) -> Job:
        """Count a request in."""
        job = Job(self, EXPECTED_TOKENS if max_tokens is None else max_tokens)
        self._jobs.add(job)
        self._active_since_tick = True
        self.requests_total += 1
        return job

    def end(self, job: Job, usage: Usage | None) -> None:
        """Count a request out."""
        if job not in self._jobs:
            return
        self._jobs.remove(job)
        self._completed += job.emitted if usage is None else usage.completion_tokens
        if usage is not None:
            self.prompt_tokens_total += usage.prompt_tokens

    def tick(self, now: float) -> None:
        """Take the rates of the time since the last tick; an idle interval leaves them as they are."""
        elapsed_s = now - self._ticked_at
        completed = self.completion_tokens_total
        if self._active_since_tick and self._ticked_at and elapsed_s > 0:
            completion = max(0, completed - self._seen_completion) / elapsed_s
            prompt = max(0, self.prompt_tokens_total - self._seen_prompt) / elapsed_s
            self.decode_tokens_per_s = _smooth(self.decode_tokens_per_s, completion)
            self.prompt_tokens_per_s = _smooth(self.prompt_tokens_per_s, prompt)
        self._ticked_at = now
        self._seen_completion = completed
        self._seen_prompt = self.prompt_tokens_total
        self._active_since_tick = bool(self._jobs)


def _smooth(rate: float, sample: float) -> float:
    return sample if not rate else rate + _SMOOTHING * (sample - rate)
