"""Questions to a running gateway: `neurogate health` and `neurogate workers`."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping
from typing import Any

import httpx
from rich.console import Console

from neurogate.errors import NeuroGateError
from neurogate.local.table import workers_table
from neurogate.tls.trust import advice, trusting

_TIMEOUT_S = 5.0


def health(url: str, *, tls_ca: str = "") -> int:
    """Print what `/health` says. Returns 0 when requests are answered, by the status in it: a worker is always 200."""
    status, body = _get(f"{url}/health", tls_ca=tls_ca)
    print(json_format.dumps(body))
    said = body.get("status") if isinstance(body, dict) else None
    return 0 if status < 400 and said not in {"unhealthy", "draining"} else 1


def workers(url: str, *, json: bool, key: str = "", tls_ca: str = "") -> int:
    """Print the workers as a table or as JSON; `key` is for a gateway that asks for one."""
    status, body = _get(f"{url}/workers", {"Authorization": f"Bearer {key}"} if key else {}, tls_ca=tls_ca)
    if status >= 400:
        print(json_format.dumps(body), file=sys.stderr)
        return 1
    if json:
        print(json_format.dumps(body, indent=2))
    else:
        Console().print(workers_table(body))
    return 0


def _get(url: str, headers: Mapping[str, str] | None = None, *, tls_ca: str) -> tuple[int, Any]:
    verify = trusting(tls_ca)
    try:
        answer = httpx.get(url, headers=headers, timeout=_TIMEOUT_S, verify=verify, trust_env=False)
        return answer.status_code, answer.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = advice(error) or "is it running? give its address with --url"
        raise NeuroGateError(f"{url} does not answer ({error}): {why}") from error
    except ValueError as error:
        raise NeuroGateError(f"{url} does not answer in JSON: is it a gateway?") from error
