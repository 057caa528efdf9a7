"""The rung of a real Prometheus and a real Alertmanager, over a live gateway and three workers under load.

Every recording rule and every query of every dashboard must answer with something, and one alert goes all the way: a
worker is killed, Prometheus fires, Alertmanager calls the receiver of warnings; the worker is back, and all is clear.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prom_fleet import Fleet, folder
from prom_server import DEPLOYED, MissingPartError, Receiver, Servers, programs
from report import ROOT, Report

VARIABLES = {"$__rate_interval": "15s", "$__range": "5m", "$__interval": "1s"}
NOT_HERE = {
    "neurogate_gpu_": "there is no GPU",
    "neurogate_joules_per_token": "there is no GPU",
    "ollama_": "no engine is Ollama",
    "neurogate_worker_engine_deaths_total": "simulated engines are not managed processes",
}
"""Why what names this has no answer here."""
ALERT, WORKER = "NeuroGateWorkerUnreachable", "worker-2"
WARM_S, FIRE_S, RESOLVE_S = 10, 60, 40


class Query(NamedTuple):
    """What is asked, and who asks it."""

    who: str
    expr: str


def recording() -> Iterator[Query]:
    """Every recording rule."""
    for group in yaml.safe_load((DEPLOYED / "rules/recording.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield Query(f"rule {rule['record']}", rule["record"])


def shown() -> Iterator[Query]:
    """Every query of every panel, with its variables' values."""
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in [*board["panels"], *(inner for row in board["panels"] for inner in row.get("panels", ()))]:
            for target in panel.get("targets", ()):
                yield Query(f"{path.stem}: {panel['title']} {target['refId']}", filled(target["expr"], board))


def filled(expr: str, board: dict[str, Any]) -> str:
    """A query as Grafana would send it with every variable at All."""
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    for variable in board["templating"]["list"]:
        expr = expr.replace(f"${variable['name']}", variable.get("allValue") or "")
    return expr


def choices() -> Iterator[Query]:
    """Every variable that a dashboard offers: its label, and the series that have it."""
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                series, label = variable["query"]["query"].removeprefix("label_values(").removesuffix(")").split(", ")
                yield Query(f"{path.stem}: variable {variable['name']} {label}", series)


def excuse(query: Query) -> str:
    """Why it may have no answer; empty when it must have one."""
    return next((why for part, why in NOT_HERE.items() if part in query.expr), "")


def look(report: Report, servers: Servers, began: float) -> None:
    """Ask everything."""
    for query in (*recording(), *shown()):
        data = servers.ask("query_range", query=query.expr, start=began, end=time.time(), step=1)["result"]
        numbers = [value for series in data for _, value in series["values"] if value != "NaN"]
        if not numbers and (why := excuse(query)):
            report.skipped(query.who, f"not here: {why}")
        else:
            report.expect(query.who, bool(numbers), f"{len(data)} series" if numbers else f"no answer to {query.expr}")
    for query in choices():
        values = servers.ask(f"label/{query.who.split()[-1]}/values", **{"match[]": query.expr})
        report.expect(query.who.rsplit(" ", 1)[0], bool(values), ", ".join(values[:4]))
    points = servers.ask(
        "query_exemplars",
        query="neurogate_gateway_time_to_first_token_seconds_bucket",
        start=began,
        end=time.time(),
    )
    traced = [point["labels"].get("trace_id") for series in points for point in series["exemplars"]]
    report.expect("exemplars of first tokens have trace ids", any(traced), f"{len(traced)} points")


async def until(condition: Callable[[], Any], timeout_s: float) -> Any:
    """What the condition gives once that is something, or its last word."""
    ends = time.monotonic() + timeout_s
    while not (found := await asyncio.to_thread(condition)) and time.monotonic() < ends:  # noqa: ASYNC110 - of others
        await asyncio.sleep(0.2)
    return found


async def drill(report: Report, fleet: Fleet, servers: Servers, receiver: Receiver) -> None:
    """Kill a worker, hear of it, start it again, hear of that."""
    await until(lambda: fleet.holds(2) >= 2, 10)
    fleet.kill_worker(2)
    killed = time.monotonic()
    fired = await until(lambda: receiver.heard_of(ALERT, "firing", worker=WORKER), FIRE_S)
    if fired:
        path, alert = fired
        seen = f"{time.monotonic() - killed:.0f} s after its end, to {path}: {alert['annotations']['summary']}"
        report.expect("a killed worker is told to the receiver of warnings", path == "/daytime", seen)
    else:
        firing = await asyncio.to_thread(servers.ask, "alerts")
        report.failed("a killed worker is told to the receiver of warnings", json.dumps(firing)[:1500])
    fleet.start_worker(2)
    started = time.monotonic()
    resolved = await until(lambda: receiver.heard_of(ALERT, "resolved", worker=WORKER), RESOLVE_S)
    report.expect("and that it is back", bool(resolved), f"{time.monotonic() - started:.0f} s after its start")


async def run(report: Report, at: Path) -> None:
    """All of it."""
    with Receiver() as receiver, Fleet(at, receiver.url) as fleet:
        targets = {"gateways": [fleet.gateway_ops], "workers": fleet.worker_ops}
        with Servers(at, **targets, receiver=receiver.url) as servers:
            began = time.time()
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(fleet.load(stopping))
                try:
                    up = await until(servers.ready, 30)
                    report.expect("Prometheus is ready", bool(up))
                    await asyncio.sleep(WARM_S)
                    await drill(report, fleet, servers, receiver)
                    await asyncio.to_thread(look, report, servers, began)
                    rules = await asyncio.to_thread(servers.ask, "rules")
                    sick = [
                        rule["name"] for each in rules["groups"] for rule in each["rules"] if rule["health"] != "ok"
                    ]
                    report.expect("every rule is evaluated without an error", not sick, ", ".join(sick))
                finally:
                    stopping.set()
    asked = ", ".join(f"{count} {what}" for what, count in sorted(fleet.asked.items()))
    report.expect("the load had answers", fleet.asked["stream whole"] > 0, asked)


def main() -> int:
    """Run it; the exit code."""
    report = Report("prometheus")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        programs()
    except MissingPartError as error:
        report.skipped("everything", str(error))
        return report.finish()
    began = time.monotonic()
    with folder() as at:
        asyncio.run(run(report, Path(at)))
    report.ok("in time", f"{time.monotonic() - began:.0f} s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
