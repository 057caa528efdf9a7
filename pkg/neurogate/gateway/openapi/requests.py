"""What the engines read of a body beyond what the gateway checks: the fields that clients most often send.

They are merged into the schemas of the structs that check bodies and say more of the same field. Nothing here is
checked by the gateway; an engine that finds something else refuses it in its own words.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_SEED: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_STOP: Schema = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 4},
    ]
}


def _message(*roles: str) -> Schema:
    return {
        "type": "object",
        "properties": {"role": {"enum": [*roles]}, "content": _TEXT},
        "required": ["role", "content"],
    }


_MESSAGES: Schema = {"type": "array", "minItems": 1, "items": _message("system", "user", "assistant")}
_ANTHROPIC_MESSAGES: Schema = {"type": "array", "minItems": 1, "items": _message("user", "assistant")}

FIELDS: dict[str, dict[str, Schema]] = {
    "ChatRequest": {
        "messages": _MESSAGES,
        "top_p": _SHARE,
        "seed": _SEED,
        "stop": _STOP,
        "tools": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "properties": {"name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}},
                        "required": ["name"],
                    },
                },
                "required": ["type", "function"],
            },
        },
        "response_format": {
            "type": "object",
            "properties": {"type": {"enum": ["text", "json_object"]}},
            "required": ["type"],
        },
    },
    "CompletionRequest": {"prompt": _TEXT, "top_p": _SHARE, "seed": _SEED, "stop": _STOP},
    "ResponsesRequest": {"input": _TEXT, "instructions": _TEXT},
    "EmbeddingsRequest": {"input": _TEXTS, "encoding_format": {"enum": ["float", "base64"]}},
    "RerankRequest": {
        "query": {"type": "string", "minLength": 1},
        "documents": {"type": "array", "items": _TEXT, "minItems": 1},
    },
    "MessagesRequest": {"messages": _ANTHROPIC_MESSAGES, "system": _TEXT, "stop_sequences": _STOP["anyOf"][1]},
    "CountTokensRequest": {"messages": _ANTHROPIC_MESSAGES, "system": _TEXT},
    "TemplateRequest": {"messages": _MESSAGES},
    "NativeCompletionRequest": {"prompt": _TEXT, "stop": _STOP["anyOf"][1], "seed": _SEED},
    "InfillRequest": {"prompt": _TEXT},
    "TokenizeRequest": {"content": _TEXT, "add_special": {"type": "boolean"}, "with_pieces": {"type": "boolean"}},
    "DetokenizeRequest": {
        "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1_000_000}},
    },
}
"""By struct and field."""

REQUIRED: dict[str, tuple[str, ...]] = {"ResponsesRequest": ("input",)}
"""Fields without which every engine refuses, though the gateway leaves that to it."""

UNTOLD: dict[str, frozenset[str]] = {"CompletionRequest": frozenset({"best_of"})}
"""Fields that the gateway reads for its limits, though hardly any engine has them."""


def enriched(name: str, schema: Schema) -> Schema:
    """A struct's schema with what is said here."""
    fields = FIELDS.get(name)
    if fields is None:
        return schema
    untold = UNTOLD.get(name, frozenset())
    checked: dict[str, Schema] = {field: told for field, told in schema["properties"].items() if field not in untold}
    told = {field: {**checked.get(field, {}), **more} for field, more in fields.items()}
    return {
        **schema,
        "properties": {**checked, **told},
        "required": [*schema.get("required", ()), *REQUIRED.get(name, ())],
    }
