"""The OpenAPI document is true: what it promises is what the gateway does, whatever is sent."""

from __future__ import annotations

import json

import httpx

from clients_support import INSTANT
from cluster import Cluster
from fuzz_openapi import fuzz
from neurogate.operations import OPERATIONS


def test_no_generated_request_finds_a_lie():
    """A short run of `make fuzz`."""
    with Cluster(2, **INSTANT) as cluster:
        code, cases, report = fuzz(cluster.url, examples=5, seed=1, deterministic=True)

        assert code == 0, report[-6000:]
        assert cases > 500


def test_the_document_and_its_page_are_open_to_all():
    with Cluster(1, **INSTANT) as cluster:
        document = httpx.get(f"{cluster.url}/openapi.json").json()
        page = httpx.get(f"{cluster.url}/docs")

    assert document["openapi"] == "3.1.0"
    assert set(OPERATIONS) <= set(document["paths"])
    assert page.headers["content-type"].startswith("text/html")
    assert "script" not in page.text
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert json.dumps(document["security"]) != "[]"
