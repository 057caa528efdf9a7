"""The rung of Kubernetes: the rendered manifests on a real node, scaled, rolled and hurt under load.

    python tools/verify/kubernetes.py [--images ARCHIVE]

The node is Kubernetes 1.20 with containerd, built from Debian's source package (k8s_node.py), the newest that can be
had without a registry; newer versions' schemas are the first rung's business. What it cannot know is skipped aloud.
Images come from the Docker rung's engine, or from an archive of `docker save` that has neurogate-gateway:verify and
neurogate-worker:verify.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker_images
import k8s_drills
import yaml
from docker_host import OWN, Docker, NoDockerError
from k8s_node import NODE_ADDRESS, Node, NoNodeError
from report import ROOT, Report

K8S = ROOT / "deploy" / "k8s"
PROMETHEUS = "prom/prometheus:v3.5.0"
MODEL_DIR = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neurogate" / "models"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
CLAIMS = 4
"""Workers at most."""


def images(report: Report, into: Path) -> bool:
    """Build and save them with the engine of the Docker rung, which is left as it was; whether they are there."""
    ran_before = (OWN / "dockerd.pid").exists()
    try:
        docker = Docker.up()
    except NoDockerError as error:
        report.skipped("everything", f"the images cannot be built: {error}")
        return False
    try:
        tag = docker_images.TAG
        done = subprocess.run(
            ["make", "docker", f"DOCKER_TAG={tag}", "REGISTRY="],
            cwd=ROOT,
            env=docker.environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if not report.expect("images", done.returncode == 0, "" if done.returncode == 0 else done.stderr[-2000:]):
            return False
        wanted = [f"neurogate-gateway:{tag}", f"neurogate-worker:{tag}"]
        if docker.run("image", "inspect", PROMETHEUS).returncode == 0:
            wanted.append(PROMETHEUS)
        docker.said("save", "--output", str(into), *wanted)
    finally:
        if not ran_before:
            docker.down()
    return True


def rendered(node: Node, folder: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would apply."""
    text = subprocess.run([node.kubectl, "kustomize", K8S / folder], capture_output=True, text=True, check=True).stdout
    return [each for each in yaml.safe_load_all(text) if each]


def name_of(each: dict[str, Any]) -> str:
    """An object in words."""
    return f"{each['kind']} {each['metadata']['name']}"


def judged(report: Report, node: Node, folder: str) -> None:
    """Every object of a folder, judged by the API server, which keeps nothing of it."""
    known = set(node.ask("api-versions").split())
    refused = []
    objects = rendered(node, folder)
    for each in objects:
        if each["apiVersion"] not in known:
            report.skipped(
                f"{folder}: {name_of(each)}", f"Kubernetes 1.20 has no {each['apiVersion']}; its schema is checked"
            )
            continue
        done = node.try_kubectl("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump(each))
        if done.returncode:
            refused.append(f"{name_of(each)}: {done.stderr.strip()[-400:]}")
    report.expect(f"{folder}: {len(objects)} objects judged by the API server", not refused, "; ".join(refused))


def fitted(objects: list[dict[str, Any]], *, prometheus: bool) -> Iterator[dict[str, Any]]:
    """The overlay `kind`, as this node can run it: images by the rung's tag, two of each, no Grafana."""
    for each in objects:
        component = each["metadata"].get("labels", {}).get("app.kubernetes.io/component", "")
        if component == "grafana" or (component == "prometheus" and not prometheus):
            continue
        if each["kind"] in {"Deployment", "StatefulSet"} and component in {"gateway", "worker"}:
            each["spec"]["replicas"] = 2
            pod = each["spec"]["template"]["spec"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                container["image"] = f"{container['image'].split(':')[0]}:{docker_images.TAG}"
        yield each


def volumes(run: Path, *, model: Path | None) -> Iterator[dict[str, Any]]:
    """A volume for each worker's claim, with the model if there is one: nothing here provisions them."""
    for number in range(CLAIMS):
        folder = run / "models" / str(number)
        folder.mkdir(parents=True)
        if model is not None:
            shutil.copy(model, folder / MODEL)
        for path in (folder, *folder.iterdir()):
            os.chown(path, 10001, 10001)
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"models-{number}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(folder)},
                "claimRef": {"namespace": "neurogate", "name": f"models-neurogate-worker-{number}"},
            },
        }


def with_engine(objects: list[dict[str, Any]], engine: str) -> dict[str, Any]:
    """The ConfigMap with another engine: a fast simulated one, whose answers can be foretold."""
    (config,) = (each for each in objects if name_of(each) == "ConfigMap neurogate-config")
    file = yaml.safe_load(config["data"]["config.yaml"])
    file["engine"] = {"engine": engine}
    if engine == "sim":
        file["sim"] = {"prefill_tps": 0, "decode_tps": 60, "slots": 50}
    return {**config, "data": {"config.yaml": yaml.safe_dump(file)}}


def deploy(report: Report, node: Node, run: Path, *, prometheus: bool) -> list[dict[str, Any]] | None:
    """Apply the overlay `kind` and wait; the objects, or None when pods do not become ready."""
    model = MODEL_DIR / MODEL
    real = model.exists()
    if not real:
        report.skipped("a real model in pods", "it is not here: neurogate models fetch")
    if not prometheus:
        report.skipped("Prometheus in a pod", f"there is no image {PROMETHEUS}, nor a registry to pull it from")
    report.skipped("Grafana in a pod", "its image cannot be had without a registry")
    objects = list(fitted(rendered(node, "overlays/kind"), prometheus=prometheus))
    if not real:
        objects = [
            with_engine(objects, "sim") if name_of(each) == "ConfigMap neurogate-config" else each for each in objects
        ]
    namespace = [each for each in objects if each["kind"] == "Namespace"]
    others = [each for each in objects if each["kind"] != "Namespace"]
    began = time.monotonic()
    for batch in (namespace, list(volumes(run, model=model if real else None)), others):
        node.ask("apply", "-f", "-", given=yaml.safe_dump_all(batch))
    for workload in ("deployment/neurogate-gateway", "statefulset/neurogate-worker"):
        done = node.try_kubectl("rollout", "status", workload, "--timeout=400s", timeout_s=420)
        if done.returncode:
            report.failed(f"{workload} becomes ready", f"{done.stderr.strip()}\n{k8s_drills.troubles(node)}")
            return None
    engine = "llama.cpp and a real model" if real else "the simulated engine"
    report.ok("pods run and become ready", f"2 gateways, 2 workers with {engine}, {time.monotonic() - began:.0f} s")
    return objects


def climb(report: Report, node: Node, run: Path, *, prometheus: bool) -> None:
    """Everything that a node can be asked."""
    version = node.get("nodes")["items"][0]["status"]["nodeInfo"]
    report.ok(
        "a node", f"Kubernetes {version['kubeletVersion']}, {version['containerRuntimeVersion']}, at {NODE_ADDRESS}"
    )
    node.ask("create", "namespace", "neurogate")
    for folder in ("base", "overlays/kind", "overlays/production"):
        judged(report, node, folder)
    objects = deploy(report, node, run, prometheus=prometheus)
    if objects is None:
        return
    k8s_drills.answers(report, node)
    k8s_drills.rights(report, node)
    k8s_drills.confined(report, node)
    if prometheus:
        k8s_drills.scraped(report, node)
    k8s_drills.demonstrated(report, node)
    # What follows compares answers, and wants them fast.
    node.ask("apply", "-f", "-", given=yaml.safe_dump(with_engine(objects, "sim")))
    node.ask("rollout", "restart", "statefulset/neurogate-worker")
    k8s_drills.rolled(node, "statefulset/neurogate-worker")
    k8s_drills.under_load(report, node)


def main() -> int:
    """Node up, climb, node down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="an archive of `docker save`, in place of building them")
    arguments = parser.parse_args()
    report = Report("kubernetes")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="neurogate-k8s-") as directory:
        run = Path(directory)
        archive = arguments.images
        if archive is None:
            if os.geteuid() != 0:
                report.skipped("everything", "only root can run a node")
                return report.finish()
            archive = run / "images.tar"
            if not images(report, archive):
                return report.finish()
        try:
            node = Node.up(run / "node")
        except NoNodeError as error:
            report.skipped("everything", str(error))
            return report.finish()
        try:
            node.load(archive)
            listed = subprocess.run(
                ["ctr", "-a", node.run / "ctd" / "containerd.sock", "-n", "k8s.io", "images", "list", "-q"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            climb(report, node, run, prometheus=PROMETHEUS in listed)
            report.skipped("network policies", "the node's network (CNI bridge) does not enforce them")
            report.skipped("HPA", "Kubernetes 1.20 has no autoscaling/v2; its schema is checked")
            report.skipped("Kind", "its node image cannot be had without a registry")
        except (RuntimeError, subprocess.SubprocessError) as error:
            report.failed("the node answers", str(error))
        finally:
            node.down()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
