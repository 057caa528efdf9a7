"""Whether a worker would start with a configuration, without starting one.

The functions that refuse a setting at the start are asked here, all of them. Nothing listens, nothing is written, no
engine is called and no model is fetched.
"""

from __future__ import annotations

from collections.abc import Callable

from neurogate.config.findings import Findings
from neurogate.engines import factory
from neurogate.errors import ConfigError
from neurogate.telemetry import log_files
from neurogate.tls.live import try_out
from neurogate.tls.material import TlsFiles
from neurogate.tls.settings import LinkTlsSettings, link_files
from neurogate.worker.settings import WorkerConfig


def findings(config: WorkerConfig, *, now: Callable[[], float]) -> Findings:
    """What is to be said of the configuration; `now` is Unix time. Reads the files that it names, for which it blocks.

    Ports are not looked at, nor the model's file: that one is taken or missing says nothing about the settings.
    """
    found = Findings()
    found.attempt(lambda: log_files.check(config.logs))
    found.attempt(lambda: factory.check(config.engine, config.sim))
    files = found.attempt(lambda: link_side(config.link_tls))
    if files is not None:
        material = found.attempt(lambda: try_out(files, now=now))
        found.warnings += material.warnings if material is not None else ()
    return found


def link_side(settings: LinkTlsSettings) -> TlsFiles | None:
    """The files for gateways; None where links are plain. Raises ConfigError when the settings lack one."""
    files = link_files(settings)
    if files.ca.path and not files.cert.path:
        raise ConfigError("NEUROGATE_LINK_TLS_CERT: is needed, because NEUROGATE_LINK_TLS_CA is set")
    return files if files.cert.path or files.key.path else None
