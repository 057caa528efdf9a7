"""`neurogate check`: what a process would be configured with, and where each value comes from."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Sequence
from typing import Any

from neurogate.config import CONFIG_VARIABLE, Effective
from neurogate.errors import EXIT_CONFIG, ConfigError
from neurogate.local.sources import BUNDLES, source


def main(processes: Sequence[str], *, config: str, json: bool) -> int:
    """Print the configuration of these processes, secrets masked; what is wrong goes to standard error.

    Returns 0, or 78 when a process would not start.
    """
    found: dict[str, Effective[Any]] = {}
    problems: list[str] = []
    for process in processes:
        try:
            found[process] = source(BUNDLES[process], {CONFIG_VARIABLE: config} if config else {}).read()
        except ConfigError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if json:
        print(json_format.dumps({"valid": not problems, "problems": problems, "processes": _as_json(found)}, indent=2))
    else:
        for process, effective in found.items() if not problems else ():
            _print(process, effective)
        for problem in problems:
            print(f"neurogate: {problem}", file=sys.stderr)
    return EXIT_CONFIG if problems else 0


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
