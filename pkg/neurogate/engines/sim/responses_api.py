"""OpenAI's responses, as the simulated engine answers them: one message or one tool's call in typed events.

Nothing is stored, so a response cannot be continued by its id: that is refused rather than ignored.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import msgspec

from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import chat_template
from neurogate.engines.sim.core import Question, SimCore, SimRefusedError, Summary
from neurogate.engines.sim.openai_api import answer_id, limit_of, mark_of, part_text, require_model
from neurogate.engines.sim.openai_forms import refusal
from neurogate.engines.sim.reply import Form, joined, read_json, reply
from neurogate.engines.sim.speech import FREE, Speech, Tool, choice_of, schema_of, tool_call


class Item(msgspec.Struct):
    """One item of the input; those that are no messages are marked by what they are."""

    type: str = "message"
    role: str = "user"
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    arguments: str | None = None
    output: Any = None
    call_id: str | None = None

    @property
    def turn(self) -> tuple[str, str]:
        """Who says what."""
        if self.type == "message":
            text = "".join(map(part_text, self.content)) if isinstance(self.content, list) else self.content or ""
            return self.role, text
        if self.type == "function_call_output":
            return "tool", self.output if isinstance(self.output, str) else mark_of({"output": self.output})
        return "assistant", mark_of({"type": self.type, "name": self.name, "arguments": self.arguments})


class _ToolSpec(msgspec.Struct):
    type: str = "function"
    name: str = ""
    parameters: dict[str, Any] | None = None


class _TextSpec(msgspec.Struct):
    format: dict[str, Any] | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/responses."""

    input: str | Annotated[list[Item], msgspec.Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    previous_response_id: str | None = None
    tools: list[_ToolSpec] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: _TextSpec | None = None
    temperature: float | None = None


_REQUESTS = msgspec.json.Decoder(ResponsesRequest)


def responses(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/responses."""

    def opened() -> Form:
        request = read_json(_REQUESTS, body)
        require_model(core, request.model)
        if request.previous_response_id:
            message = "previous_response_id: responses are not stored here; send the conversation as input"
            raise SimRefusedError(400, message, code="invalid_request", param="previous_response_id")
        items = [Item(content=request.input)] if isinstance(request.input, str) else request.input
        turns = [item.turn for item in items]
        if request.instructions:
            turns.insert(0, ("system", request.instructions))
        speech = _speech(request, turns[-1])
        question = Question(chat_template.render(turns), limit_of(request.max_output_tokens), says=speech.text)
        return _ResponseForm(core, question, streamed=bool(request.stream), tool=speech.tool, name=answer_id(body))

    return reply(core, opened, refusal)


def _speech(request: ResponsesRequest, last: tuple[str, str]) -> Speech:
    choice, named = choice_of(request.tool_choice)
    tools = [Tool(spec.name, spec.parameters) for spec in request.tools or () if spec.type == "function" and spec.name]
    speech = tool_call(tools, choice=choice, named=named, asked=last[1] if last[0] == "user" else "")
    return schema_of(request.text.format if request.text else None) if speech is FREE else speech


class _ResponseForm:
    stream_type = "text/event-stream"

    def __init__(self, core: SimCore, question: Question, *, streamed: bool, tool: str, name: str) -> None:
        self.questions = [question]
        self.streamed = streamed
        self._tool = tool
        self._item_id = f"fc_{name}" if tool else f"msg_{name}"
        self._about = {
            "id": f"resp_{name}",
            "object": "response",
            "created_at": int(core.now()),
            "model": core.model,
            "error": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
            "temperature": None,
            "top_p": None,
        }
        self._place = {"item_id": self._item_id, "output_index": 0}
        self._sequence = 0
        # The end of a stream tells the whole text again; it is bounded as the answer is.
        self._said: list[bytes] = []

    def opening(self) -> bytes:
        begun = {**self._about, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
        events = [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=self._item("", "in_progress", begun=True)),
        ]
        if not self._tool:
            part = _part("")
            events.append(self._event("response.content_part.added", **self._place, content_index=0, part=part))
        return b"".join(events)

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        del choice
        self._said += tokens
        texts = [token.decode() for token in tokens]
        if self._tool:
            kind = "response.function_call_arguments.delta"
            return b"".join([self._event(kind, **self._place, delta=text) for text in texts])
        kind = "response.output_text.delta"
        more = {**self._place, "content_index": 0}
        return b"".join([self._event(kind, **more, delta=text, logprobs=[]) for text in texts])

    def closing(self, summary: Summary) -> bytes:
        text = joined(self._said)
        item = self._item(text, _status(summary))
        if self._tool:
            kind = "response.function_call_arguments.done"
            events = [self._event(kind, **self._place, name=self._tool, arguments=text)]
        else:
            place = {**self._place, "content_index": 0}
            events = [
                self._event("response.output_text.done", **place, text=text, logprobs=[]),
                self._event("response.content_part.done", **place, part=_part(text)),
            ]
        events.append(self._event("response.output_item.done", output_index=0, item=item))
        events.append(self._event(f"response.{_status(summary)}", response=self._response(text, summary)))
        return b"".join(events)

    def failure(self, message: str) -> bytes:
        return self._event("error", code="internal_error", message=message, param=None)

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        return msgspec.json.encode(self._response(joined(answers[0]), summary))

    def _response(self, text: str, summary: Summary) -> dict[str, Any]:
        status, usage = _status(summary), summary.usage
        return {
            **self._about,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [self._item(text, status)],
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.total_tokens,
            },
        }

    def _item(self, text: str, status: str, *, begun: bool = False) -> dict[str, Any]:
        if self._tool:
            call = {"type": "function_call", "call_id": f"call_{self._item_id[3:]}", "name": self._tool}
            return {**call, "id": self._item_id, "arguments": text, "status": status}
        content = [] if begun else [_part(text)]
        return {"type": "message", "id": self._item_id, "role": "assistant", "status": status, "content": content}

    def _event(self, kind: str, **fields: object) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _status(summary: Summary) -> str:
    return "completed" if summary.finish_reason == "stop" else "incomplete"
