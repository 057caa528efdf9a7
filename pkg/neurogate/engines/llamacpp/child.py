"""The engine process: llama.cpp's own HTTP server, inside a Python process that does nothing else.

Run as `python -m neurogate.engines.llamacpp.child`. The server answers on native threads; the main thread loads the
model, announces the address and then waits for the worker to let go of the pipe.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from neurogate.engines.llamacpp.contract import (
    EXIT_ENGINE_MISSING,
    EXIT_MODEL_UNUSABLE,
    EXIT_PORT_TAKEN,
    Announcement,
    ChildConfig,
    take_config,
)

_HOST = "127.0.0.1"
_PROMPT_CACHE_MIB = 1024
"""Memory for the states of recent prompts. llama.cpp's own default of 8 GiB is more than many machines have."""

_BATCH = 2048
"""Tokens scheduled at once, llama.cpp's own default; what is computed at once cannot be more."""


def main() -> int:
    """Serve until the worker is gone; returns an exit code only when there is nothing to serve."""
    config = take_config()
    try:
        import xllamacpp
    except ImportError as error:
        sys.stderr.write(f"error: the bundled llama.cpp cannot be loaded: {error}\n")
        return EXIT_ENGINE_MISSING
    try:
        server = xllamacpp.Server(parameters(xllamacpp, config))
    except RuntimeError as error:
        if config.port and not _is_free(config.port):
            sys.stderr.write(f"error: port {config.port} is taken by another process\n")
            return EXIT_PORT_TAKEN
        sys.stderr.write(f"error: llama.cpp cannot load {config.model_path}: {error}\n")
        return EXIT_MODEL_UNUSABLE
    sys.stdout.buffer.write(msgspec.json.encode(Announcement(server.listening_address)) + b"\n")
    sys.stdout.buffer.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # destroying the server would wait for generations that nobody reads any more


def parameters(xllamacpp: Any, config: ChildConfig) -> Any:
    """llama.cpp's parameters for what the worker asked for."""
    params = xllamacpp.CommonParams()
    params.model.path = config.model_path
    params.model_alias = {config.model_name}
    params.hostnames = [_HOST]
    params.port = config.port
    params.api_keys = [config.api_key]
    params.n_parallel = config.slots
    params.n_ctx = config.slots * config.context_length
    params.cpuparams.n_threads = config.threads
    params.cpuparams_batch.n_threads = config.threads
    params.n_gpu_layers = config.gpu_layers
    params.n_ubatch = config.ubatch
    params.n_batch = max(_BATCH, config.ubatch)
    if config.pooling != "none":
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{config.pooling.upper()}"]
    if config.reproducible and not _has_gpu(xllamacpp):
        # With keys and values of the same type, its flash attention sums a batch of 64 tokens or more in another order
        # than a single token, and so does a context of 512: a tie falls otherwise, and an answer goes on otherwise.
        params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_BF16
    if config.chat_template:
        params.chat_template = Path(config.chat_template).read_text(encoding="utf-8")
    if config.mmproj:
        params.mmproj.path = config.mmproj
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    return params


def _has_gpu(xllamacpp: Any) -> bool:
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return any(device["type"] != cpu for device in xllamacpp.get_device_info())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
