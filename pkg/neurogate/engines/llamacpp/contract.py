"""What a worker and the engine process it starts agree on.

The worker writes one line of JSON to the process's standard input and keeps that pipe open for as long as it lives. The
process never outlives its worker: the kernel kills it with the worker (Linux), and elsewhere the end of the pipe tells
it. The bundled engine answers with one line on its standard output once it listens; everything else either of them
writes is log.
"""

from __future__ import annotations

import sys

import msgspec

from neurogate.parent import die_with_parent, is_orphan
from neurogate.prompt_api import UNDECODABLE

EXIT_MODEL_UNUSABLE = 65
"""The model cannot be loaded: trying again cannot help."""
EXIT_ENGINE_MISSING = 69
"""The engine's library or binary is not there: trying again cannot help."""
EXIT_PORT_TAKEN = 75
"""Another process has the port: another port, or a little time, can help."""
EXIT_ORPHANED = 76
"""The worker died before the process was under way."""

_CONFIG_BYTES_MAX = 64 * 1024


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the engine process is told. It carries a key, so it never appears on a command line."""

    parent_pid: int
    model_path: str
    model_name: str
    port: int
    """0 lets the engine take a free one; only the bundled engine can say which."""
    slots: int
    context_length: int
    """Tokens of each slot."""
    threads: int
    gpu_layers: int
    """-1 lets the engine decide."""
    api_key: str
    ubatch: int = 512
    """Tokens computed at once."""
    pooling: str = "none"
    """How one embedding is made of a text: mean, cls, last or rank; none is without embeddings."""
    reproducible: bool = True
    """Compute a token alike alone and with others."""
    chat_template: str = ""
    """Path of a Jinja template to use instead of the model's own."""
    mmproj: str = ""
    """Path of the multimodal projector."""
    binary: str = ""
    """Path of a llama-server to run instead of the bundled engine."""


class Announcement(msgspec.Struct, frozen=True):
    """The engine listens and its model is loaded."""

    listening: str
    """Its base URL."""


def write_config(config: ChildConfig) -> bytes:
    """The line for the process's standard input."""
    return msgspec.json.encode(config) + b"\n"


def announced_url(line: str) -> str:
    """The URL in the process's announcement; empty for any other line."""
    if not line.startswith('{"listening"'):
        return ""
    try:
        return msgspec.json.decode(line.encode(), type=Announcement).listening
    except UNDECODABLE:
        return ""


def take_config() -> ChildConfig:
    """In the process: bind this life to the parent's, then read what to do. Exits when the parent is already gone."""
    die_with_parent()
    line = sys.stdin.buffer.readline(_CONFIG_BYTES_MAX)
    if not line:
        sys.exit(EXIT_ORPHANED)
    config = msgspec.json.decode(line, type=ChildConfig)
    if is_orphan(config.parent_pid):
        sys.exit(EXIT_ORPHANED)
    return config
