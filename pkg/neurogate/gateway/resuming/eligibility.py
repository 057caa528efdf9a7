"""What a request asks for whose answer nobody could go on with, in the words of each API.

A continuation is the conversation and the text so far, given to another engine as one prompt. That is faithful for text
and for everything that decides how the next token is drawn: limits, stop texts, seeds, penalties, a system prompt, an
assistant's turn that has begun, a raw prompt. It is not for what an engine keeps beside the text (where in a grammar it
stands, the arguments of a tool's call), for what it tells of each token, nor for several answers at once. Whether an
engine can do what is left is for its worker to say, which may refuse.

`false`, 0, `null`, the empty text and the empty list ask for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from neurogate.dataplane.recovery import CannotResumeError
from neurogate.prompt_api import UNDECODABLE

_decode = msgspec.json.Decoder(dict[str, Any]).decode

_OPENAI = {
    "tools": "tools",
    "functions": "tools",
    "web_search_options": "tools",
    "grammar": "a grammar",
    "json_schema": "a JSON schema",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "n_probs": "logprobs",
    "prompt_logprobs": "logprobs",
    "return_token_ids": "token ids",
    "return_hidden_states": "hidden states",
    "echo": "its prompt to be repeated (echo)",
    "suffix": "a text that ends with a suffix",
    "audio": "audio",
    "prompt_embeds": "an answer to embeddings",
    "use_beam_search": "beam search",
    # vLLM's and SGLang's names for grammars.
    "guided_json": "a JSON schema",
    "guided_regex": "a grammar",
    "guided_choice": "a grammar",
    "guided_grammar": "a grammar",
    "structured_outputs": "a grammar",
    "structural_tag": "a grammar",
    "regex": "a grammar",
    "ebnf": "a grammar",
}
_MEDIA = {
    "image_url": "images",
    "image": "images",
    "input_image": "images",
    "input_audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
    "file": "files",
}
_SEVERAL = ("n", "n_cmpl", "best_of")

_OLLAMA = {
    "tools": "tools",
    "format": "JSON (format)",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "images": "an answer to images",
    "think": "reasoning",
    "suffix": "a text that ends with a suffix",
    "context": "an answer to tokens (context)",
}


def check_openai(body: bytes) -> None:
    """Raises CannotResumeError for a request to `/v1/chat/completions` or `/v1/completions`."""
    request = _read(body)
    _refuse(
        *_named(request, _OPENAI),
        *_several(request),
        *_formats(request.get("response_format")),
        *_modalities(request.get("modalities")),
        *_media(_parts(request.get("messages"))),
        *_prompts(request.get("prompt")),
        *_usage(request.get("stream_options")),
    )


def check_ollama(body: bytes) -> None:
    """Raises CannotResumeError for a request to `/api/generate` or `/api/chat`."""
    request = _folded(_read(body))
    messages = request.get("messages")
    turns = [_folded(turn) for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
    _refuse(*_named(request, _OLLAMA), *("an answer to images" for turn in turns if _asks(turn.get("images"))))


def _read(body: bytes) -> dict[str, Any]:
    try:
        return _decode(body)
    except UNDECODABLE as error:
        raise CannotResumeError("the request cannot be read") from error


def _refuse(*what: str) -> None:
    if what:
        raise CannotResumeError(f"the request asks for {what[0]}")


def _asks(value: object) -> bool:
    """An empty object asks: it is the schema of any JSON."""
    return value is not None and value not in (0, "", [])  # False is 0


def _named(request: dict[str, Any], fields: dict[str, str]) -> Iterator[str]:
    return (what for name, what in fields.items() if _asks(request.get(name)))


def _folded(request: dict[str, Any]) -> dict[str, Any]:
    """Ollama reads names in any case."""
    return {name.lower(): value for name, value in request.items()}


def _several(request: dict[str, Any]) -> Iterator[str]:
    for name in _SEVERAL:
        value = request.get(name)
        if isinstance(value, int | float) and value > 1:
            yield f"several answers ({name})"


def _formats(wanted: object) -> Iterator[str]:
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if _asks(kind) and kind != "text":
        yield "a response format"


def _modalities(wanted: object) -> Iterator[str]:
    if isinstance(wanted, list) and any(each != "text" for each in wanted):
        yield "audio"


def _parts(messages: object) -> Iterator[object]:
    """What messages are made of, where that is not just text."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        yield from content if isinstance(content, list) else ()


def _media(parts: Iterable[object]) -> Iterator[str]:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            yield f"an answer to {_MEDIA.get(kind) or repr(kind[:50])}"


def _prompts(prompt: object) -> Iterator[str]:
    """A list of texts, or of lists of tokens, is as many prompts; tokens, also with texts between them, are one."""
    parts = prompt if isinstance(prompt, list) else [prompt]
    if any(isinstance(part, dict) for part in parts):
        yield "an answer to images"
    if len(parts) > 1 and not any(isinstance(part, int) for part in parts):
        yield "answers to several prompts"


def _usage(options: object) -> Iterator[str]:
    if isinstance(options, dict) and _asks(options.get("continuous_usage_stats")):
        yield "usage in every event"
