"""The request headers that every generating path takes, and those of its answers."""

from __future__ import annotations

from typing import Any

_SWITCH: dict[str, Any] = {"enum": ["on", "off"]}


def _header(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    "Timeout": _header(
        "X-NeuroGate-Timeout",
        {"type": "number", "exclusiveMinimum": 0},
        "Seconds that the request may take in all, its wait for a turn included; at most NEUROGATE_REQUEST_TIMEOUT_S.",
    ),
    "Priority": _header(
        "X-NeuroGate-Priority",
        {"enum": ["interactive", "batch"]},
        "batch waits behind interactive requests. A key of batch priority has no other.",
    ),
    "QueueComments": _header(
        "X-NeuroGate-Queue-Comments",
        _SWITCH,
        "off keeps a stream silent while it waits for its turn; otherwise comments tell its place.",
    ),
    "Resume": _header(
        "X-NeuroGate-Resume",
        _SWITCH,
        "off ends a stream with an error where its worker dies, instead of going on with it on another one.",
    ),
    "Explain": _header(
        "X-NeuroGate-Explain",
        _SWITCH,
        "on tells in the answer's header of the same name which workers could have been asked, which not and why, and "
        "which was; the whole is at /debug/requests/{id} of the ops port.",
    ),
}
"""By their names among the document's components."""

REFERENCES = [{"$ref": f"#/components/parameters/{name}"} for name in REQUEST_HEADERS]

_TEXT = {"type": "string"}
ANSWER_HEADERS: dict[str, Any] = {
    "X-Request-Id": {"description": "The request's id, in the gateway's logs too.", "schema": _TEXT},
    "X-NeuroGate-Worker": {"description": "The worker that answers, where one was asked.", "schema": _TEXT},
    "X-NeuroGate-Attempts": {
        "description": "Workers that were asked before the first byte.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-NeuroGate-Explain": {"description": "Why this worker, for a request that asked.", "schema": _TEXT},
}
