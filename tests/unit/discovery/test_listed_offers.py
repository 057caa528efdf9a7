"""What sources offer to the list, beside the configuration and an admin."""

from __future__ import annotations

import pytest

from neurogate.discovery.listed import ListedResolver
from neurogate.endpoint import Endpoint
from neurogate.errors import WorkerExistsError


def named(resolver: ListedResolver) -> dict[str, str]:
    return {endpoint.id: endpoint.address for endpoint in resolver.endpoints}


def test_what_a_source_found_is_called_as_the_source_calls_it():
    resolver = ListedResolver(["a:1"])
    resolver.offer("kubernetes:w", [Endpoint("pod-1", "10.0.0.1:1"), Endpoint("pod-2", "10.0.0.2:1")])

    assert named(resolver) == {"worker-0": "a:1", "pod-1": "10.0.0.1:1", "pod-2": "10.0.0.2:1"}
    resolver.offer("kubernetes:w", [Endpoint("pod-2", "10.0.0.2:1")])
    assert named(resolver) == {"worker-0": "a:1", "pod-2": "10.0.0.2:1"}
    resolver.offer("kubernetes:w", [])
    assert named(resolver) == {"worker-0": "a:1"}
    resolver.offer("kubernetes:never", [])
    assert named(resolver) == {"worker-0": "a:1"}


def test_names_are_unique_whoever_gives_them_and_nobody_is_renamed_for_another():
    resolver = ListedResolver(["a:1"])
    resolver.offer("one", [Endpoint("worker-0", "b:1"), Endpoint("w", "c:1")])
    resolver.offer("two", [Endpoint("w", "d:1")])

    assert named(resolver) == {"worker-0": "a:1", "worker-0-2": "b:1", "w": "c:1", "w-2": "d:1"}
    resolver.offer("one", [])
    resolver.configure(["e:1"])
    assert named(resolver) == {"worker-1": "e:1", "w-2": "d:1"}


def test_a_number_that_a_pod_is_called_by_is_given_to_nobody_else():
    resolver = ListedResolver([])
    resolver.offer("one", [Endpoint("worker-0", "b:1")])
    resolver.configure(["a:1"])

    assert named(resolver) == {"worker-1": "a:1", "worker-0": "b:1"}


def test_a_pod_that_comes_back_elsewhere_keeps_its_name():
    resolver = ListedResolver([])
    resolver.offer("one", [Endpoint("w-0", "a:1"), Endpoint("w-1", "b:1")])
    resolver.offer("one", [Endpoint("w-0", "c:1"), Endpoint("w-1", "b:1")])

    assert named(resolver) == {"w-0": "c:1", "w-1": "b:1"}


def test_an_address_that_another_pod_has_now_is_another_worker():
    resolver = ListedResolver([])
    resolver.offer("one", [Endpoint("w-0", "a:1")])
    resolver.offer("one", [Endpoint("w-1", "a:1")])

    assert resolver.endpoints == (Endpoint("w-1", "a:1"),)


def test_an_address_that_two_sources_have_is_one_worker():
    resolver = ListedResolver(["a:1"])
    resolver.offer("one", [Endpoint("w-0", "a:1"), Endpoint("w-1", "b:1")])
    resolver.offer("two", [Endpoint("x", "b:1")])

    assert named(resolver) == {"worker-0": "a:1", "w-1": "b:1"}


def test_an_admin_takes_a_found_worker_off_for_as_long_as_its_source_names_it():
    resolver = ListedResolver([])
    resolver.offer("one", [Endpoint("w-0", "a:1"), Endpoint("w-1", "b:1")])
    resolver.remove("w-0")
    resolver.offer("one", [Endpoint("w-0", "a:1"), Endpoint("w-1", "b:1"), Endpoint("w-2", "c:1")])
    assert named(resolver) == {"w-1": "b:1", "w-2": "c:1"}

    resolver.offer("one", [Endpoint("w-1", "b:1")])
    resolver.offer("one", [Endpoint("w-0", "a:1"), Endpoint("w-1", "b:1")])
    assert named(resolver) == {"w-0": "a:1", "w-1": "b:1"}


def test_another_pod_at_the_address_of_one_that_was_taken_off_is_let_in():
    resolver = ListedResolver([])
    resolver.offer("one", [Endpoint("w-0", "a:1")])
    resolver.remove("w-0")
    resolver.offer("one", [Endpoint("w-1", "a:1")])

    assert named(resolver) == {"w-1": "a:1"}


def test_an_admin_brings_a_found_worker_back_and_cannot_add_one_twice():
    resolver = ListedResolver([])
    resolver.offer("one", [Endpoint("w-0", "a:1")])
    with pytest.raises(WorkerExistsError, match="a:1 is w-0 already"):
        resolver.add("a:1")
    resolver.remove("w-0")

    assert resolver.add("a:1") == Endpoint("w-0", "a:1")
    resolver.offer("one", [])
    assert named(resolver) == {}, "the source had it, and has it no more"


def test_what_an_admin_added_stays_when_a_source_that_found_it_too_loses_it():
    resolver = ListedResolver([])
    resolver.add("a:1")
    resolver.offer("one", [Endpoint("w-0", "a:1")])
    resolver.offer("one", [])

    assert list(named(resolver).values()) == ["a:1"]
