"""compose.yaml on the engine: everything comes up healthy, answers, is confined as it says, and is scraped."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from docker_host import Fleet
from report import Report

GATEWAY = "http://127.0.0.1:8080"
PROMETHEUS = "http://127.0.0.1:9094"
GRAFANA = "http://127.0.0.1:3000"
WORKERS = ("worker-1", "worker-2", "worker-3")
SCRAPED = {"neurogate-gateway": 1, "neurogate-worker": 3, "prometheus": 1}
UP_S = 400
SCRAPE_S = 45.0
SERVICES = ("gateway", *WORKERS, "prometheus", "alertmanager", "grafana")
# In a container: what it may write, and what it may do.
CONFINED = """
import os
def may(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(os.getuid(), may("/usr/local/x"), may("/tmp/x"), int(status["CapEff"], 16), status["NoNewPrivs"].strip())
"""


def ask(url: str, body: Mapping[str, object] | None = None, *, key: str = "", timeout_s: float = 60) -> Any:
    """The JSON that a URL answers with. Raises OSError, also for statuses of 400 and above."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=timeout_s) as answer:
        return json.load(answer)


def workers() -> dict[str, dict[str, Any]]:
    """The gateway's workers by the names that they have in compose."""
    return {worker["address"].partition(":")[0]: worker for worker in ask(f"{GATEWAY}/workers")["workers"]}


def look_at_fleet(report: Report, fleet: Fleet, key: str, *, pulled: bool) -> bool:
    """Bring it up and look; whether drills make sense."""
    began = time.monotonic()
    done = fleet.run("up", "--detach", "--wait", "--no-build", timeout_s=UP_S)
    up = done.returncode == 0
    said = f"{time.monotonic() - began:.0f} s, the model's download included where it was not there"
    report.expect("docker compose up --wait", up, said if up else done.stderr.strip()[-1500:])
    if not up:
        print(fleet.run("logs", "--tail", "15").stdout[-6000:])
        return False
    try:
        _answers(report, key)
        _scraped(report)
        _pictured(report, pulled=pulled)
    except (OSError, KeyError, ValueError) as error:
        report.failed("smoke", f"{type(error).__name__}: {error}")
        return False
    _confined(report, fleet)
    return True


def _answers(report: Report, key: str) -> None:
    ready = {name: worker["state"] for name, worker in workers().items()}
    report.expect("/workers shows three ready", ready == dict.fromkeys(WORKERS, "ready"), str(ready))
    began = time.monotonic()
    answer = ask(f"{GATEWAY}/prompt", {"query": "What is a gateway?", "max_tokens": 24}, key=key)
    text = str(answer.get("response", answer))
    report.expect(
        "/prompt is answered by a real model", bool(text.strip()), f"{text[:60]!r} in {time.monotonic() - began:.1f} s"
    )
    try:
        ask(f"{GATEWAY}/prompt", {"query": "Hello"})
        report.failed("/prompt without a key", "was answered")
    except urllib.error.HTTPError as error:
        report.expect("/prompt without a key", error.code == 401, str(error.code))


def _scraped(report: Report) -> None:
    """Prometheus knows what it should, and reaches all of it within two scrapes."""
    deadline = time.monotonic() + SCRAPE_S
    while True:
        targets = ask(f"{PROMETHEUS}/api/v1/targets")["data"]["activeTargets"]
        down = [
            f"{target['scrapeUrl']}: {target['lastError'] or target['health']}"
            for target in targets
            if target["health"] != "up"
        ]
        if (targets and not down) or time.monotonic() > deadline:
            break
        time.sleep(1)
    jobs = [target["labels"]["job"] for target in targets]
    counts = {job: jobs.count(job) for job in sorted(set(jobs))}
    report.expect("Prometheus scrapes every process", counts == SCRAPED and not down, "; ".join(down) or str(counts))
    groups = ask(f"{PROMETHEUS}/api/v1/rules")["data"]["groups"]
    broken = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
    count = sum(len(group["rules"]) for group in groups)
    report.expect("Prometheus has the rules", bool(count) and not broken, f"{count} rules {' '.join(broken)}".strip())
    managers = ask(f"{PROMETHEUS}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    report.expect("Prometheus has the Alertmanager", len(managers) == 1, str(managers))


def _pictured(report: Report, *, pulled: bool) -> None:
    told = ask(f"{GRAFANA}/api/health")
    if not pulled and told.get("stand-in"):
        files = len(told["provisioning"])
        boards = [board["title"] for board in ask(f"{GRAFANA}/api/search")]
        report.ok("files for Grafana are where it looks", f"{files} of provisioning, dashboards {', '.join(boards)}")
        report.skipped("Grafana provisions them", "its image cannot be had here; a stand-in has its place")
        return
    boards = _as_admin(f"{GRAFANA}/api/search?type=dash-db")
    report.expect("Grafana has the dashboards", bool(boards), ", ".join(board["title"] for board in boards))


def _as_admin(url: str) -> Any:
    realm = urllib.request.HTTPPasswordMgrWithPriorAuth()
    realm.add_password(None, url, "admin", "neurogate", is_authenticated=True)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(realm))
    with opener.open(url, timeout=30) as answer:
        return json.load(answer)


def _confined(report: Report, fleet: Fleet) -> None:
    for service in ("gateway", "worker-1"):
        seen = fleet.run("exec", "-T", service, "python", "-c", CONFINED).stdout.split()
        wanted = ["10001", "False", "True", "0", "1"]
        told = "user, writes to the root, to /tmp, capabilities, no new privileges: " + " ".join(seen)
        report.expect(f"{service} is confined", seen == wanted, told)
    open_ = [name for name in SERVICES if not _is_confined(fleet.docker.inspect("container", fleet.container(name)))]
    report.expect(f"all {len(SERVICES)} containers are read-only and without capabilities", not open_, " ".join(open_))
    cpu = _probe_s(fleet)
    report.expect("a health check costs under 0.3 s of CPU", cpu < 0.3, f"{cpu:.3f} s")


def _is_confined(container: dict[str, Any]) -> bool:
    host = container["HostConfig"]
    return bool(
        host["ReadonlyRootfs"]
        and host["CapDrop"] == ["ALL"]
        and "no-new-privileges:true" in host["SecurityOpt"]
        and host["Memory"]
        and host["LogConfig"]["Config"].get("max-size")
    )


def _probe_s(fleet: Fleet) -> float:
    """CPU time of one probe, of ten."""
    code = (
        "import os, subprocess\n"
        "for _ in range(10): subprocess.run(['neurogate-probe', 'http://127.0.0.1:9091/ready'], check=True)\n"
        "spent = os.times()\n"
        "print((spent.children_user + spent.children_system) / 10)"
    )
    done = fleet.run("exec", "-T", "gateway", "python", "-c", code)
    return float(done.stdout or "inf")
