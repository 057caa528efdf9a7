"""What is asked of the fleet on a node: answers, rights, confinement, and that nothing is lost when it changes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k8s_node import NAMESPACE, NODE_ADDRESS, Node
from report import ROOT, Report

KEY = "neurogate-secret-key-1"
"""Of the overlay `kind`."""
PER_SECOND = 15
SEEN_S = 5.0
"""Within so many seconds a gateway must know of a change."""
GATEWAY = f"system:serviceaccount:{NAMESPACE}:neurogate-gateway"
WORKER = f"system:serviceaccount:{NAMESPACE}:neurogate-worker"

_ASK_API = """
import json, ssl, sys, urllib.error, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
for path in sys.argv[1:]:
    request = urllib.request.Request("https://10.96.0.1" + path)
    request.add_header("Authorization", "Bearer " + open(account + "token").read())
    try:
        print(urllib.request.urlopen(request, context=ssl.create_default_context(cafile=account + "ca.crt")).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
_CONFINED = """
import os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
def writable(path):
    try:
        open(path + "/probe", "w").close()
        os.unlink(path + "/probe")
        return True
    except OSError:
        return False
told = [status[name].strip() for name in ("CapEff", "NoNewPrivs", "Seccomp")]
told += [writable(path) for path in ("/", "/etc", "/tmp")]
print(os.getuid(), os.getgid(), *told, os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token"))
"""


def troubles(node: Node) -> str:
    """What there is to see when pods do not become ready."""
    pods = node.try_kubectl("get", "pods", "-o", "wide").stdout
    events = node.try_kubectl("get", "events", "--sort-by=.lastTimestamp").stdout.splitlines()[-8:]
    logs = [
        node.try_kubectl(
            "logs", "--tail=5", "--all-containers", "-l", f"app.kubernetes.io/component={component}"
        ).stdout
        for component in ("gateway", "worker")
    ]
    return "\n".join([pods, *events, *logs])


def pods(node: Node, component: str) -> list[dict[str, Any]]:
    """Those that are to stay."""
    items = node.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether Kubernetes says so."""
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def rolled(node: Node, workload: str) -> None:
    """Wait until a workload is as it should be. Raises RuntimeError."""
    node.ask("rollout", "status", workload, "--timeout=400s", timeout_s=420)


def seen_by(node: Node, gateway: str) -> dict[str, str]:
    """State by name of the workers that a gateway knows."""
    status, body = node.curl("--max-time", "3", f"http://{gateway}:8080/workers")
    if status != 200:
        return {}
    return {worker["id"]: worker["state"] for worker in json.loads(body)["workers"]}


def answers(report: Report, node: Node) -> None:
    """A prompt through the Service, by its address and by its NodePort, and none without a key."""
    address = node.get("service", "neurogate-gateway")["spec"]["clusterIP"]
    body = ["-H", "Content-Type: application/json", "-d", '{"query": "Say hello.", "max_tokens": 12}']
    key = ["-H", f"Authorization: Bearer {KEY}"]
    for what, url in (("Service", f"http://{address}"), ("NodePort", f"http://{NODE_ADDRESS}:30080")):
        began = time.monotonic()
        status, said = node.curl(*key, *body, f"{url}/prompt")
        answer = json.loads(said) if status == 200 else {}
        took = f"{answer.get('response')!r} of {answer.get('worker_id')} in {time.monotonic() - began:.1f} s"
        report.expect(
            f"a prompt is answered through the {what}", bool(answer.get("response")), took if answer else said[-300:]
        )
    status, said = node.curl(*body, f"http://{address}/prompt")
    report.expect("without a key it is refused", status == 401, f"{status}")
    known = {pod["status"]["podIP"]: seen_by(node, pod["status"]["podIP"]) for pod in pods(node, "gateway")}
    names = {"neurogate-worker-0", "neurogate-worker-1"}
    right = len(known) == 2 and all(workers.keys() == names for workers in known.values())
    report.expect("each gateway has a link to each worker", right, json.dumps(known))


def rights(report: Report, node: Node) -> None:
    """What the accounts may ask of the cluster, by the API server's word and by its deeds."""
    for account, verb, resource, allowed in (
        (GATEWAY, "list", "endpointslices.discovery.k8s.io", True),
        (GATEWAY, "watch", "endpointslices.discovery.k8s.io", True),
        (GATEWAY, "get", "secrets", False),
        (GATEWAY, "list", "pods", False),
        (GATEWAY, "create", "pods", False),
        (GATEWAY, "patch", "endpointslices.discovery.k8s.io", False),
        (WORKER, "list", "endpointslices.discovery.k8s.io", False),
        (WORKER, "get", "secrets", False),
    ):
        told = node.try_kubectl("auth", "can-i", verb, resource, f"--as={account}").stdout.strip()
        name = account.rpartition(":")[2]
        report.expect(
            f"{name} {'may' if allowed else 'may not'} {verb} {resource}", told == ("yes" if allowed else "no"), told
        )
    elsewhere = ("list", "endpointslices.discovery.k8s.io", "-n", "kube-system", f"--as={GATEWAY}")
    told = node.try_kubectl("auth", "can-i", *elsewhere).stdout.strip()
    report.expect("neurogate-gateway may not in another namespace", told == "no", told)
    paths = [
        f"/apis/discovery.k8s.io/v1beta1/namespaces/{NAMESPACE}/endpointslices",
        f"/api/v1/namespaces/{NAMESPACE}/secrets",
        f"/api/v1/namespaces/{NAMESPACE}/pods",
        "/apis/discovery.k8s.io/v1beta1/endpointslices",
    ]
    gateway = pods(node, "gateway")[0]["metadata"]["name"]
    statuses = node.ask("exec", gateway, "--", "python3", "-c", _ASK_API, *paths).split()
    report.expect(
        "asked from a gateway's pod, with its token", statuses == ["200", "403", "403", "403"], " ".join(statuses)
    )


def confined(report: Report, node: Node) -> None:
    """What a process in a pod can do."""
    for component, token in (("gateway", "True"), ("worker", "False")):
        pod = pods(node, component)[0]["metadata"]["name"]
        told = node.ask("exec", pod, "-c", component, "--", "python3", "-c", _CONFINED).split()
        user, group, capabilities, no_new, seccomp, root, etc, tmp, has_token = told
        right = (
            (user, group, no_new, root, etc, tmp, has_token) == ("10001", "10001", "1", "False", "False", "True", token)
            and int(capabilities, 16) == 0
            and seccomp == "2"
        )
        seen = f"user {user}, capabilities {capabilities}, seccomp {seccomp}, root writable {root}, token {has_token}"
        report.expect(f"{component}: no root, no capability, nothing writable, no privilege to gain", right, seen)


def scraped(report: Report, node: Node) -> None:
    """Prometheus in its pod finds gateways and workers by the API server, and rules are loaded."""
    rolled(node, "deployment/neurogate-prometheus")
    address = node.get("service", "neurogate-prometheus")["spec"]["clusterIP"]
    wanted = {"neurogate-gateway": 2, "neurogate-worker": 2}
    up: dict[str, int] = {}
    for _ in range(80):
        status, body = node.curl(f"http://{address}:9090/api/v1/targets?state=active")
        targets = json.loads(body)["data"]["activeTargets"] if status == 200 else []
        up = {job: sum(each["labels"]["job"] == job and each["health"] == "up" for each in targets) for job in wanted}
        if up == wanted:
            break
        time.sleep(0.5)
    report.expect("Prometheus in a pod scrapes every gateway and worker", up == wanted, json.dumps(up))
    status, body = node.curl(f"http://{address}:9090/api/v1/rules")
    count = sum(len(group["rules"]) for group in json.loads(body)["data"]["groups"]) if status == 200 else 0
    report.expect("Prometheus in a pod has the rules", count > 0, f"{count} rules")


def demonstrated(report: Report, node: Node) -> None:
    """`make demo-k8s`: among other things, a stream outlives the pod that it came from."""
    kubectl = f"{node.kubectl} --kubeconfig {node.run / 'kc'} --namespace {NAMESPACE}"
    done = subprocess.run(
        node.inside("env", f"URL=http://{NODE_ADDRESS}:30080", ROOT / "tools" / "demo-k8s", kubectl),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("killing", "the client got"))]
    right = done.returncode == 0 and done.stdout.count("killing pod/") == 1
    report.expect("a stream outlives its worker's pod (tools/demo-k8s)", right, "; ".join(told) or done.stderr[-500:])
    rolled(node, "statefulset/neurogate-worker")


class Load:
    """A steady load through the Service while it lasts."""

    def __init__(self, node: Node, address: str) -> None:
        command: list[str | Path] = [
            sys.executable,
            Path(__file__).with_name("k8s_load.py"),
            address,
            "80",
            KEY,
            str(PER_SECOND),
        ]
        self._process = subprocess.Popen(
            node.inside(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "loading\n":
            _, said = self._process.communicate()
            raise RuntimeError(f"the load did not begin: {said[-1500:]}")

    def counts(self) -> dict[str, Any]:
        """End it; what became of it. Raises RuntimeError."""
        try:
            told, said = self._process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise RuntimeError("the load did not end") from None
        if self._process.returncode:
            raise RuntimeError(f"the load broke: {said[-1500:]}")
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        return found


def under_load(report: Report, node: Node) -> None:
    """Changes of the fleet, each under a load of its own, of which nothing may be lost."""
    address = node.get("service", "neurogate-gateway")["spec"]["clusterIP"]
    for what, change in (
        ("workers 2 -> 4", lambda: scale(report, node, 4)),
        ("workers 4 -> 1", lambda: scale(report, node, 1)),
        ("workers 1 -> 3", lambda: scale(report, node, 3)),
        ("a rolling update of the workers", lambda: restart(node, "statefulset/neurogate-worker")),
        ("a rolling update of the gateways", lambda: restart(node, "deployment/neurogate-gateway")),
        ("a worker's pod killed", lambda: kill(node)),
    ):
        lossless(report, Load(node, address), what, change)


def lossless(report: Report, load: Load, what: str, change: Callable[[], None]) -> None:
    """One change under load."""
    began = time.monotonic()
    try:
        change()
        time.sleep(2)
    finally:
        counts = load.counts()
    lost = counts["asked"] - counts["whole"]
    seen = f"{counts['asked']} requests in {time.monotonic() - began:.0f} s, {lost} lost"
    report.expect(
        f"{what} loses nothing", lost == 0 and counts["asked"] > 0, seen + (f": {counts['failed']}" if lost else "")
    )


def restart(node: Node, workload: str) -> None:
    """Replace every pod of it."""
    node.ask("rollout", "restart", workload)
    rolled(node, workload)


def kill(node: Node) -> None:
    """One worker's pod, without a warning, and wait for its successor."""
    node.ask("delete", "pod", "neurogate-worker-1", "--grace-period=0", "--force")
    rolled(node, "statefulset/neurogate-worker")


def scale(report: Report, node: Node, count: int) -> None:
    """So many workers, and how soon every gateway knows."""
    before = len(pods(node, "worker"))
    addresses = [pod["status"]["podIP"] for pod in pods(node, "gateway")]
    wanted = {f"neurogate-worker-{number}" for number in range(count)}
    changed = time.monotonic()
    node.ask("scale", "statefulset/neurogate-worker", f"--replicas={count}")
    ready_at = changed
    deadline = changed + 120
    while count > before and time.monotonic() < deadline:
        found = pods(node, "worker")
        if len(found) == count and all(map(is_ready, found)):
            ready_at = time.monotonic()
            break
        time.sleep(0.1)
    while time.monotonic() < deadline:
        usable = [{name for name, state in seen_by(node, each).items() if state == "ready"} for each in addresses]
        if all(each == wanted for each in usable):
            break
        time.sleep(0.1)
    took = max(0.0, time.monotonic() - ready_at)
    since = "they were ready" if count > before else "they were told to go"
    report.expect(
        f"{count} workers: every gateway knows within {SEEN_S:.0f} s", took <= SEEN_S, f"{took:.1f} s after {since}"
    )
    rolled(node, "statefulset/neurogate-worker")
