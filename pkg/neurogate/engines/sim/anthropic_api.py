"""Anthropic's messages, as the simulated engine answers them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Literal

import msgspec

from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import chat_template, tokenizer
from neurogate.engines.sim.core import Question, SimCore, SimRefusedError, Summary
from neurogate.engines.sim.openai_api import answer_id, mark_of, require_model, stops_of
from neurogate.engines.sim.reply import Form, joined, read_json, reply
from neurogate.engines.sim.speech import Speech, Tool, tool_call

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}

Content = str | list[dict[str, Any]]


class Message(msgspec.Struct):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Content

    @property
    def text(self) -> str:
        """The content as the model sees it."""
        return _text(self.content)


class _ToolSpec(msgspec.Struct):
    name: str
    input_schema: dict[str, Any] | None = None


class _ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class CountRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/messages/count_tokens."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    system: Content | None = None
    tools: list[_ToolSpec] | None = None
    tool_choice: _ToolChoice | None = None


class MessagesRequest(CountRequest, kw_only=True):
    """The body of /v1/messages."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None


_MESSAGES = msgspec.json.Decoder(MessagesRequest)
_COUNT = msgspec.json.Decoder(CountRequest)


def refusal(error: SimRefusedError) -> bytes:
    """Anthropic's error body."""
    kind = _KINDS.get(error.status, "api_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": str(error)}})


def messages(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/messages."""

    def opened() -> Form:
        request = read_json(_MESSAGES, body)
        require_model(core, request.model)
        speech = _speech(request)
        stop = stops_of(request.stop_sequences)
        question = Question(_prompt(request), request.max_tokens, stop=stop, says=speech.text)
        return _MessageForm(core, question, streamed=bool(request.stream), tool=speech.tool, name=answer_id(body))

    return reply(core, opened, refusal)


def count_tokens(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/messages/count_tokens."""

    def opened() -> bytes:
        request = read_json(_COUNT, body)
        require_model(core, request.model)
        return msgspec.json.encode({"input_tokens": tokenizer.count(_prompt(request))})

    return reply(core, opened, refusal)


def _prompt(request: CountRequest) -> str:
    turns = [(message.role, message.text) for message in request.messages]
    system = [("system", _text(request.system))] if request.system else []
    return chat_template.render([*system, *turns])


def _text(content: Content) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") if part.get("type") == "text" else mark_of(part) for part in content)


def _speech(request: CountRequest) -> Speech:
    choice = request.tool_choice or _ToolChoice("auto")
    tools = [Tool(spec.name, spec.input_schema) for spec in request.tools or ()]
    last = request.messages[-1]
    is_question = last.role == "user" and (
        isinstance(last.content, str) or not any(part.get("type") == "tool_result" for part in last.content)
    )
    freedom: dict[str, Literal["none", "auto", "required"]] = {"auto": "auto", "none": "none", "any": "required"}
    if choice.type == "tool" and not choice.name:
        raise SimRefusedError(400, "tool_choice: must name a tool", code="invalid_request", param="tool_choice")
    return tool_call(
        tools,
        choice=freedom.get(choice.type, "required"),
        named=choice.name if choice.type == "tool" else "",
        asked=last.text if is_question else "",
    )


class _MessageForm:
    stream_type = "text/event-stream"

    def __init__(self, core: SimCore, question: Question, *, streamed: bool, tool: str, name: str) -> None:
        self.questions = [question]
        self.streamed = streamed
        self._tool = tool
        self._tool_id = f"toolu_{name}"
        self._about = {"id": f"msg_{name}", "type": "message", "role": "assistant", "model": core.model}
        self._prompt_tokens = tokenizer.count(question.prompt)

    def opening(self) -> bytes:
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0, "cache_read_input_tokens": 0}
        begun: dict[str, Any] = {
            **self._about,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        block = self._block("") | ({"input": {}} if self._tool else {})
        return (
            _event("message_start", message=begun)
            + _event("content_block_start", index=0, content_block=block)
            + _event("ping")
        )

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        del choice
        kind, field = ("input_json_delta", "partial_json") if self._tool else ("text_delta", "text")
        return b"".join(
            [_event("content_block_delta", index=0, delta={"type": kind, field: token.decode()}) for token in tokens]
        )

    def closing(self, summary: Summary) -> bytes:
        usage = {"output_tokens": summary.usage.completion_tokens}
        return (
            _event("content_block_stop", index=0)
            + _event("message_delta", delta=self._stop(summary), usage=usage)
            + _event("message_stop")
        )

    def failure(self, message: str) -> bytes:
        return _event("error", error={"type": "api_error", "message": message})

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        usage = {
            "input_tokens": summary.usage.prompt_tokens,
            "output_tokens": summary.usage.completion_tokens,
            "cache_read_input_tokens": summary.usage.cached_tokens,
        }
        content = [self._block(joined(answers[0]))]
        return msgspec.json.encode({**self._about, "content": content, **self._stop(summary), "usage": usage})

    def _block(self, text: str) -> dict[str, Any]:
        if not self._tool:
            return {"type": "text", "text": text}
        try:
            arguments = msgspec.json.decode(text or "{}")
        except msgspec.DecodeError:  # the limit cut the call short, as it does with real engines
            arguments = {}
        return {"type": "tool_use", "id": self._tool_id, "name": self._tool, "input": arguments}

    def _stop(self, summary: Summary) -> dict[str, str | None]:
        part = summary.parts[0]
        if part.stopped_by:
            return {"stop_reason": "stop_sequence", "stop_sequence": part.stopped_by}
        natural = "tool_use" if self._tool else "end_turn"
        return {"stop_reason": natural if part.finish_reason == "stop" else "max_tokens", "stop_sequence": None}


def _event(kind: str, **fields: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"
