"""Which dialect speaks at which path."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import msgspec

from neurogate.gateway.dialects import anthropic, llamacpp, ollama, openai
from neurogate.gateway.dialects.dialect import Dialect, Request
from neurogate.gateway.dialects.prompt import PromptDialect
from neurogate.prompt_api import PromptRequest

_OPENAI: Mapping[str, type[Request]] = {
    "/v1/chat/completions": openai.ChatRequest,
    "/v1/completions": openai.CompletionRequest,
    "/v1/embeddings": openai.EmbeddingsRequest,
    "/v1/rerank": openai.RerankRequest,
}
_ANTHROPIC: Mapping[str, type[Request]] = {
    "/v1/messages": anthropic.MessagesRequest,
    "/v1/messages/count_tokens": anthropic.CountTokensRequest,
}
_LLAMACPP: Mapping[str, type[Request]] = {
    "/completion": llamacpp.NativeCompletionRequest,
    "/infill": llamacpp.InfillRequest,
    "/tokenize": llamacpp.TokenizeRequest,
    "/detokenize": llamacpp.DetokenizeRequest,
    "/apply-template": llamacpp.TemplateRequest,
}
_OLLAMA: Mapping[str, type[Request]] = {
    "/api/generate": ollama.GenerationRequest,
    "/api/chat": ollama.GenerationRequest,
    "/api/embed": ollama.OllamaRequest,
    "/api/embeddings": ollama.OllamaRequest,
    "/api/show": ollama.ShowRequest,
}

BODIES: Mapping[str, type[msgspec.Struct]] = {
    "/prompt": PromptRequest,
    "/v1/responses": openai.ResponsesRequest,
    **_OPENAI,
    **_ANTHROPIC,
    **_LLAMACPP,
    **_OLLAMA,
}
"""What is read and checked of each path's body."""


def dialects(models: Callable[[], Container[str]] = frozenset) -> dict[str, Dialect]:
    """A dialect for every path of the hot path; `models` are the names there are now."""
    return {
        "/prompt": PromptDialect(),
        "/v1/responses": openai.ResponsesDialect(openai.ResponsesRequest),
        **{path: openai.OpenAIDialect(request) for path, request in _OPENAI.items()},
        **{path: anthropic.AnthropicDialect(request) for path, request in _ANTHROPIC.items()},
        **{path: llamacpp.LlamaCppDialect(request) for path, request in _LLAMACPP.items()},
        **{path: ollama.OllamaDialect(request, models) for path, request in _OLLAMA.items()},
    }
