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
        int, env("NEUROGATE_RESUME_ATTEMPTS", "How often one stream may be continued.", reloads=True, ge=0, le=100)
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
    ] = 256 * 1024
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
            "Seconds without a token after which a stream is taken from its worker; 0 leaves that to the workers.",
            reloads=True,
            ge=0,
        ),
    ] = 60.0
