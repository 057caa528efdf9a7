"""The JSON Schema of the configuration file, made from the declarations: for editors, and for checks in a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from neurogate.config.declare import Bundle, declared, sections


def json_schema(bundles: Iterable[type[Bundle]]) -> dict[str, Any]:
    """The schema of a file that serves these processes; a section of several has the keys of all."""
    found: dict[str, Any] = {}
    for bundle in bundles:
        for name, struct in sections(bundle).items():
            section = found.setdefault(
                name, {"type": "object", "description": "", "properties": {}, "additionalProperties": False}
            )
            section["description"] = " ".join(dict.fromkeys(filter(None, [section["description"], _summary(struct)])))
            section["properties"].update(_properties(struct))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NeuroGate's configuration file",
        "type": "object",
        "properties": found,
        "additionalProperties": False,
    }


def _properties(struct: type[msgspec.Struct]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([struct])
    made: dict[str, Any] = components[struct.__name__]["properties"]
    for setting in declared(struct):
        made[setting.field] |= {"x-environment": setting.env, "x-reloads": setting.reloads}
    return made


def _summary(struct: type[msgspec.Struct]) -> str:
    return (struct.__doc__ or "").strip().splitlines()[0]
