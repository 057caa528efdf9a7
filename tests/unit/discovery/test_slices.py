"""Which workers are in EndpointSlices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from neurogate.discovery.dns import worker_name
from neurogate.discovery.resolver import SourceUnavailableError
from neurogate.discovery.slices import EndpointSlice, workers
from neurogate.endpoint import Endpoint
from neurogate.testing.sources import pod, slice_object


def named(*slices: dict[str, object], port: str = "", listed: Iterable[Endpoint] = ()) -> dict[str, str]:
    converted = [msgspec.convert(each, EndpointSlice) for each in slices]
    return {endpoint.id: endpoint.address for endpoint in workers(converted, port, tuple(listed))}


def test_workers_are_called_as_their_pods():
    assert named(slice_object("a", [pod("worker-1", "10.0.0.2"), pod("worker-0", "10.0.0.1")])) == {
        "worker-0": "10.0.0.1:50051",
        "worker-1": "10.0.0.2:50051",
    }


def test_several_slices_are_one_service_and_a_pod_in_two_of_them_is_one_worker():
    assert named(
        slice_object("a", [pod("w-0", "10.0.0.1"), pod("w-1", "10.0.0.2", ready=False)]),
        slice_object("b", [pod("w-1", "10.0.0.2"), pod("w-2", "10.0.0.3")]),
    ) == {"w-0": "10.0.0.1:50051", "w-1": "10.0.0.2:50051", "w-2": "10.0.0.3:50051"}


def test_a_pod_with_both_families_is_one_worker_by_ipv4():
    six = slice_object("a", [pod("w-0", "fd00::1"), pod("w-1", "fd00::2")], family="IPv6")
    four = slice_object("b", [pod("w-0", "10.0.0.1")])

    assert named(six, four) == {"w-0": "10.0.0.1:50051", "w-1": "[fd00::2]:50051"}


def test_unknown_families_are_left_alone():
    assert named(slice_object("a", [pod("w-0", "x")], family="Later")) == {}


def test_who_ends_or_is_not_ready_gets_nothing_new_and_unknown_is_ready():
    assert named(
        slice_object(
            "a",
            [
                pod("w-0", "10.0.0.1"),
                pod("w-1", "10.0.0.2", ready=False),
                pod("w-2", "10.0.0.3", ready=True, terminating=True),
                pod("w-3", "10.0.0.4", ready=None),
            ],
        )
    ) == {"w-0": "10.0.0.1:50051", "w-3": "10.0.0.4:50051"}


def test_without_conditions_targets_or_addresses_it_is_understood_all_the_same():
    bare: dict[str, Any] = {"addresses": ["10.0.0.1"]}
    empty: dict[str, Any] = {"addresses": []}

    assert named(slice_object("a", [bare, empty])) == {worker_name("10.0.0.1"): "10.0.0.1:50051"}
    assert named({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": None}) == {}


def test_when_nobody_is_ready_those_stay_who_are_listed_and_there():
    listed = [Endpoint("w-0", "10.0.0.1:50051"), Endpoint("gone", "10.0.0.9:50051")]
    nobody = slice_object("a", [pod("w-0", "10.0.0.1", ready=False), pod("w-1", "10.0.0.2", ready=False)])

    assert named(nobody) == {}
    assert named(nobody, listed=listed) == {"w-0": "10.0.0.1:50051"}
    ending = slice_object("a", [pod("w-0", "10.0.0.1", ready=False, terminating=True)])
    assert named(ending, listed=listed) == {}


def test_the_next_life_of_a_pod_is_another_one_than_the_one_that_ends():
    ends = pod("w-0", "10.0.0.1", terminating=True, uid="1")
    begins = pod("w-0", "10.0.0.7", uid="2")

    assert named(slice_object("a", [ends]), slice_object("b", [begins])) == {"w-0": "10.0.0.7:50051"}
    both = named(slice_object("a", [pod("w-0", "10.0.0.1", uid="1"), begins]))
    assert list(both) == ["w-0"], "an id is there once"


def test_an_address_is_there_once():
    assert named(slice_object("a", [pod("w-0", "10.0.0.1"), pod("w-1", "10.0.0.1")])) == {"w-0": "10.0.0.1:50051"}


PORTS = (("grpc", 50051), ("metrics", 9090))


@pytest.mark.parametrize(
    ("wanted", "ports", "number"),
    [
        ("", (("x", 1),), 1),
        ("", (("", 1),), 1),
        ("", PORTS, 50051),
        ("metrics", PORTS, 9090),
        ("9090", PORTS, 9090),
        ("7", (), 7),
    ],
)
def test_the_port_is_the_one_that_is_named_or_the_only_one_or_grpc(
    wanted: str, ports: tuple[tuple[str, int], ...], number: int
):
    assert named(slice_object("a", [pod("w", "10.0.0.1")], ports=ports), port=wanted) == {"w": f"10.0.0.1:{number}"}


@pytest.mark.parametrize(
    ("wanted", "ports", "said"),
    [
        ("http", PORTS, r"has no port http; its pods' ports are: grpc \(50051\), metrics \(9090\)"),
        ("80", PORTS, "has no port 80"),
        ("", (("a", 1), ("", 2)), r"has not one port, and none called grpc; .* a \(1\), without a name \(2\)"),
        ("", (), "ports are: none"),
    ],
)
def test_a_port_that_is_not_there_is_told_with_those_that_are(
    wanted: str, ports: tuple[tuple[str, int], ...], said: str
):
    with pytest.raises(SourceUnavailableError, match=said):
        named(slice_object("a", [pod("w", "10.0.0.1")], ports=ports), port=wanted)


def test_a_slice_without_the_port_does_not_hide_the_others_and_an_empty_one_needs_none():
    assert named(
        slice_object("a", [pod("w-0", "10.0.0.1")], ports=[("x", 1)]),
        slice_object("b", [pod("w-1", "10.0.0.2")]),
        port="grpc",
    ) == {"w-1": "10.0.0.2:50051"}
    assert named(slice_object("a", [], ports=[]), port="grpc") == {}
