"""What the simulated engine says when it may not just make something up: a tool's call, or JSON.

The one idea: both are a text that the request determines, so an API decides what must be said and under which tool's
name, and everything else is the same as for any answer. A tool is called when the request demands it, or when its last
message is a user's that names the tool: by its name, or by a word of it (`get_weather` for "What's the weather?").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from neurogate.engines.sim.core import SimRefusedError
from neurogate.engines.sim.json_instance import instance
from neurogate.engines.sim.tokenizer import MARKER

_WORD_LETTERS_MIN = 4
_WORD = re.compile(r"[a-z0-9]+")

Choice = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that may be called."""

    name: str
    schema: Any = None
    """Of its arguments; None when it takes none."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What must be said."""

    text: str | None = None
    """None leaves the engine free."""
    tool: str = ""
    """The tool whose arguments the text is."""


FREE = Speech()


def tool_call(tools: list[Tool], *, choice: Choice, named: str = "", asked: str = "") -> Speech:
    """The call of a tool, or FREE.

    `named` is the one that must be called, `asked` the user's message when it is the last. Raises SimRefusedError (400)
    for a named tool that is not there, and for arguments that cannot be made up.
    """
    if named:
        chosen = next((tool for tool in tools if tool.name == named), None)
        if chosen is None:
            raise SimRefusedError(400, f"there is no tool {named!r}", code="invalid_request", param="tool_choice")
        return _call(chosen)
    if choice == "none" or not tools:
        return FREE
    words = set(_WORD.findall(asked.lower()))
    for tool in tools:
        parts = [part for part in _WORD.findall(tool.name.lower()) if len(part) >= _WORD_LETTERS_MIN]
        if tool.name.lower() in asked.lower() or words.intersection(parts):
            return _call(tool)
    return _call(tools[0]) if choice == "required" else FREE


def json_of(schema: object) -> Speech:
    """Any JSON object, or an instance of a schema. Raises SimRefusedError (400) for a schema that will not do."""
    return Speech(_written({"answer": MARKER} if schema is None else instance(schema)))


def choice_of(value: object) -> tuple[Choice, str]:
    """OpenAI's `tool_choice`: how free the choice is, and the tool that must be called.

    Raises SimRefusedError (400) for anything else.
    """
    match value:
        case None:
            return "auto", ""
        case "none" | "auto" | "required":
            return value, ""
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return "required", name
    message = "tool_choice: must be none, auto, required, or name a function"
    raise SimRefusedError(400, message, code="invalid_request", param="tool_choice")


def schema_of(value: object) -> Speech:
    """OpenAI's `response_format`, also as `/v1/responses` has it. Raises SimRefusedError (400) for anything else."""
    match value:
        case None | {"type": "text"}:
            return FREE
        case {"type": "json_object", "schema": dict(schema)} if schema:
            return json_of(schema)
        case {"type": "json_object"}:
            return json_of(None)
        case {"type": "json_schema", "json_schema": {"schema": schema}} | {"type": "json_schema", "schema": schema}:
            return json_of(schema)
    message = "response_format: must be of the type text, json_object or json_schema, with a schema"
    raise SimRefusedError(400, message, code="invalid_request", param="response_format")


def _call(tool: Tool) -> Speech:
    return Speech(_written({} if not tool.schema else instance(tool.schema)), tool=tool.name)


def _written(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError) as error:
        raise SimRefusedError(400, f"the JSON schema: {error}", code="invalid_request", param="schema") from error
