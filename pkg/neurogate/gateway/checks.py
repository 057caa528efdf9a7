"""Whether a gateway would start with a configuration, without starting one.

The functions that refuse a setting at the start are asked here, all of them. Nothing listens, nothing is written, and
nobody is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from neurogate.config.findings import Findings
from neurogate.edge import limiter
from neurogate.edge.address_limits import trusted_networks
from neurogate.edge.key_source import KeySource
from neurogate.edge.settings import KeySettings
from neurogate.gateway import discovery, takeover
from neurogate.gateway.certificates import link_side, public_side
from neurogate.gateway.model_names import ModelNames
from neurogate.gateway.settings import GatewayConfig
from neurogate.telemetry import access_log, log_files
from neurogate.tls.live import try_out


def findings(config: GatewayConfig, *, now: Callable[[], float]) -> Findings:
    """What is to be said of the configuration; `now` is Unix time. Reads the files that it names, for which it blocks.

    Ports are not looked at: that one is taken says nothing about the settings.
    """
    found = Findings()
    found.attempt(lambda: log_files.check(config.logs))
    found.attempt(lambda: access_log.check(config.access_log.access_log))
    found.attempt(lambda: ModelNames(config.models))
    found.attempt(lambda: trusted_networks(config.limits))
    found.attempt(lambda: discovery.check(config.discovery))
    found.warnings += filter(None, [discovery.unused_list(config)])
    found.attempt(lambda: limiter.check(config.limits))
    found.attempt(lambda: takeover.place(config.gateway.takeover_socket))
    for files in (found.attempt(lambda: public_side(config.tls)), found.attempt(lambda: link_side(config.link_tls))):
        if files is not None:
            material = found.attempt(partial(try_out, files, now=now))
            found.warnings += material.warnings if material is not None else ()
    _look_at_keys(config.keys, found, now=now)
    return found


def _look_at_keys(settings: KeySettings, found: Findings, *, now: Callable[[], float]) -> None:
    """A gateway without its keys starts: it refuses everybody, and takes the keys when they come."""
    keys = KeySource(settings, now=now)
    found.warnings += keys.loaded.warnings
    if keys.loaded.error:
        found.warnings.append(keys.loaded.error)
    if keys.ring.enforced and not keys.loaded.keys_loaded:
        found.warnings.append("AUTH_ENABLED: authentication is on and there are no keys: every request is refused")
