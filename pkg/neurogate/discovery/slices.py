"""EndpointSlices, and the workers in them: decided from what Kubernetes tells, without asking it anything.

One Service has several slices, of several address families, and a pod may be in two of them while it is moved. A worker
is a pod: it is called as its pod, and has one address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from neurogate.discovery.addresses import host_port
from neurogate.discovery.dns import worker_name
from neurogate.discovery.resolver import SourceUnavailableError
from neurogate.endpoint import Endpoint

GRPC_PORT = "grpc"
"""The name of the port that is meant where a slice has several and none is named."""

_FAMILIES = ("IPv4", "IPv6", "FQDN")
"""The address types, best first."""


class Conditions(msgspec.Struct, frozen=True):
    """Of an endpoint. Null is unknown, which counts as ready."""

    ready: bool | None = None
    terminating: bool | None = None


class Target(msgspec.Struct, frozen=True):
    """What an endpoint is made of."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class SliceEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint of a slice."""

    addresses: list[str] | None = None
    """All of them are the same one: "Consumers of this API should only use the first element"."""
    conditions: Conditions | None = None
    target_ref: Target | None = None


class SlicePort(msgspec.Struct, frozen=True):
    """One port of a slice."""

    name: str | None = None
    port: int | None = None


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """What every object has."""

    name: str = ""
    resource_version: str = ""


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    """discovery.k8s.io/v1 and v1beta1, as far as it matters here."""

    metadata: Metadata = Metadata()
    address_type: str = "IPv4"
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


def workers(slices: Iterable[EndpointSlice], port: str, listed: Collection[Endpoint]) -> tuple[Endpoint, ...]:
    """The workers that may have new requests, by name; `listed` are those who may have them now.

    Who ends or is not ready is none. When nobody at all is ready, those stay who are listed and still there: then
    rather the cluster's control plane is ill than everybody, and links tell better. Raises SourceUnavailableError when
    no port of theirs is the one that was asked for.
    """
    present = _merged(slices, port)
    ready = [endpoint for endpoint, is_ready in present if is_ready]
    if not ready:
        ready = [endpoint for endpoint, _ in present if endpoint in listed]
    by_name = {endpoint.id: endpoint for endpoint in ready}
    by_address = {endpoint.address: endpoint for _, endpoint in sorted(by_name.items(), reverse=True)}
    return tuple(sorted(by_address.values(), key=lambda endpoint: endpoint.id))


def _merged(slices: Iterable[EndpointSlice], port: str) -> list[tuple[Endpoint, bool]]:
    """Each that does not end, and whether it is ready. Two lives of a pod of one name are two."""
    found: dict[tuple[str, str], tuple[Endpoint, bool]] = {}
    ending: set[tuple[str, str]] = set()
    missing: SourceUnavailableError | None = None
    by_family = sorted(
        (slice_ for slice_ in slices if slice_.address_type in _FAMILIES),
        key=lambda slice_: (_FAMILIES.index(slice_.address_type), slice_.metadata.name),
    )
    for slice_ in by_family:
        if not slice_.endpoints:
            continue
        try:
            number = _port(slice_.ports or [], port)
        except SourceUnavailableError as error:
            missing = error
            continue
        for name, uid, host, conditions in _endpoints(slice_):
            if conditions.terminating:
                ending.add((name, uid))
            endpoint, was_ready = found.get((name, uid), (Endpoint(name, host_port(host, number)), False))
            found[name, uid] = endpoint, was_ready or conditions.ready is not False
    if missing is not None and not found:
        raise missing
    return [known for key, known in found.items() if key not in ending]


def _endpoints(slice_: EndpointSlice) -> Iterator[tuple[str, str, str, Conditions]]:
    """(name, what tells it from another one of that name, host, conditions) of each endpoint."""
    for endpoint in slice_.endpoints or ():
        if endpoint.addresses:
            host = endpoint.addresses[0]
            pod = endpoint.target_ref if endpoint.target_ref and endpoint.target_ref.kind == "Pod" else Target()
            yield pod.name or worker_name(host), pod.uid, host, endpoint.conditions or Conditions()


def _port(ports: list[SlicePort], wanted: str) -> int:
    """The number of the port that was asked for. Raises SourceUnavailableError naming those there are."""
    numbers = {each.name or "": each.port for each in ports if each.port}
    if wanted.isdigit() and (not numbers or int(wanted) in numbers.values()):
        return int(wanted)
    if wanted in numbers and wanted:
        return numbers[wanted]
    if not wanted and len(numbers) == 1:
        return next(iter(numbers.values()))
    if not wanted and GRPC_PORT in numbers:
        return numbers[GRPC_PORT]
    there = ", ".join(f"{name or 'without a name'} ({number})" for name, number in numbers.items()) or "none"
    asked = f"has no port {wanted}" if wanted else f"has not one port, and none called {GRPC_PORT}"
    raise SourceUnavailableError(f"the Service {asked}; its pods' ports are: {there}")
