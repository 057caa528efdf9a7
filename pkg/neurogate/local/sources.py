"""Where each process of this machine is configured from: its file, this environment, and the flags it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from neurogate.config import CONFIG_VARIABLE, Bundle, Source, whole_environment
from neurogate.gateway.settings import GatewayConfig
from neurogate.local.processes import MARK
from neurogate.worker.settings import WorkerConfig

BUNDLES: Mapping[str, type[Bundle]] = {"gateway": GatewayConfig, "worker": WorkerConfig}
"""By the command that runs the process. One file and one environment may serve them all."""

ConfigT = TypeVar("ConfigT", bound=Bundle)


def source(config: type[ConfigT], flags: Mapping[str, str]) -> Source[ConfigT]:
    """The layers of one process; `flags` are by environment name."""
    environ = whole_environment()
    return Source(
        config,
        path=flags.get(CONFIG_VARIABLE) or environ.get(CONFIG_VARIABLE, "").strip(),
        environ=environ,
        flags=flags,
        others=BUNDLES.values(),
        variables={MARK},
    )
