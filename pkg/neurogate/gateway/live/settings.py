"""Settings of what shows requests: the section `live` of the configuration file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.config import env


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The live page, and who may ask why a request went where it went."""

    live_viewers_max: Annotated[
        int,
        env(
            "NEUROGATE_LIVE_VIEWERS_MAX",
            "Viewers of the live page at once, `neurogate top` included.",
            reloads=True,
            ge=0,
            le=1000,
        ),
    ] = 20
    explain: Annotated[
        bool,
        env("NEUROGATE_EXPLAIN", "Tell requests with `X-NeuroGate-Explain: 1` why they went where.", reloads=True),
    ] = True
