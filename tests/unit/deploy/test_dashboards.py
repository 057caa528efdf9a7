"""The dashboards are what their code makes, and ask only for what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from queries_support import KNOWN_ELSEWHERE, metrics_in, recorded, told

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy/grafana/dashboards"
PROVISIONING = ROOT / "deploy/grafana/provisioning"
NAMES = ("keys", "overview", "request", "workers")
UID = "neurogate-prometheus"


def board(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def panels(name: str) -> Iterator[dict[str, Any]]:
    for panel in board(name)["panels"]:
        yield panel
        yield from panel.get("panels", ())


def asked(name: str) -> Iterator[tuple[str, str]]:
    for panel in panels(name):
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for note in board(name)["annotations"]["list"]:
        yield "annotation", note["expr"]


def test_the_files_are_those_that_make_dashboards_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools/dashboards/generate.py", "--out", tmp_path], check=True)

    written = {path.name: path.read_text() for path in tmp_path.iterdir()}

    assert sorted(written) == [f"{name}.json" for name in NAMES]
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == written, "run make dashboards"


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_own_schema_reads_them(name: str) -> None:
    read = Dashboard.from_json(board(name))

    assert read.uid == f"neurogate-{name}"
    assert read.schema_version == 41  # that of Grafana 11.6


@pytest.mark.parametrize("name", NAMES)
def test_every_query_parses_and_asks_for_what_there_is(name: str) -> None:
    known = told() | recorded() | KNOWN_ELSEWHERE

    unknown = {
        (title, metric)
        for title, expr in asked(name)
        for metric in metrics_in(expr)
        if metric not in known and not metric.startswith(("llamacpp_", "process_"))
    }

    assert not unknown


@pytest.mark.parametrize("name", NAMES)
def test_variables_ask_for_what_there_is_and_every_variable_in_a_query_exists(name: str) -> None:
    variables = {variable["name"]: variable for variable in board(name)["templating"]["list"]}
    queries = [variable["query"]["query"] for variable in variables.values() if variable["type"] == "query"]

    assert all(metrics_in(query.removeprefix("label_values(").split(",")[0]) <= told() for query in queries)
    for _, expr in asked(name):
        used = {word.split('"')[0] for word in expr.split("$")[1:]}
        own = {word for word in used if not word.startswith("__")}
        assert own <= set(variables)
    assert all(
        f'"${variable}"' in json.dumps(board(name)).replace('\\"', '"')
        for variable in variables
        if variable != "datasource"
    )


@pytest.mark.parametrize("name", NAMES)
def test_all_panels_ask_the_one_source_by_its_variable_which_is_the_provisioned_uid(name: str) -> None:
    variable = next(each for each in board(name)["templating"]["list"] if each["name"] == "datasource")
    asking = [panel for panel in panels(name) if panel.get("targets")]
    provisioned = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())

    assert [source["uid"] for source in provisioned["datasources"]] == [UID]
    assert (variable["type"], variable["query"], variable["current"]["value"]) == ("datasource", "prometheus", UID)
    assert {panel["datasource"]["uid"] for panel in asking} == {"${datasource}"}
    assert {target["datasource"]["uid"] for panel in asking for target in panel["targets"]} == {"${datasource}"}


def test_the_manifests_provision_the_same_uid() -> None:
    rendered = (ROOT / "deploy/k8s/overlays/kind/configmap.yaml").read_text()

    assert f"uid: {UID}" in rendered


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_has_an_id_of_its_own_and_says_what_it_shows(name: str) -> None:
    every = list(panels(name))
    ids = [panel["id"] for panel in every]
    shown = [panel for panel in every if panel["type"] != "row"]

    assert len(set(ids)) == len(ids)
    assert len({panel["title"] for panel in shown}) == len(shown) or name == "workers"
    for panel in shown:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["type"] == "text" or panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_no_panel_covers_another_one_or_leaves_the_page(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board(name)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("name", NAMES)
def test_what_is_a_rate_has_a_unit_by_the_second(name: str) -> None:
    """The first NeuroGate's legend said tokens a minute of a rate by the second."""
    for panel in panels(name):
        exprs = [target["expr"] for target in panel.get("targets", ())]
        if exprs and all(
            expr.startswith(("sum(rate(", "sum by")) and "rate(" in expr and "/" not in expr for expr in exprs
        ):
            assert panel["fieldConfig"]["defaults"]["unit"] in {"reqps", "eps", "suffix:tok/s"}, panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_what_counts_a_minute_has_a_unit_by_the_minute_and_nothing_else_has(name: str) -> None:
    for panel in panels(name):
        exprs = [target["expr"] for target in panel.get("targets", ())]
        by_the_minute = bool(exprs) and all("offset 1m" in expr for expr in exprs)

        assert by_the_minute == (panel.get("fieldConfig", {}).get("defaults", {}).get("unit") == "suffix:/min")


@pytest.mark.parametrize("name", NAMES)
def test_dashboards_lead_to_each_other_and_to_the_runbook(name: str) -> None:
    links = board(name)["links"]

    assert [link["tags"] for link in links if link["type"] == "dashboards"] == [["neurogate"]]
    assert board(name)["tags"] == ["neurogate"]
    assert any(link["url"].endswith("/runbook.md") for link in links if link["type"] == "link")


def test_the_provider_reads_where_the_files_are_mounted() -> None:
    provider = yaml.safe_load((PROVISIONING / "dashboards/neurogate.yml").read_text())["providers"][0]

    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in (ROOT / "compose.yaml").read_text()
