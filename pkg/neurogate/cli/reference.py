"""The reference of the settings, made from the settings themselves."""

from __future__ import annotations

import msgspec

from neurogate.config import FileSettings, descriptions, flag
from neurogate.edge.settings import (
    AccessLogSettings,
    AdmissionSettings,
    KeySettings,
    LimitSettings,
    ModelRouteSettings,
    PublicGrpcSettings,
    TlsSettings,
)
from neurogate.engines.settings import EngineSettings, SimSettings
from neurogate.gateway.settings import AdminSettings, GatewaySettings
from neurogate.httpd.settings import HttpSettings
from neurogate.local.run_directory import StateSettings
from neurogate.models.settings import ModelSettings
from neurogate.worker.settings import WorkerSettings

SECTIONS: tuple[tuple[str, str, type[msgspec.Struct], bool], ...] = (
    ("Configuration file", "Read by `neurogate gateway`, `worker` and `up`.", FileSettings, True),
    ("Gateway", "Read by `neurogate gateway`.", GatewaySettings, True),
    ("Keys", "Read by `neurogate gateway`: who may call.", KeySettings, True),
    ("Limits", "Read by `neurogate gateway`: what each key may use.", LimitSettings, True),
    ("Admission", "Read by `neurogate gateway`: who waits for a turn.", AdmissionSettings, True),
    ("Model names", "Read by `neurogate gateway`.", ModelRouteSettings, True),
    ("TLS", "Read by `neurogate gateway`.", TlsSettings, True),
    ("Public gRPC", "Read by `neurogate gateway`.", PublicGrpcSettings, True),
    ("HTTP", "Read by `neurogate gateway`: what its HTTP ports take.", HttpSettings, True),
    ("Access log", "Read by `neurogate gateway`.", AccessLogSettings, True),
    ("Admin", "Read by `neurogate gateway`: see admin.md.", AdminSettings, True),
    ("Worker", "Read by `neurogate worker`.", WorkerSettings, True),
    ("Engine", "Read by `neurogate worker` and `neurogate up`: the engine of each worker.", EngineSettings, True),
    ("Simulated engine", "Read where the engine is `sim`, and by `neurogate sim-engine`.", SimSettings, True),
    ("Models", "Read by everything that needs a model's file.", ModelSettings, False),
    ("Logs", "Read by `neurogate up` and `neurogate demo`.", StateSettings, False),
)

_INTRODUCTION = """\
# Configuration

Every setting is an environment variable. A process checks all of its own when it starts, and refuses to start on a bad
one: it names the variable on standard error and exits with 78. Where a flag is given, the flag wins over the variable.

This page is made by `neurogate settings --markdown`.
"""


def markdown() -> str:
    """docs/configuration.md."""
    parts = [_INTRODUCTION]
    for title, who, settings, has_flags in SECTIONS:
        flag_head, flag_line = ("| Flag ", "|---") if has_flags else ("", "")
        head, line = f"| Variable {flag_head}| Default | Meaning |", f"|---{flag_line}|---|---|"
        parts += [f"## {title}", "", who, "", head, line]
        for env, default, description in descriptions(settings):
            flag_cell = f"| `{flag(env)}` " if has_flags else ""
            shown = _shown(default)
            default_cell = f"`{shown}` " if shown else ""
            parts.append(f"| `{env}` {flag_cell}| {default_cell}| {description} |")
        parts.append("")
    return "\n".join(parts)


def text() -> str:
    """The same for a terminal."""
    lines: list[str] = []
    for title, _, settings, _ in SECTIONS:
        lines += ["", title.upper()] if lines else [title.upper()]
        for env, default, description in descriptions(settings):
            lines.append(f"  {env}={_shown(default)}\n      {description}")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
