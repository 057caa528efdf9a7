"""JSON Schemas of what the gateway answers, by API family. What an engine adds beyond them passes untouched."""

from __future__ import annotations

from typing import Any

from neurogate.dataplane.state import WorkerState
from neurogate.operations import Family

Schema = dict[str, Any]


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT: Schema = {"type": "string"}
_NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_ANY: Schema = {}

_OPENAI_USAGE = _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT}, {"completion_tokens": _COUNT})
_CHAT_MESSAGE = _object(
    {"role": _TEXT}, {"content": _NULLABLE_TEXT, "tool_calls": _array({"type": "object"}), "reasoning_content": _TEXT}
)

ANSWERS: dict[str, Schema] = {
    "/v1/chat/completions": _object(
        {
            "id": _TEXT,
            "object": {"const": "chat.completion"},
            "created": _COUNT,
            "model": _TEXT,
            "choices": _array(_object({"index": _COUNT, "message": _CHAT_MESSAGE, "finish_reason": _NULLABLE_TEXT})),
        },
        {"usage": _OPENAI_USAGE},
    ),
    "/v1/completions": _object(
        {
            "id": _TEXT,
            "object": {"const": "text_completion"},
            "created": _COUNT,
            "model": _TEXT,
            "choices": _array(_object({"index": _COUNT, "text": _TEXT, "finish_reason": _NULLABLE_TEXT})),
        },
        {"usage": _OPENAI_USAGE},
    ),
    "/v1/responses": _object(
        {"id": _TEXT, "object": {"const": "response"}, "status": _TEXT, "output": _array({"type": "object"})},
    ),
    "/v1/embeddings": _object(
        {
            "object": {"const": "list"},
            "data": _array(_object({"index": _COUNT, "embedding": {"type": ["array", "string"]}})),
            "usage": _OPENAI_USAGE,
        }
    ),
    "/v1/rerank": _object({"results": _array(_object({"index": _COUNT, "relevance_score": _NUMBER}))}),
    "/v1/messages": _object(
        {
            "id": _TEXT,
            "type": {"const": "message"},
            "role": {"const": "assistant"},
            "model": _TEXT,
            "content": _array(_object({"type": _TEXT})),
            "stop_reason": _NULLABLE_TEXT,
            "usage": _object({"input_tokens": _COUNT, "output_tokens": _COUNT}),
        }
    ),
    "/v1/messages/count_tokens": _object({"input_tokens": _COUNT}),
    "/api/generate": _object(
        {"model": _TEXT, "response": _TEXT, "done": _FLAG},
        {"done_reason": _TEXT, "total_duration": _COUNT, "eval_count": _COUNT, "prompt_eval_count": _COUNT},
    ),
    "/api/chat": _object(
        {"model": _TEXT, "message": _object({"role": _TEXT, "content": _TEXT}), "done": _FLAG},
        {"done_reason": _TEXT, "total_duration": _COUNT, "eval_count": _COUNT, "prompt_eval_count": _COUNT},
    ),
    "/api/embed": _object({"model": _TEXT, "embeddings": _array(_array(_NUMBER))}),
    "/api/embeddings": _object({"embedding": _array(_NUMBER)}),
    "/api/show": _object({}, {"details": {"type": "object"}, "model_info": {"type": "object"}}),
    "/completion": {"anyOf": [_object({"content": _TEXT, "stop": _FLAG}), _array({"type": "object"})]},
    "/infill": _object({"content": _TEXT, "stop": _FLAG}),
    "/tokenize": _object({"tokens": _array(_ANY)}),
    "/detokenize": _object({"content": _TEXT}),
    "/apply-template": _object({"prompt": _TEXT}),
}

_OPENAI_ERROR = _object({"error": _object({"message": _TEXT, "type": _TEXT}, {"param": _NULLABLE_TEXT, "code": _ANY})})
ERRORS: dict[Family, Schema] = {
    Family.NEUROGATE: _object({"error": _TEXT, "code": _TEXT, "message": _TEXT}, {"request_id": _TEXT}),
    Family.OPENAI: _OPENAI_ERROR,
    Family.ANTHROPIC: _object(
        {"type": {"const": "error"}, "error": _object({"type": _TEXT, "message": _TEXT})}, {"request_id": _TEXT}
    ),
    Family.OLLAMA: _object({"error": _TEXT}),
    Family.LLAMACPP: _object({"error": _object({"code": _ANY, "message": _TEXT, "type": _TEXT})}),
}

_WORKER = _object(
    {
        "id": _TEXT,
        "address": _TEXT,
        "state": {"enum": [str(state) for state in WorkerState]},
        "healthy": _FLAG,
        "ready": _FLAG,
        "draining": _FLAG,
        "circuit_breaker_state": {"enum": ["closed", "open", "half-open"]},
        "in_flight": _COUNT,
        "models": _array(_TEXT),
    }
)
_OPENAI_MODEL = _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT})
_OLLAMA_MODELS = _object({"models": _array(_object({"name": _TEXT, "model": _TEXT}))})

HEALTH = _object(
    {
        "status": {"enum": ["healthy", "degraded", "unhealthy"]},
        "version": _TEXT,
        "workers": _object({"total": _COUNT, "available": _COUNT, "states": _ANY}),
        "queue": _object({"depth": _COUNT}),
        "authentication": _object({"enabled": _FLAG, "keys_loaded": _COUNT}),
        "config": _object({"status": {"enum": ["ok", "invalid"]}, "error": _TEXT, "loaded_at": _TEXT}),
    },
    {"certificates": _object({"status": {"const": "invalid"}, "error": _TEXT})},
)
READY = _object({"ready": _FLAG, "draining": _FLAG, "version": _TEXT})
WORKERS = _object({"workers": _array(_WORKER), "count": _COUNT})
MODELS = _object({"object": {"const": "list"}, "data": _array(_OPENAI_MODEL)})
MODEL = _OPENAI_MODEL
OLLAMA_MODELS = _OLLAMA_MODELS
OLLAMA_VERSION = _object({"version": _TEXT})
