"""The OpenAPI 3.1 document, put together from what the gateway itself reads and checks.

Request schemas come from the structs that validate bodies, so that the document cannot promise what the gateway
refuses; paths, families and streams come from the table of operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from neurogate import __version__
from neurogate.gateway.openapi import answers
from neurogate.gateway.openapi.administration import SCHEME, TAG, admin_paths
from neurogate.gateway.openapi.answers import ANSWERS, ERRORS, Schema
from neurogate.gateway.openapi.headers import ANSWER_HEADERS, REFERENCES, REQUEST_HEADERS
from neurogate.gateway.openapi.requests import enriched
from neurogate.operations import Ending, Family, Operation

_SUMMARIES = {
    "/prompt": "Answer a prompt: NeuroGate's own API",
    "/v1/chat/completions": "Chat (OpenAI)",
    "/v1/completions": "Complete a text (OpenAI)",
    "/v1/responses": "Respond (OpenAI)",
    "/v1/embeddings": "Embed texts (OpenAI)",
    "/v1/rerank": "Rank documents by a query",
    "/v1/messages": "Chat (Anthropic)",
    "/v1/messages/count_tokens": "Count the tokens of a chat (Anthropic)",
    "/api/generate": "Answer a prompt (Ollama)",
    "/api/chat": "Chat (Ollama)",
    "/api/embed": "Embed texts (Ollama)",
    "/api/embeddings": "Embed a text (Ollama, the older form)",
    "/api/show": "What is known of a model (Ollama)",
    "/completion": "Complete a prompt (llama.cpp)",
    "/infill": "Fill in between a prefix and a suffix (llama.cpp)",
    "/tokenize": "Text to tokens (llama.cpp)",
    "/detokenize": "Tokens to text (llama.cpp)",
    "/apply-template": "Messages to the prompt that the model sees (llama.cpp)",
}

_FAILURES = {
    400: "The body is not what this API takes; the message names the field.",
    401: "No API key, or one that is not known.",
    403: "The key is not good for this path or model.",
    404: "No worker has the model.",
    408: "The request did not arrive in time.",
    413: "The body is larger than the gateway takes.",
    429: "The key has used what it may for now; see Retry-After.",
    501: "No engine of the fleet can do this.",
    502: "The engine failed on every worker that was tried.",
    503: "No worker can take the request now, or too many wait; see Retry-After.",
    504: "The request's time ran out.",
}
_EARLY = (400, 414, 431)
_TAGS = {
    Family.NEUROGATE: "NeuroGate",
    Family.OPENAI: "OpenAI",
    Family.ANTHROPIC: "Anthropic",
    Family.OLLAMA: "Ollama",
    Family.LLAMACPP: "llama.cpp",
}
_STREAM_TYPES = {Ending.NDJSON_DONE: "application/x-ndjson"}
_REF = "#/components/schemas/{name}"


def document(
    operations: Iterable[Operation],
    bodies: Mapping[str, type[msgspec.Struct]],
    answered: Mapping[str, type[msgspec.Struct]],
    *,
    authenticated: bool,
) -> dict[str, Any]:
    """The document. `bodies` are the structs that check each path's body, `answered` those that a path answers with."""
    operations = list(operations)
    structs = {*bodies.values(), *answered.values()}
    _, components = msgspec.json.schema_components(structs, ref_template=_REF)
    paths: dict[str, Any] = {
        operation.path: {"post": _operation(operation, bodies[operation.path], answered.get(operation.path))}
        for operation in operations
    }
    paths.update(_reading())
    paths.update(admin_paths())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "NeuroGate",
            "version": __version__,
            "summary": "A gateway that serves language models from a fleet of ordinary machines.",
            "description": (
                "Bodies and answers of OpenAI, Anthropic, Ollama and llama.cpp pass through to the engine that has the "
                "API, so an engine may take and give more fields than are listed here. An answer whose stream does not "
                "end with its API's end mark is not whole."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": tag} for tag in (*_TAGS.values(), "Fleet", TAG)],
        "paths": paths,
        "components": {
            "schemas": {
                **{name: enriched(name, schema) for name, schema in components.items()},
                **{_error_name(family): schema for family, schema in ERRORS.items()},
            },
            "parameters": REQUEST_HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                SCHEME: {"type": "http", "scheme": "bearer", "description": "NEUROGATE_ADMIN_KEY"},
            },
        },
        "security": [{"bearer": []}, {"api_key": []}] if authenticated else [],
    }


def _operation(operation: Operation, body: type[msgspec.Struct], answer: type[msgspec.Struct] | None) -> dict[str, Any]:
    answer_schema = {"$ref": _REF.format(name=answer.__name__)} if answer else ANSWERS[operation.path]
    content: dict[str, Any] = {"application/json": {"schema": answer_schema}}
    if operation.ending is not Ending.NONE:
        stream_type = _STREAM_TYPES.get(operation.ending, "text/event-stream")
        content[stream_type] = {"schema": {"description": f"A whole stream ends with: {operation.ending.value}."}}
    return {
        "operationId": operation.path.strip("/").replace("/", "_").replace("-", "_"),
        "summary": _SUMMARIES[operation.path],
        "tags": [_TAGS[operation.family]],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name=body.__name__)}}},
        },
        "parameters": REFERENCES,
        "responses": {
            "200": {"description": "The answer.", "content": content, "headers": ANSWER_HEADERS},
            **{str(status): _failure(operation.family, told) for status, told in _FAILURES.items()},
            **_early(),
        },
    }


def _failure(family: Family, told: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=_error_name(family))}
    return {"description": told, "content": {"application/json": {"schema": schema}}}


def _early() -> dict[str, Any]:
    """What is refused before it is known which API is meant."""
    told = {400: "Malformed HTTP.", 414: "The URL is too long.", 431: "The headers are too large."}
    return {str(status): {"description": told[status]} for status in _EARLY if status != 400}


def _error_name(family: Family) -> str:
    return f"{family.name.capitalize()}Error"


def _reading() -> dict[str, Any]:
    """The paths that only tell something."""
    well, unwell = _told(answers.HEALTH), _told(answers.HEALTH, "No worker is available.")
    return {
        "/health": {"get": _get("Whether workers are available", {200: well, 503: unwell}, open_to_all=True)},
        "/ready": {
            "get": _get(
                "Whether the gateway takes requests",
                {200: _told(answers.READY), 503: _told(answers.READY, "It starts or drains.")},
                open_to_all=True,
            )
        },
        "/ping": {"get": _get("Whether the process answers", {200: {"description": "Empty."}}, open_to_all=True)},
        "/workers": {
            "get": _get(
                "The workers and their breakers",
                {
                    200: _told(answers.WORKERS),
                    401: _failure(Family.NEUROGATE, "The gateway asks for a key here (WORKERS_AUTH)."),
                    429: _failure(Family.NEUROGATE, _FAILURES[429]),
                },
                open_to_all=True,
            )
        },
        "/v1/models": {"get": _get("The models of the fleet (OpenAI)", _with_key(answers.MODELS), Family.OPENAI)},
        "/v1/models/{model}": {
            "get": _get(
                "One model (OpenAI)",
                {**_with_key(answers.MODEL), 404: _failure(Family.OPENAI, _FAILURES[404])},
                Family.OPENAI,
            ),
            "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        },
        "/api/tags": {
            "get": _get(
                "The models of the fleet (Ollama)", _with_key(answers.OLLAMA_MODELS, Family.OLLAMA), Family.OLLAMA
            )
        },
        "/api/ps": {
            "get": _get("The loaded models (Ollama)", _with_key(answers.OLLAMA_MODELS, Family.OLLAMA), Family.OLLAMA)
        },
        "/api/version": {
            "get": _get("The level of Ollama's API", _with_key(answers.OLLAMA_VERSION, Family.OLLAMA), Family.OLLAMA)
        },
    }


def _with_key(schema: Schema, family: Family = Family.OPENAI) -> dict[int, Any]:
    return {200: _told(schema), **{status: _failure(family, _FAILURES[status]) for status in (401, 403, 429)}}


def _told(schema: Schema, description: str = "What is so.") -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _get(
    summary: str, responses: Mapping[int, Any], family: Family | None = None, *, open_to_all: bool = False
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": summary,
        "tags": [_TAGS[family] if family else "Fleet"],
        "responses": {**{str(status): answer for status, answer in responses.items()}, **_early()},
    }
    if open_to_all:
        described["security"] = []
    return described
