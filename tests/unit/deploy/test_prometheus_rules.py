"""Rules name what there is, alerts say what to do, and each is tested both ways."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from neurogate.telemetry import catalog
from queries_support import KNOWN_ELSEWHERE, PROMETHEUS, metrics_in, recorded, rules, told

ROOT = PROMETHEUS.parents[1]
ALERTS = rules("alerts.yml")
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOK = (ROOT / "docs/runbook.md").read_text()

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@functools.cache
def expectations() -> list[dict[str, Any]]:
    return [
        each
        for path in TESTS
        for case in yaml.safe_load(path.read_text())["tests"]
        for each in case.get("promql_expr_test", ())
    ]


def section(alert: str) -> str:
    found = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("file", ["recording.yml", "alerts.yml"])
def test_rules_ask_for_what_there_is(file: str) -> None:
    known = told() | recorded() | KNOWN_ELSEWHERE

    assert {name for rule in rules(file) for name in metrics_in(rule["expr"])} <= known


def test_every_recording_rule_is_tested_with_known_input() -> None:
    names = [rule["record"] for rule in rules("recording.yml")]
    tested = {
        name
        for each in expectations()
        if each["exp_samples"]
        for name in names
        if re.search(rf"\b{name}\b", each["expr"])
    }

    assert len(set(names)) == len(names)
    assert set(names) == tested


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_fires_in_one_test_and_stays_quiet_in_another(rule: dict[str, Any]) -> None:
    about = [
        each
        for each in expectations()
        if (matched := re.search(r'alertname=(~?)"([^"]+)"', each["expr"]))
        and (re.fullmatch(matched[2], rule["alert"]) if matched[1] else matched[2] == rule["alert"])
    ]

    assert any(f'alertname="{rule["alert"]}"' in sample["labels"] for each in about for sample in each["exp_samples"])
    assert any(not each["exp_samples"] for each in about)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_it_is_and_what_to_do_first(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "First" in notes["description"] or "first" in notes["description"]
    assert notes["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_the_runbook_has_a_section_of_every_alert_with_its_five_parts(rule: dict[str, Any]) -> None:
    parts = re.findall(r"^\*\*(.+?)\.\*\*", section(rule["alert"]), re.MULTILINE)

    assert parts == ["Means", "Users see", "Confirm", "Do", "Do not"]


def test_the_runbook_has_no_section_of_an_alert_that_there_is_not() -> None:
    assert re.findall(r"^## (NeuroGate\w+)$", RUNBOOK, re.MULTILINE) == [rule["alert"] for rule in ALERTS]


def test_queries_of_the_runbook_ask_for_what_there_is() -> None:
    known = told() | recorded() | KNOWN_ELSEWHERE | {"process_cpu_seconds_total"}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    queries = [line for language, block in blocks if not language for line in block.splitlines()]
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known}

    assert len(queries) > len(ALERTS)
    assert {name for query in queries for name in metrics_in(query)} <= known
    assert set(re.findall(r"`((?:neurogate|ollama)_[a-z0-9_]+)", RUNBOOK)) <= known | families


def test_the_objective_is_the_same_in_its_constant_its_ratios_and_a_bound_of_the_histogram() -> None:
    by_name = {rule["record"]: rule["expr"] for rule in rules("recording.yml")}
    threshold = re.fullmatch(r"vector\((.+)\)", by_name["neurogate:slo_ttft:threshold_seconds"])
    ratios = [expr for name, expr in by_name.items() if ":slo_ttft:slow_ratio" in name]

    assert threshold is not None
    assert {bound for expr in ratios for bound in re.findall(r'le="([^"]+)"', expr)} == {threshold[1]}
    assert float(threshold[1]) in catalog.GATEWAY_TTFT.buckets


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("name", ["prometheus", "prometheus-dns", "prometheus-kubernetes"])
def test_prometheus_takes_its_configuration(name: str, tmp_path: Path) -> None:
    """Debian builds Prometheus without Kubernetes, so there that way of discovery is put aside."""
    config = yaml.safe_load((PROMETHEUS / f"{name}.yml").read_text())
    for job in [*config["scrape_configs"], *config["alerting"]["alertmanagers"]]:
        job.pop("kubernetes_sd_configs", None)
    (tmp_path / "rules").symlink_to(PROMETHEUS / "rules")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))

    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["prometheus", "prometheus-dns", "prometheus-kubernetes"])
def test_every_way_of_discovery_has_the_jobs_that_rules_name(name: str) -> None:
    config = yaml.safe_load((PROMETHEUS / f"{name}.yml").read_text())

    assert {"neurogate-gateway", "neurogate-worker"} <= {job["job_name"] for job in config["scrape_configs"]}


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")
def test_alertmanager_takes_its_configuration() -> None:
    done = subprocess.run(
        ["amtool", "check-config", PROMETHEUS / "alertmanager.yml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_alertmanager_inhibits_are_alerts_that_there_are() -> None:
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    names = [rule["alert"] for rule in ALERTS]

    for inhibition in config["inhibit_rules"]:
        for matcher in inhibition["source_matchers"] + inhibition["target_matchers"]:
            label, operator, value = re.fullmatch(r'(\w+) (=~?) "?([^"]+)"?', matcher).groups()  # type: ignore[union-attr]
            matching = [name for name in names if (re.fullmatch(value, name) if operator == "=~" else name == value)]
            assert label == "alertname"
            assert matching, matcher
