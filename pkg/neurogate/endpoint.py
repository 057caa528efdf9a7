"""Endpoints: who could serve, and what each of them last said of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One worker as a resolver names it."""

    id: str
    """Stable name, for example `worker-0`."""
    address: str
    """`host:port` of its gRPC listener."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a worker's engine has."""

    name: str
    loaded: bool = True
    context_length: int = 0
    """Tokens; 0 when unknown."""
    family: str = ""
    """Its architecture, for example `llama`; empty or 0 when unknown, like all that follows."""
    parameters: int = 0
    quantization: str = ""
    """For example `Q4_1`."""
    size_bytes: int = 0
    digest: str = ""
    """What identifies its data."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model it is, as far as a worker tells: elsewhere the same name may stand for other weights."""

    name: str = ""
    """Empty when not even that is told."""
    digest: str = ""
    quantization: str = ""

    def may_be(self, other: ModelIdentity) -> bool:
        """Whether they have one name, and nothing that both tell differs; where both have a digest, that decides."""
        if self.name != other.name:
            return False
        if self.digest and other.digest:
            return self.digest == other.digest
        return not (self.quantization and other.quantization) or self.quantization == other.quantization

    def __str__(self) -> str:
        name = self.name or "the model"
        return f"{name} ({self.quantization})" if self.quantization else name


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The truth a worker tells about itself at least once a second."""

    worker_id: str = ""
    version: str = ""
    ready: bool = False
    draining: bool = False
    detail: str = ""
    """Why it is not ready; empty when it is."""
    engine_kind: str = ""
    engine_version: str = ""
    engine_restarts: int = 0
    models: tuple[ServedModel, ...] = ()
    slots_total: int = 0
    """0 when it is not known how many the engine has: it is not bounded by them, then."""
    slots_busy: int = 0
    running: int = 0
    queued: int = 0
    tokens_outstanding: int = 0
    kv_used_ratio: float | None = None
    decode_tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    requests_total: int = 0
    prompt_tokens_total: int = 0
    completion_tokens_total: int = 0
    uptime_s: float = 0.0
    seq: int = 0
    apis: frozenset[str] = frozenset()
    """Paths of `operations` that it can do beyond the universal ones."""
    resumes: frozenset[str] = frozenset()
    """Paths whose answers it can continue where another worker stopped."""
    last_words: str = ""
    """What its engine said when it last died, until it is ready again: for people who run it, not for API clients."""
    loading: bool = False
    """It is not ready because its engine loads, or is about to be started again: it will be by itself."""

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens a second, now: none where nothing runs; `decode_tokens_per_s` is of when something did."""
        return self.decode_tokens_per_s if self.running else 0.0

    @property
    def default_model(self) -> str:
        """The model of requests that name none; empty when it does not tell."""
        return self.models[0].name if self.models else ""

    def identity_of(self, model: str) -> ModelIdentity:
        """Which model answers requests for this name; for the empty one, the default model."""
        name = model or self.default_model
        for served in self.models:
            if served.name == name:
                return ModelIdentity(name, served.digest, served.quantization)
        return ModelIdentity(name)
