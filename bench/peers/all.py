"""Every gateway that is measured, in the order of the tables."""

from __future__ import annotations

from pathlib import Path

from peers import neurogate
from peers.direct import Direct
from peers.peer import Peer
from peers.routers import LiteLlm, RustRouter
from peers.servers import Envoy, Haproxy, Nginx


def peers(tree: Path = neurogate.CHECKOUT) -> list[Peer]:
    """One of each; `tree` is NeuroGate's checkout."""
    return [
        Direct(),
        *neurogate.variants(tree),
        Nginx(),
        Haproxy(),
        Envoy(),
        RustRouter("vllm-router", warnings="warning"),
        RustRouter("sglang-router", "launch", warnings="warn"),
        LiteLlm(),
    ]
