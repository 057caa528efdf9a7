"""`neurogate admin`: the admin API of a running gateway, as commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from neurogate.cli.check import text
from neurogate.config import environment
from neurogate.errors import ConfigError, NeuroGateError
from neurogate.tls.trust import advice, trusting

_TIMEOUT_S = 15.0


class AdminClient:
    """The admin API of one gateway."""

    def __init__(self, url: str, key: str, tls_ca: str = "") -> None:
        """`key` falls back to the first of NEUROGATE_ADMIN_KEY; `tls_ca` is a file of CAs, empty for the system's.

        Raises ConfigError when there is no key, NeuroGateError for CAs that cannot be read.
        """
        named = environment("NEUROGATE_ADMIN_KEY").get("NEUROGATE_ADMIN_KEY", "")
        self._url = url.rstrip("/")
        self._verify = trusting(tls_ca)
        self._key = key or named.split(",")[0].strip()
        if not self._key:
            raise ConfigError(
                "NEUROGATE_ADMIN_KEY: must be set to a key of the gateway's admin API, or use --admin-key"
            )
        if "sha256$" in self._key:
            raise ConfigError("NEUROGATE_ADMIN_KEY: a digest opens nothing; give the key itself")

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer. Raises NeuroGateError with what the gateway has against it, or when it does not answer.

        What was done in part is an answer: its `status` is `invalid`, and its `error` says why.
        """
        try:
            answer = httpx.request(
                method,
                f"{self._url}{path}",
                json=body,
                headers={"Authorization": f"Bearer {self._key}"},
                timeout=_TIMEOUT_S,
                verify=self._verify,
                trust_env=False,
            )
            said = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NeuroGateError(
                f"{self._url} does not answer ({error}): {advice(error) or 'is it running?'}"
            ) from error
        except ValueError as error:
            raise NeuroGateError(f"{self._url} does not answer in JSON: is it a gateway?") from error
        in_part = isinstance(said, dict) and said.get("status") == "invalid"
        if answer.status_code >= 400 and not in_part:
            raise NeuroGateError(_refusal(said, answer.status_code))
        found: dict[str, Any] = said
        return found


def show(client: AdminClient, keys: Sequence[str], *, as_json: bool) -> int:
    """Print settings with their sources; all of them, or those whose key or section is named. Returns the exit code."""
    answer = client.ask("GET", "/admin/config")
    settings: Mapping[str, Any] = answer["settings"]
    chosen = {key: value for key, value in settings.items() if not keys or key in keys or key.partition(".")[0] in keys}
    if as_json:
        print(json.dumps({**answer, "settings": chosen}, indent=2))
        return 0
    for key, setting in chosen.items():
        print(f"{key} = {text(setting['value'])}  # {setting['source']}{'' if setting['reloads'] else ', restart'}")
    missing = [key for key in keys if key not in settings and not any(name.startswith(f"{key}.") for name in settings)]
    for key in missing:
        print(f"neurogate: there is no setting {key}", file=sys.stderr)
    if answer["status"] != "ok":
        print(f"neurogate: the configuration is {answer['status']}: {answer['error']}", file=sys.stderr)
    return 1 if missing else 0


def change(client: AdminClient, assignments: Sequence[str]) -> int:
    """Set `section.key=value`; without a value the setting goes back to what file and environment say.

    Returns the exit code: 1 when something needs a restart, or is wrong.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise NeuroGateError(f"{assignment!r} is not KEY=VALUE, for example gateway.retries=1")
        values[key.strip()] = value.strip() or None
    return _changed(client.ask("PUT", "/admin/config", values))


def reload(client: AdminClient) -> int:
    """Have the gateway read its files again. Returns the exit code: 1 when one is wrong, or needs a restart."""
    answer = client.ask("POST", "/admin/reload")
    print(f"keys loaded: {answer['keys_loaded']}")
    return _changed(answer)


def drain(client: AdminClient, action: str) -> int:
    """`drain` the gateway itself, or `undrain` it. Returns the exit code."""
    draining = client.ask("POST", f"/admin/{action}")["draining"]
    print("the gateway is not ready; it serves what comes all the same" if draining else "the gateway is ready")
    return 0


def worker(client: AdminClient, action: str, name: str) -> int:
    """`add` an address; `remove`, `drain` or `resume` a worker by its id. Returns the exit code."""
    path = f"/admin/workers/{quote(name, safe='')}"
    match action:
        case "add":
            answer = client.ask("POST", "/admin/workers", {"address": name})
            print(f"{answer['id']} is {answer['address']}")
        case "remove":
            answer = client.ask("DELETE", path)
            rest = f"; it finishes {answer['in_flight']} requests first" if answer["in_flight"] else ""
            print(f"{answer['id']} is removed{rest}")
        case _:
            found = client.ask("POST", f"{path}/{action}")["worker"]
            state = "gets nothing new" if found["cordoned"] else "takes requests"
            print(f"{found['id']} {state}; it holds {found['in_flight']} requests")
    return 0


def reset(client: AdminClient, name: str) -> int:
    """Close a worker's breaker. Returns the exit code."""
    found = client.ask("POST", f"/admin/breakers/{quote(name, safe='')}/reset")["worker"]
    print(f"{found['id']}: breaker {found['circuit_breaker_state']}")
    return 0


def _changed(answer: Mapping[str, Any]) -> int:
    print(f"changed: {', '.join(answer['changed']) or 'nothing'}")
    if answer["needs_restart"]:
        print(f"neurogate: not applied, needs a restart: {', '.join(answer['needs_restart'])}", file=sys.stderr)
    if answer.get("error"):
        print(f"neurogate: {answer['error']}", file=sys.stderr)
    return 1 if answer["needs_restart"] or answer.get("error") else 0


def _refusal(said: object, status: int) -> str:
    message = said.get("message") if isinstance(said, dict) else None
    return str(message or f"the gateway answered with {status}")
