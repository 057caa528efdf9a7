"""Settings of metrics: how many values their labels may take."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.config import env


class MetricSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of labels whose values are not the code's own."""

    models_max: Annotated[
        int,
        env("NEUROGATE_METRICS_MODELS_MAX", "Models with series of their own; further ones are `other`.", ge=1),
    ] = 100
    keys_max: Annotated[
        int, env("NEUROGATE_METRICS_KEYS_MAX", "Keys with series of their own; further ones are `other`.", ge=1)
    ] = 100
    workers_max: Annotated[
        int,
        env("NEUROGATE_METRICS_WORKERS_MAX", "Workers with series of their own; further ones are `other`.", ge=1),
    ] = 500
