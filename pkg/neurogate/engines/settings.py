"""Which engine a worker drives, and how."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from neurogate.config import env
from neurogate.errors import ConfigError
from neurogate.operations import OPERATIONS

EngineKind = Literal["llamacpp", "llama-server", "ollama", "openai", "sim"]

DEFAULT_MODEL = "smollm2-135m-instruct"
MANAGED_SLOTS = 4
"""Slots of a managed engine when nobody says how many."""


class SimSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Speed and faults of the simulated engine."""

    prefill_tps: Annotated[
        float, env("NEUROGATE_SIM_PREFILL_TPS", "Prompt tokens a second one slot processes; 0 is instant.", ge=0)
    ] = 2000.0
    decode_tps: Annotated[
        float, env("NEUROGATE_SIM_DECODE_TPS", "Tokens a second each active slot generates; 0 is instant.", ge=0)
    ] = 50.0
    slots: Annotated[int, env("NEUROGATE_SIM_SLOTS", "Requests decoded at the same time; others queue.", ge=1)] = 4
    faults: Annotated[
        str, env("NEUROGATE_SIM_FAULTS", "Faults to inject, for example `error=0.1,cut_after=5`; empty is none.")
    ] = ""
    deterministic: Annotated[
        bool,
        env(
            "NEUROGATE_SIM_DETERMINISTIC",
            "Date every answer alike and tell durations by the settings, so that the same body gives the same bytes.",
        ),
    ] = False


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The engine of one worker."""

    engine: Annotated[
        EngineKind | Literal[""],
        env(
            "NEUROGATE_ENGINE",
            "llamacpp (managed, the default), llama-server, ollama, openai or sim. OLLAMA_URL alone selects ollama.",
        ),
    ] = ""
    url: Annotated[str, env("NEUROGATE_ENGINE_URL", "Base URL of an external llama-server, Ollama or OpenAI API.")] = ""
    ollama_url: Annotated[str, env("OLLAMA_URL", "Base URL of Ollama; selects the engine ollama when alone.")] = ""
    model: Annotated[
        str, env("NEUROGATE_MODEL", "A model's name, or for llamacpp also a path to a GGUF file or a hub reference.")
    ] = ""
    threads: Annotated[
        int, env("NEUROGATE_ENGINE_THREADS", "CPU threads of a managed engine; 0 takes every core it may use.", ge=0)
    ] = 0
    slots: Annotated[
        int,
        env(
            "NEUROGATE_ENGINE_SLOTS",
            "Requests the engine decodes at the same time. 0 takes 4 for a managed engine and what a llama-server"
            " tells, and is not known of others: then the gateway holds nothing back for them.",
            ge=0,
            le=256,
        ),
    ] = 0
    context_length: Annotated[
        int,
        env("NEUROGATE_ENGINE_CONTEXT", "Context of each slot of a managed engine, in tokens.", ge=64, le=16_777_216),
    ] = 4096
    gpu_layers: Annotated[
        int, env("NEUROGATE_ENGINE_GPU_LAYERS", "Layers a managed engine puts on the GPU; -1 lets it decide.", ge=-1)
    ] = -1
    port: Annotated[
        int, env("NEUROGATE_ENGINE_PORT", "Loopback port of a managed engine; 0 takes a free one.", ge=0, le=65535)
    ] = 0
    llama_server_bin: Annotated[
        str, env("NEUROGATE_LLAMA_SERVER_BIN", "A llama-server binary to manage instead of the bundled llama.cpp.")
    ] = ""
    pooling: Annotated[
        Literal["", "none", "mean", "cls", "last", "rank"],
        env(
            "NEUROGATE_ENGINE_POOLING",
            "How a managed engine makes one embedding of a text: empty is as the model says, else mean; rank makes it a"
            " reranker; none switches embeddings off.",
        ),
    ] = ""
    ubatch: Annotated[
        int,
        env(
            "NEUROGATE_ENGINE_UBATCH",
            "Tokens a managed engine computes at once, and so the longest text it can embed; more costs memory."
            " 0 is 512, or the whole context for a model of embeddings.",
            ge=0,
        ),
    ] = 0
    reproducible: Annotated[
        bool,
        env(
            "NEUROGATE_ENGINE_REPRODUCIBLE",
            "Whether the bundled llama.cpp computes a token on a CPU alike alone and with others, so that the answer at"
            " temperature 0 is the same with whatever in its cache, and goes on the same on another worker. Prompts of"
            " over 500 tokens are read up to a third slower. Without effect on a GPU and on a binary of one's own.",
        ),
    ] = True
    chat_template: Annotated[
        str,
        env(
            "NEUROGATE_ENGINE_CHAT_TEMPLATE",
            "Path of a Jinja chat template for a managed engine, in place of the one in the model's file.",
        ),
    ] = ""
    mmproj: Annotated[
        str,
        env("NEUROGATE_ENGINE_MMPROJ", "Path of the model's multimodal projector, a GGUF file; it takes images then."),
    ] = ""
    apis: Annotated[
        tuple[str, ...],
        env("NEUROGATE_ENGINE_APIS", "Paths that an engine of the kind openai has besides chat and completions."),
    ] = ("/v1/embeddings", "/v1/responses")
    api_key: Annotated[str, env("NEUROGATE_ENGINE_API_KEY", "Bearer key an external engine asks for.")] = ""
    load_timeout_s: Annotated[
        float,
        env(
            "NEUROGATE_ENGINE_LOAD_TIMEOUT_S",
            "Seconds a managed engine may take to load its model before it is started again.",
            gt=0,
        ),
    ] = 600.0
    hang_s: Annotated[
        float,
        env(
            "NEUROGATE_ENGINE_HANG_S",
            "Seconds a managed engine may leave health checks unanswered before it is killed and started again.",
            gt=0,
        ),
    ] = 5.0
    connect_timeout_s: Annotated[
        float, env("NEUROGATE_ENGINE_CONNECT_TIMEOUT_S", "Seconds to connect to the engine.", gt=0)
    ] = 5.0

    @property
    def managed_slots(self) -> int:
        """Slots of a managed engine."""
        return self.slots or MANAGED_SLOTS

    @property
    def kind(self) -> EngineKind:
        """The engine that these settings select.

        Raises ConfigError when an external engine has no URL, and for APIs that do not exist.
        """
        kind: EngineKind = self.engine or ("ollama" if self.ollama_url else "llamacpp")
        unknown = [path for path in self.apis if path not in OPERATIONS or OPERATIONS[path].universal]
        if unknown:
            known = ", ".join(path for path, operation in OPERATIONS.items() if not operation.universal)
            raise ConfigError(f"NEUROGATE_ENGINE_APIS: {unknown[0]!r} is not one of {known}")
        if kind in {"llama-server", "openai"} and not self.url:
            raise ConfigError(f"NEUROGATE_ENGINE_URL: must be set for NEUROGATE_ENGINE={kind}")
        return kind
