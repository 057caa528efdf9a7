"""Every API that generates or computes something on a worker, by its path: what both ends of the link must agree on.

A path alone says whose API it is, whether an answer is streamed when the body does not say, and how a whole stream
ends. Gateway (dialects, OpenAPI), worker (forwarding, translation) and engines (what they have) read this one table.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Family(enum.Enum):
    """Whose API, and so whose error bodies and events."""

    NEUROGATE = "neurogate"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"
    LLAMACPP = "llamacpp"


class Ending(enum.Enum):
    """The mark of a whole stream; one without it was cut."""

    NONE = "never streamed"
    DONE = "SSE data [DONE]"
    EVENT_DONE = "SSE data with done: true"
    MESSAGE_STOP = "SSE event message_stop"
    RESPONSE_COMPLETED = "SSE event response.completed, response.incomplete or response.failed"
    STOP = "SSE data with stop: true"
    NDJSON_DONE = "a line with done: true"


class Operation(NamedTuple):
    """One API."""

    path: str
    family: Family
    ending: Ending
    streams_by_default: bool = False
    universal: bool = False
    """Every worker can do it, whatever its engine; for others the worker's report says so (`WorkerReport.apis`)."""
    generates: bool = True
    """It generates text, so that tokens of completion are to be reckoned with."""
    resumes: bool = False
    """A stream of it that broke can be continued by another worker (ADR 0018)."""


_ALL = (
    Operation("/prompt", Family.NEUROGATE, Ending.EVENT_DONE, universal=True, resumes=True),
    Operation("/v1/chat/completions", Family.OPENAI, Ending.DONE, universal=True, resumes=True),
    Operation("/v1/completions", Family.OPENAI, Ending.DONE, universal=True, resumes=True),
    Operation("/v1/responses", Family.OPENAI, Ending.RESPONSE_COMPLETED),
    Operation("/v1/embeddings", Family.OPENAI, Ending.NONE, generates=False),
    Operation("/v1/rerank", Family.OPENAI, Ending.NONE, generates=False),
    Operation("/v1/messages", Family.ANTHROPIC, Ending.MESSAGE_STOP),
    Operation("/v1/messages/count_tokens", Family.ANTHROPIC, Ending.NONE, generates=False),
    Operation(
        "/api/generate", Family.OLLAMA, Ending.NDJSON_DONE, streams_by_default=True, universal=True, resumes=True
    ),
    Operation("/api/chat", Family.OLLAMA, Ending.NDJSON_DONE, streams_by_default=True, universal=True, resumes=True),
    Operation("/api/embed", Family.OLLAMA, Ending.NONE, generates=False),
    Operation("/api/embeddings", Family.OLLAMA, Ending.NONE, generates=False),
    Operation("/api/show", Family.OLLAMA, Ending.NONE, universal=True, generates=False),
    Operation("/completion", Family.LLAMACPP, Ending.STOP),
    Operation("/infill", Family.LLAMACPP, Ending.STOP),
    Operation("/tokenize", Family.LLAMACPP, Ending.NONE, generates=False),
    Operation("/detokenize", Family.LLAMACPP, Ending.NONE, generates=False),
    Operation("/apply-template", Family.LLAMACPP, Ending.NONE, generates=False),
)

OPERATIONS = {operation.path: operation for operation in _ALL}

CANARY_PATH = "/neurogate/canary"
"""A call of the gateway's own over the link: does your engine generate? It has no body; 200 is yes (ADR 0020)."""
