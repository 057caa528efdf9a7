"""Where a gateway looks for its workers, and how it asks Kubernetes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from neurogate import urls
from neurogate.config import Problem, env
from neurogate.discovery.sources import STATIC, KubernetesSource, dynamic, wrong


class DiscoverySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sources of workers. What a pod's own service account has needs no setting."""

    sources: Annotated[
        tuple[str, ...],
        env(
            "NEUROGATE_DISCOVERY",
            "Comma-separated sources of workers: `static` (those of WORKER_ADDRESSES), `dns:NAME:PORT`, "
            "`dns:_SERVICE._tcp.NAME` (SRV records), `kubernetes:[NAMESPACE/]SERVICE[:PORT]`; see discovery.md.",
            reloads=True,
            min_length=1,
        ),
    ] = (STATIC,)
    refresh_s: Annotated[
        float,
        env(
            "NEUROGATE_DISCOVERY_REFRESH_S",
            "Seconds after which DNS is asked again at the latest; sooner where its records live shorter.",
            reloads=True,
            ge=1,
            le=30,
        ),
    ] = 5.0
    kubernetes_url: Annotated[
        str,
        env(
            "NEUROGATE_KUBERNETES_URL",
            "URL of the Kubernetes API, for a gateway outside; empty is that of the pod.",
            reloads=True,
        ),
    ] = ""
    kubernetes_account: Annotated[
        str,
        env(
            "NEUROGATE_KUBERNETES_ACCOUNT",
            "Directory with the service account's `token`, `ca.crt` and `namespace`; empty is where a pod has it.",
            reloads=True,
        ),
    ] = ""
    kubernetes_host: Annotated[
        str, env("KUBERNETES_SERVICE_HOST", "Set by Kubernetes in every pod: where its API is.", reloads=True)
    ] = ""
    kubernetes_port: Annotated[
        int,
        env(
            "KUBERNETES_SERVICE_PORT",
            "Set by Kubernetes in every pod: the port of its API.",
            reloads=True,
            ge=1,
            le=65535,
        ),
    ] = 443

    @property
    def static(self) -> bool:
        """Whether WORKER_ADDRESSES counts."""
        return STATIC in self.sources


def problems(settings: DiscoverySettings) -> Iterable[Problem]:
    """What is wrong with these settings, as a bundle tells it."""
    entries = list(wrong(settings.sources))
    yield from (Problem(("discovery.sources",), text) for text in entries)
    if settings.kubernetes_url and not _is_http(settings.kubernetes_url):
        yield Problem(("discovery.kubernetes_url",), "must be like https://kubernetes.example:6443")
    asks_kubernetes = not entries and any(isinstance(source, KubernetesSource) for source in dynamic(settings.sources))
    if asks_kubernetes and not (settings.kubernetes_url or settings.kubernetes_host):
        yield Problem(
            ("discovery.sources",),
            "kubernetes: works in a pod, where KUBERNETES_SERVICE_HOST is set; elsewhere set NEUROGATE_KUBERNETES_URL",
        )


def _is_http(url: str) -> bool:
    try:
        parts = urls.split(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
