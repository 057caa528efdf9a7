"""Settings of what a gateway does when a worker fails: the section `resilience` of the configuration file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.config import env


class ResilienceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How broken answers are continued and failing workers avoided."""

    resume: Annotated[
        bool,
        env("NEUROGATE_RESUME", "Continue a broken stream on another worker, in the same answer.", reloads=True),
    ] = True
    resume_attempts: Annotated[
        int,
        env(
            "NEUROGATE_RESUME_ATTEMPTS",
            "How often one stream may be continued; ten times as often where it lost one worker after the other.",
            reloads=True,
            ge=0,
            le=100,
        ),
    ] = 5
    resume_wait_s: Annotated[
        float,
        env(
            "NEUROGATE_RESUME_WAIT_S",
            "Seconds a broken stream waits for any worker that can continue it.",
            reloads=True,
            ge=0,
        ),
    ] = 15.0
    resume_buffer_bytes: Annotated[
        int,
        env(
            "NEUROGATE_RESUME_BUFFER_BYTES",
            "Bytes of a stream kept as they were sent, for continuing it; of more than those, only the text is kept.",
            reloads=True,
            ge=1024,
        ),
    ] = 32 * 1024
    hedge_after_s: Annotated[
        float,
        env(
            "NEUROGATE_HEDGE_AFTER_S",
            "Seconds without a first token after which a second worker is asked as well; 0 turns it off.",
            reloads=True,
            ge=0,
        ),
    ] = 0.0
    hedge_share: Annotated[
        float, env("NEUROGATE_HEDGE_SHARE", "Requests that may be hedged, as a share.", reloads=True, ge=0, le=0.05)
    ] = 0.05
    stall_s: Annotated[
        float,
        env(
            "NEUROGATE_STALL_S",
            "Seconds without a token after which a stream is taken from a worker that has not noticed itself; keep it "
            "above the longest that workers wait, five times NEUROGATE_STALL_PREFILL_S. 0 leaves it to them.",
            reloads=True,
            ge=0,
        ),
    ] = 600.0
    breaker_window_s: Annotated[
        float,
        env(
            "NEUROGATE_BREAKER_WINDOW_S",
            "Seconds over which a breaker takes the share of failed calls.",
            reloads=True,
            gt=0,
            le=3600,
        ),
    ] = 10.0
    breaker_failure_rate: Annotated[
        float,
        env(
            "NEUROGATE_BREAKER_FAILURE_RATE",
            "Share of failed calls that opens a worker's breaker; 0 leaves it to failures in a row.",
            reloads=True,
            ge=0,
            le=1,
        ),
    ] = 0.5
    breaker_min_calls: Annotated[
        int,
        env(
            "NEUROGATE_BREAKER_MIN_CALLS",
            "Calls in the window below which the share of failed ones says nothing.",
            reloads=True,
            ge=1,
        ),
    ] = 20
    breaker_slow_s: Annotated[
        float,
        env(
            "NEUROGATE_BREAKER_SLOW_S",
            "Seconds to the first token of a stream above which it counts as slow, the engine's queue included; "
            "0 is never.",
            reloads=True,
            ge=0,
        ),
    ] = 0.0
    breaker_slow_rate: Annotated[
        float,
        env(
            "NEUROGATE_BREAKER_SLOW_RATE",
            "Share of slow calls that opens a worker's breaker, within twice the time above which they are slow.",
            reloads=True,
            gt=0,
            le=1,
        ),
    ] = 0.5
    breaker_slow_min_calls: Annotated[
        int,
        env(
            "NEUROGATE_BREAKER_SLOW_MIN_CALLS",
            "Calls since the first slow one below which their share says nothing.",
            reloads=True,
            ge=1,
        ),
    ] = 5
    breaker_probe_s: Annotated[
        float,
        env(
            "NEUROGATE_BREAKER_PROBE_S",
            "Seconds after which a probe without a verdict no longer keeps the next one out.",
            reloads=True,
            gt=0,
        ),
    ] = 60.0
    canary_probes: Annotated[
        bool,
        env(
            "NEUROGATE_CANARY_PROBES",
            "Probe an open breaker's worker with a one-token generation instead of a user's request.",
            reloads=True,
        ),
    ] = True
    canary_probe_timeout_s: Annotated[
        float,
        env(
            "NEUROGATE_CANARY_PROBE_TIMEOUT_S",
            "Seconds that such a generation may take.",
            reloads=True,
            gt=0,
        ),
    ] = 30.0
    rest_max_s: Annotated[
        float,
        env(
            "NEUROGATE_REST_MAX_S",
            "The longest Retry-After of a worker that is honoured; 0 honours none.",
            reloads=True,
            ge=0,
        ),
    ] = 60.0
    outliers: Annotated[
        bool,
        env("NEUROGATE_OUTLIERS", "Keep workers out for a while that are much worse than their peers.", reloads=True),
    ] = True
    outlier_factor: Annotated[
        float,
        env(
            "NEUROGATE_OUTLIER_FACTOR",
            "How many times slower than its peers' median a worker must be, to the first token or by tokens a second.",
            reloads=True,
            gt=1,
        ),
    ] = 5.0
    outlier_max_ejected: Annotated[
        float,
        env(
            "NEUROGATE_OUTLIER_MAX_EJECTED",
            "Largest share of the workers of a model kept out so at once; one of three or more may be, unless it is 0.",
            reloads=True,
            ge=0,
            le=1,
        ),
    ] = 0.3
    outlier_min_requests: Annotated[
        int,
        env(
            "NEUROGATE_OUTLIER_MIN_REQUESTS",
            "Requests within a minute below which a worker is neither judged so nor compared with.",
            reloads=True,
            ge=1,
            le=256,
        ),
    ] = 10
    outlier_out_s: Annotated[
        float,
        env(
            "NEUROGATE_OUTLIER_OUT_S",
            "Seconds that such a worker is kept out, times how often that was needed lately, at most ten times.",
            reloads=True,
            gt=0,
        ),
    ] = 30.0
