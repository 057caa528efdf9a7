"""Where workers come from, as NEUROGATE_DISCOVERY names it: what can be told from the words alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

STATIC = "static"
"""The word for WORKER_ADDRESSES."""

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)
_SRV = re.compile(rf"_[a-z0-9-]{{1,63}}\._(tcp|udp)\.{_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)
_KUBERNETES = re.compile(rf"(?:(?P<namespace>{_LABEL})/)?(?P<service>{_LABEL})(?::(?P<port>[a-z0-9-]{{1,15}}))?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class DnsSource:
    """`dns:NAME:PORT`, the addresses of a name, or `dns:_SERVICE._tcp.NAME`, its SRV records."""

    text: str
    """As it was written."""
    name: str
    port: int
    """0 where the records tell it."""


@dataclass(frozen=True, slots=True)
class KubernetesSource:
    """`kubernetes:[NAMESPACE/]SERVICE[:PORT]`, the pods behind a Service."""

    text: str
    """As it was written."""
    namespace: str
    """Empty for the gateway's own."""
    service: str
    port: str
    """A number or a name; empty for the only one, or the one called `grpc`."""


Source = DnsSource | KubernetesSource


def parse(text: str) -> Source | None:
    """One entry; None for `static`. Raises ValueError saying what is wrong with it."""
    if text == STATIC:
        return None
    kind, _, rest = text.partition(":")
    if kind == "dns":
        return _dns(text, rest)
    if kind == "kubernetes":
        return _kubernetes(text, rest)
    raise ValueError(
        f"{text!r} is not static, dns:NAME:PORT, dns:_SERVICE._tcp.NAME or kubernetes:[NAMESPACE/]SERVICE[:PORT]"
    )


def wrong(texts: Sequence[str]) -> Iterator[str]:
    """What is wrong with a list of entries: those that are none, and those that are in it twice."""
    for text in texts:
        try:
            parse(text)
        except ValueError as error:
            yield str(error)
    if len(set(texts)) != len(texts):
        yield "a source is listed twice; each once is enough"


def dynamic(texts: Sequence[str]) -> tuple[Source, ...]:
    """The entries that can change by themselves. Raises ValueError as `parse` does."""
    return tuple(source for text in texts if (source := parse(text)) is not None)


def _dns(text: str, rest: str) -> DnsSource:
    if _SRV.fullmatch(rest):
        return DnsSource(text, rest, 0)
    name, _, port = rest.rpartition(":")
    if not _is_port(port):
        raise ValueError(
            f"{text!r} needs the workers' port, for example dns:{name or rest or 'workers.example'}:50051; "
            "without one it takes SRV records, whose names begin as in dns:_grpc._tcp.workers.example"
        )
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise ValueError(f"{text!r} has no name that can be looked up; an address belongs into WORKER_ADDRESSES")
    return DnsSource(text, name, int(port))


def _kubernetes(text: str, rest: str) -> KubernetesSource:
    match = _KUBERNETES.fullmatch(rest)
    port = (match["port"] or "") if match else ""
    if match is None or (port and not _is_port(port) and not _PORT_NAME.fullmatch(port)):
        raise ValueError(
            f"{text!r} is not kubernetes:[NAMESPACE/]SERVICE[:PORT], for example "
            "kubernetes:neurogate/neurogate-worker-headless:grpc"
        )
    return KubernetesSource(text, match["namespace"] or "", match["service"], port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536
