"""Gateways that are made for models: the Rust routers of vLLM and SGLang, and LiteLLM's proxy in Python.

They run as their manuals say, round robin, and log warnings only, which favours them.
"""

from __future__ import annotations

from pathlib import Path

from peers import environments
from peers.peer import Capacity, Running, Stage, free_port, spawn

_LITELLM = """
model_list:
- model_name: bench
  litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{engine_port}/v1", api_key: none}}
"""


class RustRouter:
    """One of the two whose options are the same; its program is called like its package."""

    capacity: Capacity | None = None

    def __init__(self, name: str, *command: str, warnings: str) -> None:
        """`command` comes before the options; `warnings` is what it calls a log of warnings only."""
        self.name = name
        self._command = command
        self._warnings = warnings

    def set_up(self) -> str:
        """See Peer."""
        return environments.version_of(environments.venv(self.name, self.name), self.name)

    def start(self, stage: Stage) -> Running:
        """See Peer."""
        port = free_port()
        command: list[str | Path] = [
            environments.venv(self.name, self.name) / self.name,
            *self._command,
            *("--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin", "--log-level", self._warnings),
            *("--prometheus-port", str(free_port()), "--worker-urls", f"http://127.0.0.1:{stage.engine_port}"),
        ]
        return Running(port, {"gateway": spawn(stage, "gateway", command)}, directory=stage.directory)


class LiteLlm:
    """LiteLLM's proxy, one process; it is asked for what one core of it can do."""

    name = "litellm"
    capacity: Capacity | None = Capacity(connections=8, rate=20)

    def set_up(self) -> str:
        """See Peer."""
        return environments.version_of(environments.venv(self.name, "litellm[proxy]"), "litellm")

    def start(self, stage: Stage) -> Running:
        """See Peer."""
        port = free_port()
        file = stage.directory / "litellm.yaml"
        file.write_text(_LITELLM.format(engine_port=stage.engine_port))
        binaries = environments.venv(self.name, "litellm[proxy]")
        command: list[str | Path] = [binaries / "litellm", "--config", file, "--host", "127.0.0.1", "--port", str(port)]
        environment = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        process = spawn(stage, "gateway", command, **environment)
        return Running(port, {"gateway": process}, directory=stage.directory)
