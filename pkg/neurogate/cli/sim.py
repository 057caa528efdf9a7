"""`neurogate sim-engine`."""

from __future__ import annotations

from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.server import serve
from neurogate.process import run


def main(settings: SimSettings, *, host: str, port: int, model: str) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    return run(lambda _: serve(settings, host=host, port=port, model=model))  # it minds the signals itself
