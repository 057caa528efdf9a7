"""`/v1/models`: the models that usable workers have, and their aliases.

One answer for OpenAI's and Anthropic's clients: each finds the fields of its own API.
"""

from __future__ import annotations

from neurogate.dataplane.pool import EndpointPool
from neurogate.edge.caller import Caller
from neurogate.edge.permissions import sees
from neurogate.errors import ModelNotFoundError
from neurogate.gateway.model_names import ModelNames

Entry = dict[str, object]

_NO_DATE = "1970-01-01T00:00:00Z"
"""Anthropic's word for a model whose date nobody knows; OpenAI's is 0."""


def list_models(pool: EndpointPool, names: ModelNames, caller: Caller) -> dict[str, object]:
    """The list of the models that the caller may use."""
    data = _entries(pool, names, caller)
    ids = [entry["id"] for entry in data]
    return {
        "object": "list",
        "data": data,
        "has_more": False,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


def find_model(pool: EndpointPool, names: ModelNames, caller: Caller, model_id: str) -> Entry:
    """One of them. Raises ModelNotFoundError naming those there are."""
    entries = {str(entry["id"]): entry for entry in _entries(pool, names, caller)}
    meant = model_id if model_id in entries else names.resolve(model_id, entries)
    found = entries.get(meant)
    if found is None:
        known = ", ".join(entries) or "none"
        raise ModelNotFoundError(f"model {model_id[:200]!r} not found; the models are: {known}", param="model")
    return found


def _entries(pool: EndpointPool, names: ModelNames, caller: Caller) -> list[Entry]:
    found: dict[str, Entry] = {}
    for member in pool.snapshot.members:
        for model in member.report.models if member.usable else ():
            entry = found.setdefault(model.name, _entry(model.name, member.report.engine_kind))
            entry["loaded"] = bool(entry.get("loaded")) or model.loaded
            if model.context_length:
                entry["context_length"] = model.context_length
    for alias, model_name in names.aliases.items():
        if model_name in found:
            found[alias] = {**found[model_name], "id": alias, "display_name": alias, "root": model_name}
    return [
        found[name] for name in sorted(found) if sees(caller, name) or sees(caller, str(found[name].get("root", name)))
    ]


def _entry(name: str, engine_kind: str) -> Entry:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": engine_kind,
        "type": "model",
        "display_name": name,
        "created_at": _NO_DATE,
    }
