"""Run a loaded fleet under a real Prometheus for some minutes, and keep its answers to every dashboard's panels.

    python tools/dashboards/render/collect.py --minutes 5 --out FOLDER

A worker is killed in the middle, and started again. FOLDER gets a JSON file for each dashboard, which page.tsx draws.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools/verify"))

import prometheus as rung  # noqa: E402 - the folder of its module was just named
from prom_fleet import Fleet, folder  # noqa: E402
from prom_server import Receiver, Servers  # noqa: E402

STEP_S = 2
FAULTS = ("error=0.08,slow_after=52,token_every=3", "", "")
GATEWAY = {"NEUROGATE_BALANCER": "least_requests", "NEUROGATE_MAX_QUEUE": "30"}
"""A fleet on a usual day: one engine fails now and then, and a worker dies."""


def kept(servers: Servers, board: dict[str, Any], began: float, ended: float) -> dict[str, Any]:
    """A dashboard with the answers to its queries, by panel and query."""
    answers = {}
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expr = rung.filled(target["expr"], board)
            data = servers.ask("query_range", query=expr, start=began, end=ended, step=STEP_S)
            answers[f"{panel['id']}{target['refId']}"] = data["result"]
    return {"board": board, "answers": answers, "from": began, "to": ended, "step": STEP_S}


def keep(servers: Servers, out: Path, began: float, ended: float) -> None:
    """Write a file for each dashboard."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        told = kept(servers, json.loads(path.read_text()), began, ended)
        (out / path.name).write_text(json.dumps(told))


async def run(minutes: float, out: Path, at: Path) -> None:
    """All of it."""
    with Receiver() as receiver, Fleet(at, receiver.url, faults=FAULTS, gateway=GATEWAY) as fleet:
        targets = {"gateways": [fleet.gateway_ops], "workers": fleet.worker_ops}
        with Servers(at, **targets, receiver=receiver.url) as servers:
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(fleet.load(stopping, clients=14))
                try:
                    await asyncio.sleep(20)  # until every rate has its window
                    began = time.time()
                    await asyncio.sleep(minutes * 24)
                    await rung.until(lambda: fleet.holds(2) >= 2, 10)
                    fleet.kill_worker(2)
                    await asyncio.sleep(60)
                    fleet.start_worker(2)
                    await asyncio.sleep(minutes * 36 - 60)
                    ended = time.time()
                finally:
                    stopping.set()
            keep(servers, out, began, ended)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with folder() as at:
        asyncio.run(run(given.minutes, given.out, Path(at)))


if __name__ == "__main__":
    main()
