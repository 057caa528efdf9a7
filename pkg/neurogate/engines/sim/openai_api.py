"""OpenAI's chat and text completions, as the simulated engine answers them.

What is asked is read here; how it is written is in openai_forms. Sampling fields (temperature, seed and the like) are
accepted and change nothing, since there is nothing to sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import chat_template, tokenizer
from neurogate.engines.sim.core import CONTEXT_TOKENS, Question, SimCore, SimRefusedError
from neurogate.engines.sim.openai_forms import Asked, ChatForm, CompletionForm, refusal
from neurogate.engines.sim.reply import Form, read_json, reply
from neurogate.engines.sim.speech import FREE, Speech, Tool, choice_of, schema_of, tool_call

ANSWERS_MAX = 128
STOPS_MAX = 64

TokenLimit = Annotated[int, msgspec.Meta(ge=-1)] | None
"""-1, as llama.cpp takes it, and None are no limit."""


StopTexts = str | list[str] | None


class Message(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The content as the model sees it: an image counts as a few tokens, and another one is another prompt."""
        said = "".join(map(part_text, self.content)) if isinstance(self.content, list) else self.content or ""
        return said + "".join(map(mark_of, self.tool_calls or ()))


class StreamOptions(msgspec.Struct):
    """What else a stream carries."""

    include_usage: bool | None = None


class Function(msgspec.Struct):
    """What a tool does."""

    name: str
    parameters: dict[str, Any] | None = None


class ToolSpec(msgspec.Struct):
    """A tool that may be called; those that are no functions never are."""

    type: str = "function"
    function: Function | None = None


class CompletionRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | list[Any]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit = None
    ignore_eos: bool | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=ANSWERS_MAX)] | None = None
    stop: StopTexts = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | bool | None = None
    response_format: dict[str, Any] | None = None
    echo: bool | None = None
    temperature: float | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit = None
    max_completion_tokens: TokenLimit = None
    ignore_eos: bool | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=ANSWERS_MAX)] | None = None
    stop: StopTexts = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    temperature: float | None = None


_CHAT = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)


def chat(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/chat/completions."""

    def opened() -> Form:
        return ChatForm(core, chat_asked(core, body))

    return reply(core, opened, refusal)


def completion(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/completions."""

    def opened() -> Form:
        return CompletionForm(core, completion_asked(core, body))

    return reply(core, opened, refusal)


def chat_asked(core: SimCore, body: bytes) -> Asked:
    """What a request for /v1/chat/completions comes down to. Raises SimRefusedError."""
    request = read_json(_CHAT, body)
    require_model(core, request.model)
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    speech = _speech(request)
    prompt = prompt_of(request.messages, request.tools)
    question = Question(
        prompt,
        limit_of(limit),
        ignore_eos=bool(request.ignore_eos),
        stop=stops_of(request.stop),
        says=speech.text,
    )
    return Asked(
        answer_id=answer_id(body),
        questions=variants([question], request.n),
        streamed=bool(request.stream),
        include_usage=_includes_usage(request.stream_options),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        tool=speech.tool,
    )


def completion_asked(core: SimCore, body: bytes) -> Asked:
    """The same for /v1/completions."""
    request = read_json(_COMPLETION, body)
    require_model(core, request.model)
    says = schema_of(request.response_format).text
    questions = [
        Question(
            prompt,
            limit_of(request.max_tokens),
            ignore_eos=bool(request.ignore_eos),
            stop=stops_of(request.stop),
            says=says,
        )
        for prompt in prompt_texts(request.prompt)
    ]
    return Asked(
        answer_id=answer_id(body),
        questions=variants(questions, request.n),
        streamed=bool(request.stream),
        include_usage=_includes_usage(request.stream_options),
        logprobs=None if request.logprobs in {None, False} else int(request.logprobs or 0),
        echo=bool(request.echo),
    )


def models(core: SimCore) -> dict[str, Any]:
    """The answer of /v1/models."""
    model = {
        "id": core.model,
        "object": "model",
        "created": int(core.now()),
        "owned_by": "neurogate-sim",
        "meta": {"n_ctx": CONTEXT_TOKENS},
    }
    return {"object": "list", "data": [model]}


def prompt_of(messages: list[Message], tools: list[ToolSpec] | None) -> str:
    """A conversation as the model sees it, with the tools it may call before it."""
    turns = [(message.role, message.text) for message in messages]
    if tools:
        turns.insert(0, ("system", "".join([f"<|tool {spec.function.name}|>" for spec in tools if spec.function])))
    return chat_template.render(turns)


def prompt_texts(prompt: str | list[Any]) -> list[str]:
    """A prompt that may be text, token ids, or a list of these.

    Raises SimRefusedError (400) for anything else.
    """
    prompts = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else [prompt]
    if len(prompts) > ANSWERS_MAX:
        raise SimRefusedError(
            400, f"prompt: there may be {ANSWERS_MAX} at most", code="invalid_request", param="prompt"
        )
    return [_prompt_text(one) for one in prompts]


def part_text(part: dict[str, Any]) -> str:
    """One part of a content; what is no text is marked by what it is.

    Raises SimRefusedError (400) for an image that is none.
    """
    match part.get("type"):
        case "text" | "input_text" | "output_text" | "refusal" | None:
            return str(part.get("text") or "")
        case "image_url" | "input_image":
            url = part.get("image_url")
            address = url.get("url") if isinstance(url, dict) else url
            if not isinstance(address, str):
                raise SimRefusedError(400, "image_url: must have a url", code="invalid_request", param="messages")
    return mark_of(part)


def mark_of(value: dict[str, Any]) -> str:
    """What stands in a prompt for something that is no text."""
    kind = str(value.get("type") or "data")[:32]
    return f"<|{kind} {blake2b(msgspec.json.encode(value), digest_size=6).hexdigest()}|>"


def limit_of(limit: int | None) -> int | None:
    """Tokens; None for no limit, which APIs say in several ways."""
    return None if limit is None or limit < 0 else limit


def stops_of(stop: StopTexts) -> tuple[str, ...]:
    """The texts that end an answer. Raises SimRefusedError (400) for too many."""
    texts = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(texts) > STOPS_MAX:
        raise SimRefusedError(400, f"stop: there may be {STOPS_MAX} at most", code="invalid_request", param="stop")
    return texts


def answer_id(body: bytes) -> str:
    """What an answer is called: the same body is always answered the same."""
    return blake2b(body, digest_size=12).hexdigest()


def variants(questions: Sequence[Question], count: int | None) -> list[Question]:
    """Each question `count` times, for as many different answers. Raises SimRefusedError (400) for too many."""
    if len(questions) * (count or 1) > ANSWERS_MAX:
        raise SimRefusedError(400, f"n: {ANSWERS_MAX} answers at most", code="invalid_request", param="n")
    if not count or count == 1:
        return list(questions)
    return [replace(question, variant=number) for question in questions for number in range(count)]


def require_model(core: SimCore, model: str | None) -> None:
    """Raise SimRefusedError (404) for a model there is not."""
    if not core.knows(model or ""):
        raise SimRefusedError(404, f"The model '{model}' does not exist", code="model_not_found", param="model")


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    try:
        return tokenizer.decode(prompt if isinstance(prompt, list) else [prompt])
    except (TypeError, AttributeError, ValueError) as error:
        message = "prompt: must be texts, or lists of token ids"
        raise SimRefusedError(400, message, code="invalid_request", param="prompt") from error


def _speech(request: ChatRequest) -> Speech:
    choice, named = choice_of(request.tool_choice)
    tools = [Tool(spec.function.name, spec.function.parameters) for spec in request.tools or () if spec.function]
    last = request.messages[-1]
    asked = last.text if last.role == "user" else ""
    speech = tool_call(tools, choice=choice, named=named, asked=asked)
    return schema_of(request.response_format) if speech is FREE else speech


def _includes_usage(options: StreamOptions | None) -> bool:
    return options is not None and bool(options.include_usage)
