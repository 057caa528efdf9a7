"""The engine process when a `llama-server` binary is configured: bind this life to the worker's, then become it.

Run as `python -m neurogate.engines.llamacpp.launch`. What the kernel was told about the parent survives `execve`.
"""

from __future__ import annotations

import os
import sys

from neurogate.config import child_environment
from neurogate.engines.llamacpp.contract import EXIT_ENGINE_MISSING, ChildConfig, take_config


def main() -> int:
    """Become llama-server; returns an exit code only when that fails."""
    config = take_config()
    try:
        environment = child_environment({"LLAMA_API_KEY": config.api_key})
        os.execve(config.binary, arguments(config), environment)  # noqa: S606 - the operator's own binary, no shell
    except OSError as error:
        sys.stderr.write(f"error: {config.binary} cannot be run: {error.strerror or error}\n")
        return EXIT_ENGINE_MISSING


def arguments(config: ChildConfig) -> list[str]:
    """llama-server's command line. The key is not on it: any local user can read command lines."""
    flags = {
        "--model": config.model_path,
        "--alias": config.model_name,
        "--host": "127.0.0.1",
        "--port": config.port,
        "--parallel": config.slots,
        "--ctx-size": config.slots * config.context_length,
        "--threads": config.threads,
    }
    if config.gpu_layers >= 0:
        flags["--n-gpu-layers"] = config.gpu_layers
    if config.chat_template:
        flags["--chat-template-file"] = config.chat_template
    if config.mmproj:
        flags["--mmproj"] = config.mmproj
    if config.pooling != "none":
        flags["--pooling"] = config.pooling
        flags["--ubatch-size"] = config.ubatch
    words = [str(word) for flag in flags.items() for word in flag]
    if config.pooling != "none":
        words.append("--reranking" if config.pooling == "rank" else "--embeddings")
    return [config.binary, *words, "--metrics", "--slots"]


if __name__ == "__main__":
    sys.exit(main())
