"""What the engines share of continuing an answer: reading the request, and the limits of both parts.

The gateway decides by the request whether an answer may be continued at all; what is checked here again is what an
engine would get wrong without a word, for calls that come another way.
"""

from __future__ import annotations

from typing import Any

from neurogate.engines.engine import EngineCall, EngineUnsupportedError
from neurogate.engines.payload import json_of

Request = dict[str, Any]

_UNFAITHFUL = (
    "tools", "functions", "grammar", "json_schema", "format", "logprobs", "top_logprobs", "n_probs", "echo", "suffix",
    "images", "context",
)  # fmt: skip
_SEVERAL = ("n", "n_cmpl", "best_of")
_LIMITS = ("n_predict", "max_completion_tokens", "max_tokens")
"""The first of them that is given counts, as in llama.cpp."""


def request_of(call: EngineCall) -> Request:
    """The request without what it leaves open. Raises EngineUnsupportedError when its answer cannot be continued."""
    value = json_of(call.body)
    if not isinstance(value, dict):
        raise EngineUnsupportedError(f"a request to {call.path} that is no JSON object is not continued")
    folds = call.path.startswith("/api/")  # Ollama reads names in any case
    request = {name.lower() if folds else name: field for name, field in value.items() if field is not None}
    for name in _UNFAITHFUL:
        if request.get(name) not in (None, False, 0, "", []):
            raise EngineUnsupportedError(f"an answer with {name!r} is not continued")
    for name in _SEVERAL:
        if request.get(name, 1) not in (0, 1):
            raise EngineUnsupportedError(f"several answers ({name}) are not continued")
    form = request.get("response_format")
    if isinstance(form, dict) and form.get("type", "text") != "text":
        raise EngineUnsupportedError("an answer with 'response_format' is not continued")
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict) or message.get("images") or not _is_text(message.get("content")):
            raise EngineUnsupportedError("an answer to more than text is not continued")
    return request


def limit_of(request: Request) -> int | None:
    """How many tokens the whole answer may have; None when the request names no limit."""
    limit = next((request[name] for name in _LIMITS if name in request), None)
    if limit is None or (isinstance(limit, int | float) and limit < 0):
        return None
    if not isinstance(limit, int):
        raise EngineUnsupportedError("an answer with a limit that is no number is not continued")
    return limit


def stops_of(request: Request) -> list[str]:
    """The texts that end the answer, of which there may be one as a plain string."""
    stop = request.get("stop", [])
    return [stop] if isinstance(stop, str) else [text for text in stop if isinstance(text, str)]


def _is_text(content: object) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content is None or isinstance(content, str)
