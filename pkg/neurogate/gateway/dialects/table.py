"""Which dialect speaks at which path."""

from __future__ import annotations

from collections.abc import Mapping

from neurogate.gateway.dialects import anthropic, llamacpp, openai
from neurogate.gateway.dialects.dialect import Dialect, Request
from neurogate.gateway.dialects.prompt import PromptDialect

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


def dialects() -> dict[str, Dialect]:
    """A dialect for every path of the hot path."""
    return {
        "/prompt": PromptDialect(),
        "/v1/responses": openai.ResponsesDialect(openai.ResponsesRequest),
        **{path: openai.OpenAIDialect(request) for path, request in _OPENAI.items()},
        **{path: anthropic.AnthropicDialect(request) for path, request in _ANTHROPIC.items()},
        **{path: llamacpp.LlamaCppDialect(request) for path, request in _LLAMACPP.items()},
    }
