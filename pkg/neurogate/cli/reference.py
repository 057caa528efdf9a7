"""The reference of the settings, made from the settings themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from neurogate.cli import examples
from neurogate.config import FileSettings, Setting, declared, descriptions, json_schema, sections
from neurogate.discovery.settings import DiscoverySettings
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
from neurogate.gateway.live.settings import LiveSettings
from neurogate.gateway.resilience_settings import ResilienceSettings
from neurogate.gateway.settings import AdminSettings, GatewaySettings
from neurogate.httpd.settings import HttpSettings
from neurogate.local.run_directory import StateSettings
from neurogate.local.sources import BUNDLES
from neurogate.models.settings import ModelSettings
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.telemetry.settings import LogFileSettings, TraceSettings
from neurogate.tls.settings import LinkTlsSettings
from neurogate.worker.settings import WorkerSettings

SECTIONS: tuple[tuple[str, str, type[msgspec.Struct], bool], ...] = (
    ("Configuration file", "Read by `neurogate gateway`, `worker` and `up`.", FileSettings, True),
    ("Gateway", "Read by `neurogate gateway`.", GatewaySettings, True),
    ("Discovery", "Read by `neurogate gateway`: who its workers are; see discovery.md.", DiscoverySettings, True),
    ("Resilience", "Read by `neurogate gateway`: what it does when workers fail.", ResilienceSettings, True),
    ("Keys", "Read by `neurogate gateway`: who may call.", KeySettings, True),
    ("Limits", "Read by `neurogate gateway`: what each key may use.", LimitSettings, True),
    ("Admission", "Read by `neurogate gateway`: who waits for a turn.", AdmissionSettings, True),
    ("Model names", "Read by `neurogate gateway`.", ModelRouteSettings, True),
    ("TLS", "Read by `neurogate gateway`: towards clients; see tls.md.", TlsSettings, True),
    ("Link TLS", "Read by `neurogate gateway` and `neurogate worker`: see tls.md.", LinkTlsSettings, True),
    ("Public gRPC", "Read by `neurogate gateway`.", PublicGrpcSettings, True),
    ("HTTP", "Read by `neurogate gateway`: what its HTTP ports take.", HttpSettings, True),
    ("Access log", "Read by `neurogate gateway`.", AccessLogSettings, True),
    ("Metrics", "Read by `neurogate gateway` and `neurogate worker`: see metrics.md.", MetricSettings, True),
    ("Log files", "Read by `neurogate gateway` and `neurogate worker`: see logs.md.", LogFileSettings, True),
    ("Tracing", "Read by `neurogate gateway` and `neurogate worker`: see traces.md.", TraceSettings, True),
    ("Admin", "Read by `neurogate gateway`: see admin.md.", AdminSettings, True),
    ("Live page", "Read by `neurogate gateway`: see live.md.", LiveSettings, True),
    ("Worker", "Read by `neurogate worker`.", WorkerSettings, True),
    ("Engine", "Read by `neurogate worker` and `neurogate up`: the engine of each worker.", EngineSettings, True),
    ("Simulated engine", "Read where the engine is `sim`, and by `neurogate sim-engine`.", SimSettings, True),
    ("Models", "Read by everything that needs a model's file.", ModelSettings, False),
    ("Logs", "Read by `neurogate up` and `neurogate demo`.", StateSettings, False),
)

_INTRODUCTION = """\
# Configuration

Every setting can be given in a file, in the environment, or as a flag; where it is given more than once, the later of
these wins: default, file, environment, flag, and what an admin set in a running gateway ([admin.md](admin.md)). A
process checks all of it when it starts, and refuses to start on a bad value or an unknown name: it tells what is wrong,
and where, on standard error, and exits with 78. `neurogate check` does the same without starting, and shows each value
with where it comes from.

The file is named by `--config` or `NEUROGATE_CONFIG` and is YAML or TOML by its name. Its sections and keys are the
first column of the tables below, for example `limits.requests_per_minute`. One file may serve every process. An editor
can check it against [neurogate.schema.json](neurogate.schema.json).

Settings marked "yes" under *reloads* change in a running gateway: on SIGHUP, when the file's content has changed, or by
the admin API. An invalid file changes nothing; the log and `/health` say why. What needs a restart is named in the log.

This page is made by `neurogate settings --markdown`.
"""


def markdown() -> str:
    """docs/configuration.md."""
    parts = [
        _INTRODUCTION,
        "## Examples",
        "",
        "```yaml",
        examples.YAML + "```",
        "",
        "```toml",
        examples.TOML + "```",
        "",
    ]
    for title, who, settings, has_flags in SECTIONS:
        rows = _rows(settings)
        columns = {
            "Key": [f"`{setting.key}`" if setting.section else "" for setting in rows],
            "Variable": [f"`{setting.env}`" for setting in rows],
            "Flag": [f"`{setting.flag}`" if has_flags else "" for setting in rows],
            "Default": [f"`{shown}`" if (shown := _shown(setting.default)) else "" for setting in rows],
            "Reloads": ["yes" if setting.reloads else "" for setting in rows],
            "Meaning": [setting.description for setting in rows],
        }
        parts += [
            f"## {title}",
            "",
            who,
            "",
            *_table({head: cells for head, cells in columns.items() if any(cells)}),
            "",
        ]
    return "\n".join(parts)


def text() -> str:
    """The same for a terminal."""
    lines: list[str] = []
    for title, _, settings, _ in SECTIONS:
        lines += ["", title.upper()] if lines else [title.upper()]
        for env, default, description in descriptions(settings):
            lines.append(f"  {env}={_shown(default)}\n      {description}")
    return "\n".join(lines) + "\n"


def schema() -> str:
    """docs/neurogate.schema.json."""
    return json.dumps(json_schema(BUNDLES.values()), indent=2) + "\n"


def _rows(settings: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """The settings of a struct, as those of its section where it is one."""
    for bundle in BUNDLES.values():
        for section, struct in sections(bundle).items():
            if struct is settings:
                return declared(settings, section)
    return declared(settings)


def _table(columns: Mapping[str, Sequence[str]]) -> list[str]:
    head = "".join(f"| {name} " for name in columns) + "|"
    rows = (
        "".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in zip(*columns.values(), strict=True)
    )
    return [head, "|---" * len(columns) + "|", *rows]


def _shown(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
