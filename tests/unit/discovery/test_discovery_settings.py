"""NEUROGATE_DISCOVERY: what may stand in it, and what is said of what may not."""

from __future__ import annotations

import pytest

from config_support import gateway_config
from neurogate.discovery.settings import DiscoverySettings, problems
from neurogate.discovery.sources import DnsSource, KubernetesSource, dynamic, parse, wrong


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("dns:neurogate-worker-headless.neurogate.svc:50051", "neurogate-worker-headless.neurogate.svc", 50051),
        ("dns:workers:1", "workers", 1),
        ("dns:Workers.Example.:65535", "Workers.Example.", 65535),
        ("dns:_grpc._tcp.workers.neurogate.svc", "_grpc._tcp.workers.neurogate.svc", 0),
    ],
)
def test_a_name_is_asked_for_addresses_with_a_port_and_for_srv_records_without(text: str, name: str, port: int):
    assert parse(text) == DnsSource(text, name, port)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kubernetes:workers", ("", "workers", "")),
        ("kubernetes:neurogate/workers", ("neurogate", "workers", "")),
        ("kubernetes:neurogate/workers:50051", ("neurogate", "workers", "50051")),
        ("kubernetes:workers:grpc", ("", "workers", "grpc")),
    ],
)
def test_a_service_may_have_a_namespace_and_a_port(text: str, parts: tuple[str, str, str]):
    assert parse(text) == KubernetesSource(text, *parts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers:50051", "is not static, dns:NAME:PORT"),
        ("", "is not static"),
        ("dns:workers", "needs the workers' port, for example dns:workers:50051"),
        ("dns:", "needs the workers' port, for example dns:workers.example:50051"),
        ("dns:workers:0", "needs the workers' port"),
        ("dns:workers:65536", "needs the workers' port"),
        ("dns:workers:grpc", "needs the workers' port"),
        ("dns:[::1]:50051", "an address belongs into WORKER_ADDRESSES"),
        ("dns:-x:50051", "has no name that can be looked up"),
        ("dns:a..b:50051", "has no name that can be looked up"),
        (f"dns:{'a.' * 130}b:50051", "has no name that can be looked up"),
        ("kubernetes:", "is not kubernetes:"),
        ("kubernetes:Workers", "is not kubernetes:"),
        ("kubernetes:a/b/c", "is not kubernetes:"),
        ("kubernetes:a:0", "is not kubernetes:"),
        ("kubernetes:a:-", "is not kubernetes:"),
        ("kubernetes:a:b:c", "is not kubernetes:"),
    ],
)
def test_what_is_no_source_is_refused_with_what_would_be_one(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        parse(text)
    assert len(list(wrong([text]))) == 1


def test_a_source_is_named_once():
    assert list(wrong(["static", "dns:a:1", "static"])) == ["a source is listed twice; each once is enough"]


def test_static_is_no_source_that_changes_by_itself():
    assert [source.text for source in dynamic(["static", "dns:a:1"])] == ["dns:a:1"]


def said(**settings: object) -> list[tuple[tuple[str, ...], str]]:
    return [(problem.keys, problem.text) for problem in problems(DiscoverySettings(**settings))]  # type: ignore[arg-type]


def test_by_default_workers_are_those_of_worker_addresses():
    assert DiscoverySettings().static
    assert not DiscoverySettings(sources=("dns:a:1",)).static
    assert said() == []


def test_kubernetes_is_asked_in_a_pod_or_where_a_url_says():
    (problem,) = said(sources=("kubernetes:a",))
    assert problem[0] == ("discovery.sources",)
    assert "set NEUROGATE_KUBERNETES_URL" in problem[1]
    assert said(sources=("kubernetes:a",), kubernetes_host="10.96.0.1") == []
    assert said(sources=("kubernetes:a",), kubernetes_url="http://localhost:8001") == []


@pytest.mark.parametrize("url", ["kubernetes.example", "ftp://kubernetes.example", "https://", "https://a:b"])
def test_the_url_of_kubernetes_is_one(url: str):
    assert said(kubernetes_url=url) == [(("discovery.kubernetes_url",), "must be like https://kubernetes.example:6443")]


def test_a_wrong_source_is_told_with_the_rest_of_what_is_wrong_with_a_gateway():
    config = gateway_config(sources=("dns:workers",), worker_addresses=("x",))

    assert [problem.keys for problem in config.problems()] == [("gateway.worker_addresses",), ("discovery.sources",)]
