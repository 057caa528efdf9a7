"""The environment of this process: the only place that reads or changes it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_SERVICE_URL = re.compile(r"^(tcp|udp|sctp)://")


def whole_environment() -> dict[str, str]:
    """Every variable of this process."""
    return dict(os.environ)


def environment(*names: str) -> dict[str, str]:
    """The named variables that are set, for code that must pass them on or look one up."""
    return {name: os.environ[name] for name in names if name in os.environ}


def default_environment(**values: str) -> None:
    """Set variables that libraries read, unless the user has set them."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with changes, for a child process."""
    return {**os.environ, **changes}


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes made this variable for a Service that happens to be called so, as Docker's links once did.

    `NEUROGATE_GRPC_PORT=tcp://10.0.0.1:8002` comes with a Service neurogate-grpc; a port setting is never a URL.
    Where the API of Kubernetes itself is, a pod is told by the same kind of variable, and may want to know.
    """
    if name in {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"}:
        return False
    return bool(_SERVICE_LINK.search(name) or (name.endswith("_PORT") and _SERVICE_URL.match(value)))
