"""`neurogate check`: whether a process would start, and what with, each value with where it comes from."""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neurogate.config import CONFIG_VARIABLE, Effective
from neurogate.config.findings import Findings
from neurogate.errors import EXIT_CONFIG, ConfigError
from neurogate.local.sources import BUNDLES, source


def main(processes: Sequence[str], *, config: str, json: bool) -> int:
    """Print the configuration of these processes, secrets masked; what is wrong, or unwise, goes to standard error.

    Returns 0, or 78 when a process would not start.
    """
    found: dict[str, Effective[Any]] = {}
    findings: dict[str, Findings] = {}
    for process in processes:
        try:
            found[process] = source(BUNDLES[process], {CONFIG_VARIABLE: config} if config else {}).read()
        except ConfigError as error:
            findings[process] = Findings()
            findings[process].problems += str(error).splitlines()
        else:
            findings[process] = _tried_out(process, found[process].config)
            findings[process].warnings += found[process].warnings
    problems = _merged({process: each.problems for process, each in findings.items()})
    warnings = _merged({process: each.warnings for process, each in findings.items()})
    if json:
        told = {"valid": not problems, "problems": problems, "warnings": warnings, "processes": _as_json(found)}
        print(json_format.dumps(told, indent=2))
    else:
        for process, effective in found.items() if not problems else ():
            _print(process, effective)
        for line in [*problems, *(f"warning: {warning}" for warning in warnings)]:
            print(f"neurogate: {line}", file=sys.stderr)
    return EXIT_CONFIG if problems else 0


def _tried_out(process: str, config: Any) -> Findings:
    if process == "gateway":
        from neurogate.gateway.checks import findings as of_gateway

        return of_gateway(config, now=time.time)
    from neurogate.worker.checks import findings as of_worker

    return of_worker(config, now=time.time)


def _merged(lines: Mapping[str, Iterable[str]]) -> list[str]:
    """Each line once, with the process that it is about where the others have it not."""
    whose: dict[str, list[str]] = {}
    for process, own in lines.items():
        for line in own:
            whose.setdefault(line, []).append(process)
    return [
        line if len(lines) == 1 or len(processes) > 1 else f"{line} ({processes[0]})"
        for line, processes in whose.items()
    ]


def _print(process: str, effective: Effective[Any]) -> None:
    rows = [(setting.key, text(value), source) for setting, value, source in effective.rows()]
    width = max(len(f"{key} = {value}") for key, value, _ in rows if len(value) < 40)
    print(f"# {process}")
    for key, value, origin in rows:
        print(f"{f'{key} = {value}':<{width}}  # {origin}")


def _as_json(found: dict[str, Effective[Any]]) -> dict[str, dict[str, object]]:
    return {
        process: {setting.key: {"value": value, "source": origin} for setting, value, origin in effective.rows()}
        for process, effective in found.items()
    }


def text(value: object) -> str:
    """A value in one line, as it would stand in a file."""
    return json_format.dumps(value)
