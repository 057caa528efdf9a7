"""OpenTelemetry's semantic conventions for generative AI, as far as spans here use them.

The names are those of https://github.com/open-telemetry/semantic-conventions-genai (status: development). Prompts and
answers are never among the attributes.
"""

from __future__ import annotations

from neurogate.inference import Usage
from neurogate.telemetry.spans import Value

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
FIRST_CHUNK_S = "gen_ai.response.time_to_first_chunk"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
ERROR_TYPE = "error.type"

_CHAT, _COMPLETION, _EMBEDDINGS = "chat", "text_completion", "embeddings"

_OPERATIONS = {
    "/v1/chat/completions": _CHAT,
    "/v1/responses": _CHAT,
    "/v1/messages": _CHAT,
    "/api/chat": _CHAT,
    "/prompt": _COMPLETION,
    "/v1/completions": _COMPLETION,
    "/api/generate": _COMPLETION,
    "/completion": _COMPLETION,
    "/infill": _COMPLETION,
    "/v1/embeddings": _EMBEDDINGS,
    "/api/embed": _EMBEDDINGS,
    "/api/embeddings": _EMBEDDINGS,
}


def asked(path: str, provider: str, model: str) -> dict[str, Value]:
    """What was asked for; nothing for a path that generates nothing, such as `/tokenize`."""
    operation = _OPERATIONS.get(path)
    if operation is None:
        return {}
    named: dict[str, Value] = {OPERATION: operation, PROVIDER: provider}
    return named | {REQUEST_MODEL: model} if model else named


def used(usage: Usage | None) -> dict[str, Value]:
    """Tokens, as the engine counted them; nothing where it did not."""
    if usage is None:
        return {}
    counts: dict[str, Value] = {INPUT_TOKENS: usage.prompt_tokens, OUTPUT_TOKENS: usage.completion_tokens}
    return counts | {CACHED_TOKENS: usage.cached_tokens} if usage.cached_tokens else counts


def finished(reason: str) -> dict[str, Value]:
    """Why the answer ended; nothing where nobody said."""
    return {FINISH_REASONS: (reason,)} if reason else {}
