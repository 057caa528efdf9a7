"""The manifests of deploy/k8s: made from the chart, and holding what docs/deploy.md promises of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import neurogate

ROOT = Path(__file__).resolve().parents[3]
K8S = ROOT / "deploy" / "k8s"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neurogate"
WORKLOADS = {"Deployment", "StatefulSet"}


def objects(folder: str) -> list[dict[str, Any]]:
    """The objects in a folder's files, without what is a kustomization."""
    files = [path for path in sorted((K8S / folder).glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [each for path in files for each in yaml.safe_load_all(path.read_text())]


ALL = [(folder, each) for folder in ("base", "overlays/kind", "overlays/production") for each in objects(folder)]
PODS = [
    pytest.param(each["spec"]["template"]["spec"], id=f"{folder} {each['metadata']['name']}")
    for folder, each in ALL
    if each["kind"] in WORKLOADS
]


def one(kind: str, name: str) -> dict[str, Any]:
    """An object of the base."""
    (found,) = (each for each in objects("base") if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of them, init containers too."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def configuration(name: str = "base") -> dict[str, Any]:
    """The configuration file in the ConfigMap."""
    text = one("ConfigMap", "neurogate-config")["data"]["config.yaml"]
    if name != "base":
        patches = yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())["patches"]
        (steps,) = (yaml.safe_load(each["patch"]) for each in patches if each["target"]["kind"] == "ConfigMap")
        (text,) = (step["value"] for step in steps if step["path"] == "/data/config.yaml")
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


@pytest.fixture(scope="module")
def render() -> ModuleType:
    """tools/k8s_render.py."""
    spec = importlib.util.spec_from_file_location("k8s_render", ROOT / "tools" / "k8s_render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def helm() -> Path:
    """The helm that the manifests are made with."""
    found = sorted(CACHE.glob("kubectl-helm-*/helm"))
    if not found:
        pytest.skip("helm is not here: tools/verify/get-kubectl-helm gets it (38 MB)")
    return found[-1]


def test_the_manifests_are_what_the_chart_renders(render: ModuleType, helm: Path):
    """Whoever edits them by hand is told to edit the chart."""
    made = render.everything(str(helm))
    there = {
        path.relative_to(K8S): path.read_text()
        for folder in ("base", "overlays")
        for path in (K8S / folder).rglob("*.yaml")
    }
    assert there.keys() == made.keys(), "run make k8s-render"
    for path, text in made.items():
        assert there[path] == text, (
            f"deploy/k8s/{path} is not what the chart renders: edit the chart, run make k8s-render"
        )


@pytest.mark.parametrize("name", ["kind", "production"])
def test_an_overlay_is_the_chart_with_that_overlays_values(render: ModuleType, helm: Path, name: str):
    """kustomize's patches lose and add nothing."""
    kubectl = helm.with_name("kubectl")
    told = subprocess.run([kubectl, "kustomize", K8S / "overlays" / name], capture_output=True, text=True, check=True)
    built = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(told.stdout)}
    wanted = render.rendered(str(helm), K8S / f"values-{name}.yaml")
    assert built == {key: yaml.safe_load(text) for key, text in wanted.items()}


@pytest.mark.parametrize("values", ["gateway:\n  replica: 3\n", "worker:\n  engine: vllm\n", "configs: {}\n"])
def test_a_value_that_does_not_exist_is_refused(tmp_path: Path, helm: Path, values: str):
    (tmp_path / "values.yaml").write_text(values)
    told = subprocess.run(
        [helm, "template", "x", K8S / "chart", "--values", tmp_path / "values.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode != 0
    assert "values don't meet the specifications of the schema" in told.stderr


@pytest.mark.parametrize("pod", PODS)
def test_every_pod_fulfils_the_restricted_pod_security_standard(pod: dict[str, Any]):
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] >= 10000
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    allowed = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    assert all(volume.keys() - {"name"} <= allowed for volume in pod.get("volumes", []))
    for container in containers(pod):
        held = container["securityContext"]
        assert held["allowPrivilegeEscalation"] is False
        assert held["capabilities"] == {"drop": ["ALL"]}
        assert held["readOnlyRootFilesystem"] is True
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("pod", PODS)
def test_every_container_says_what_it_needs_and_what_it_may_have(pod: dict[str, Any]):
    for container in containers(pod):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys()


@pytest.mark.parametrize("pod", PODS)
def test_only_who_asks_the_cluster_something_has_a_token(pod: dict[str, Any]):
    asks = pod["serviceAccountName"] in {"neurogate-gateway", "neurogate-prometheus"}
    assert pod["automountServiceAccountToken"] is asks


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "neurogate-gateway"), ("StatefulSet", "neurogate-worker")])
def test_a_process_that_stops_has_time_for_its_longest_request(kind: str, name: str):
    settings = configuration()["worker" if kind == "StatefulSet" else "gateway"]
    longest_s = 300  # gateway.request_timeout_s
    drains_s = settings["drain_timeout_s"]
    grace_s = one(kind, name)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert longest_s < drains_s
    assert drains_s + settings.get("drain_delay_s", 0.5) < grace_s


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "neurogate-gateway"), ("StatefulSet", "neurogate-worker")])
def test_liveness_asks_nothing_of_others_and_readiness_does(kind: str, name: str):
    (container,) = one(kind, name)["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/ping"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    started_s = container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"]
    assert started_s >= (660 if kind == "StatefulSet" else 30), "longer than a model may take to load"


def test_gateways_see_each_worker_and_not_one_address_for_all():
    service = one("Service", "neurogate-worker-headless")["spec"]
    assert service["clusterIP"] == "None"
    assert one("StatefulSet", "neurogate-worker")["spec"]["serviceName"] == "neurogate-worker-headless"
    assert configuration()["discovery"]["sources"] == ["kubernetes:neurogate-worker-headless:grpc"]
    assert "grpc" in {port["name"] for port in service["ports"]}


def test_a_gateway_may_ask_for_endpoint_slices_and_nothing_else():
    assert one("Role", "neurogate-gateway")["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    assert not [each for _, each in ALL if each["kind"].startswith("ClusterRole")]


def test_services_and_policies_select_pods_that_there_are():
    pods = [each["spec"]["template"] for _, each in ALL if each["kind"] in WORKLOADS]
    labels = [pod["metadata"]["labels"].items() for pod in pods]
    for folder, each in ALL:
        selector = {
            "Service": lambda spec: spec["selector"],
            "NetworkPolicy": lambda spec: spec["podSelector"].get("matchLabels", {}),
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        }.get(each["kind"])
        if selector:
            assert any(selector(each["spec"]).items() <= pod for pod in labels), (folder, each["metadata"]["name"])


def test_nobody_but_gateways_and_prometheus_reaches_a_worker():
    first, second = one("NetworkPolicy", "neurogate-worker")["spec"]["ingress"]
    assert [port["port"] for port in first["ports"]] == ["grpc"]
    assert [list(each) for each in first["from"]] == [["podSelector"]]
    assert [port["port"] for port in second["ports"]] == ["metrics"]
    denied = one("NetworkPolicy", "neurogate-default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress"]}


@pytest.mark.parametrize("overlay", ["base", "production"])
@pytest.mark.parametrize("process", ["gateway", "worker"])
def test_the_configuration_file_is_one_that_its_process_takes(tmp_path: Path, overlay: str, process: str):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(configuration(overlay)))
    account = tmp_path / "account"
    account.mkdir()
    (account / "namespace").write_text("neurogate")
    told = subprocess.run(
        [sys.executable, "-m", "neurogate", "check", "--process", process, "--config", file],
        env={
            **os.environ,
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
            "NEUROGATE_KUBERNETES_ACCOUNT": str(account),
            "NEUROGATE_MODEL_DIR": str(tmp_path),
            "API_KEYS": "a-key-that-is-long-enough",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_chart_is_of_this_version():
    chart = yaml.safe_load((K8S / "chart" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == neurogate.__version__


def test_kind_offers_the_ports_that_the_documentation_names():
    (control, *workers) = yaml.safe_load((K8S / "kind.yaml").read_text())["nodes"]
    assert [port["hostPort"] for port in control["extraPortMappings"]] == [30080, 30090, 30030]
    assert len(workers) == 2
    ports = {
        port["nodePort"]
        for each in objects("overlays/kind")
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
    }
    assert ports == {30090, 30030}
    assert "30080" in (K8S / "overlays/kind/kustomization.yaml").read_text()


def test_a_worker_with_a_gpu_goes_where_there_is_one(render: ModuleType, helm: Path, tmp_path: Path):
    values = tmp_path / "values.yaml"
    values.write_text("worker: {gpu: {enabled: true, runtimeClassName: nvidia}, image: {tag: '1'}}\n")
    worker = yaml.safe_load(render.rendered(str(helm), values)["StatefulSet", "neurogate-worker"])
    pod = worker["spec"]["template"]["spec"]
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    (container,) = pod["containers"]
    assert container["image"] == "neurogate-worker-cuda:1"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["resources"]["limits"]["memory"] == "1Gi", "beside the other limits"


@pytest.mark.parametrize("known", [True, False])
def test_service_monitors_are_made_only_where_the_cluster_knows_them(helm: Path, known: bool):
    versions = ["--api-versions", "monitoring.coreos.com/v1"] if known else []
    command = [helm, "template", "x", K8S / "chart", "--set", "monitoring.serviceMonitor.enabled=true", *versions]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.count("kind: ServiceMonitor") == (2 if known else 0)


def test_links_with_certificates_are_told_to_both_ends(render: ModuleType, helm: Path, tmp_path: Path):
    values = tmp_path / "values.yaml"
    values.write_text("linkTls: {existingSecret: link}\n")
    objects = render.rendered(str(helm), values)
    config = yaml.safe_load(yaml.safe_load(objects["ConfigMap", "neurogate-config"])["data"]["config.yaml"])
    assert config["link_tls"]["name"] == "neurogate-worker"
    for key in (("Deployment", "neurogate-gateway"), ("StatefulSet", "neurogate-worker")):
        pod = yaml.safe_load(objects[key])["spec"]["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert config["link_tls"]["cert"] == f"{mounts['link-tls']}/tls.crt"
        assert {"name": "link-tls", "secret": {"secretName": "link", "defaultMode": 0o440}} in pod["volumes"]


def test_dashboards_name_the_data_source_that_grafana_is_given():
    found = {each["metadata"]["name"]: each["data"] for each in objects("overlays/kind") if each["kind"] == "ConfigMap"}
    (source,) = yaml.safe_load(found["neurogate-grafana"]["datasource.yaml"])["datasources"]
    assert source["url"] == "http://neurogate-prometheus:9090"
    dashboards = [data for name, data in found.items() if name.startswith("neurogate-dashboard-")]
    assert len(dashboards) >= 4
    for data in dashboards:
        (text,) = data.values()
        assert json.loads(text)["title"]
        assert f'"{source["uid"]}"' in text
        assert len(text) < 200_000, "kubectl apply keeps a copy in an annotation, which holds 256 KB"
