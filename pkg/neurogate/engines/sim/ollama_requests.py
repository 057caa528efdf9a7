"""What Ollama's HTTP API is asked, as far as it means something to the simulated engine."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from neurogate.engines.sim.openai_api import mark_of
from neurogate.engines.sim.vectors import DIMENSIONS_MAX

KeepAlive = str | float | None


class Options(msgspec.Struct):
    """The sampling options that mean something here."""

    num_predict: int | None = None
    """Tokens; negative is no limit."""
    ignore_eos: bool | None = None
    stop: str | list[str] | None = None


class GenerateRequest(msgspec.Struct, kw_only=True):
    """The body of /api/generate."""

    model: str = ""
    prompt: str = ""
    system: str = ""
    context: list[int] | None = None
    raw: bool = False
    images: list[str] | None = None
    suffix: str = ""
    format: str | dict[str, Any] | None = None
    stream: bool | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class ChatMessage(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str = ""
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The content as the model sees it."""
        return images_of(self.images) + self.content + "".join(map(mark_of, self.tool_calls or ()))


class Function(msgspec.Struct):
    """A function that may be called."""

    name: str
    parameters: dict[str, Any] | None = None


class ToolSpec(msgspec.Struct):
    """A tool."""

    function: Function


class ChatRequest(msgspec.Struct, kw_only=True):
    """The body of /api/chat."""

    model: str = ""
    messages: list[ChatMessage] = msgspec.field(default_factory=list)
    tools: list[ToolSpec] | None = None
    format: str | dict[str, Any] | None = None
    stream: bool | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class EmbedRequest(msgspec.Struct, kw_only=True):
    """The body of /api/embed."""

    model: str = ""
    input: str | list[str] = ""
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=DIMENSIONS_MAX)] | None = None


class OldEmbedRequest(msgspec.Struct, kw_only=True):
    """The body of /api/embeddings."""

    model: str = ""
    prompt: str = ""


class ShowRequest(msgspec.Struct, kw_only=True):
    """The body of /api/show; either field names the model."""

    model: str = ""
    name: str = ""


def images_of(images: list[str] | None) -> str:
    """What stands for images in a prompt."""
    return "".join([mark_of({"type": "image", "data": image}) for image in images or ()])
