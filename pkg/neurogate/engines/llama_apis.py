"""What a llama.cpp server can do, found out by asking it: once in its life, and without generating a token.

Its answer to an empty request tells whether it has an API: it refuses the request when it has, and the API when it has
not. Whether it would use tools is seen in the prompt it would make of them: a model's template may leave them out, and
then they are ignored without a word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from neurogate.engines.payload import json_of, message_of

Post = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
"""Sends a body to a path; gives status and body."""

_ALWAYS = frozenset({"/completion", "/tokenize", "/detokenize"})
_COUNT_TOKENS = "/v1/messages/count_tokens"
_ASKED = ("/v1/embeddings", "/v1/rerank", "/v1/responses", _COUNT_TOKENS, "/infill", "/apply-template")
_MISSING = frozenset({404, 405, 501})
_NO_POOLING = "Pooling type"
"""How it begins to say that its embeddings are one for each token, which OpenAI's API has no place for."""

_EMBEDDING_REQUEST = msgspec.json.encode({"input": "a", "encoding_format": "float"})
_IGNORED = frozenset({"best_of", "echo", "suffix"})
_TOOL_NAME = "neurogate_probe"
_TOOL_REQUEST = msgspec.json.encode(
    {
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": _TOOL_NAME,
                    "description": "Nothing.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
    }
)


async def apis_of(post: Post) -> frozenset[str]:
    """The non-universal paths that the server takes. Raises what `post` does."""
    found = {path for path in _ASKED if _is_there(*await post(path, b"{}"))}
    if _COUNT_TOKENS in found:
        found.add("/v1/messages")
    if {"/v1/rerank", "/v1/embeddings"} <= found and not await _embeds(post):
        found.discard("/v1/embeddings")
    return _ALWAYS | found


async def ignored_by(post: Post, apis: frozenset[str]) -> frozenset[str]:
    """The features that the server would ignore. Raises what `post` does."""
    if "/apply-template" not in apis:
        return _IGNORED
    status, body = await post("/apply-template", _TOOL_REQUEST)
    value = json_of(body) if status == 200 else None
    prompt = value.get("prompt") if isinstance(value, dict) else None
    return _IGNORED if isinstance(prompt, str) and _TOOL_NAME in prompt else _IGNORED | {"tools"}


async def _embeds(post: Post) -> bool:
    """Whether a reranker's embeddings are vectors of the text: llama.cpp's are its score, a single number."""
    _, body = await post("/v1/embeddings", _EMBEDDING_REQUEST)
    match json_of(body):
        case {"data": [{"embedding": [_, _, *_]}, *_]}:
            return True
    return False


def _is_there(status: int, body: bytes) -> bool:
    return status not in _MISSING and not message_of(body).startswith(_NO_POOLING)
