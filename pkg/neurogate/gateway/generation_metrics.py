"""What is counted of generation requests, by model and by key: looked up once, and kept for those that follow."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from neurogate.inference import Usage
from neurogate.telemetry import catalog
from neurogate.telemetry.counting import Cell, Counts, Histograms, Sizes


class Generations:
    """The metrics themselves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.outcomes = Counts(catalog.GATEWAY_OUTCOMES, registry)
        self.ttft = Histograms(catalog.GATEWAY_TTFT, registry)
        self.tpot = Histograms(catalog.GATEWAY_TPOT, registry)
        self.e2e = Histograms(catalog.GATEWAY_E2E, registry)
        self.model_tokens = Counts(catalog.GATEWAY_MODEL_TOKENS, registry)
        self.key_requests = Counts(catalog.GATEWAY_KEY_REQUESTS, registry)
        self.key_tokens = Counts(catalog.GATEWAY_KEY_TOKENS, registry)

    def forget_model(self, name: str) -> None:
        """Its place is wanted by another one."""
        for each in (self.outcomes, self.model_tokens, self.ttft, self.tpot, self.e2e):
            each.forget(lambda labels: labels[0] == name)

    def forget_key(self, name: str) -> None:
        """The same of a key."""
        for each in (self.key_requests, self.key_tokens):
            each.forget(lambda labels: labels[0] == name)


class GenerationSeries:
    """The series of one model and one key; each exists once something is counted in it."""

    __slots__ = ("_e2e", "_key", "_metrics", "_model", "_outcomes", "_tokens", "_tpot", "_ttft")

    def __init__(self, metrics: Generations, model: str, key: str) -> None:
        """`model` and `key` are labels; the empty key is nobody's."""
        self._metrics = metrics
        self._model = model
        self._key = key
        self._outcomes: dict[str, tuple[Cell, ...]] = {}
        self._tokens: tuple[Cell, ...] = ()
        self._e2e: Sizes | None = None
        self._ttft: Sizes | None = None
        self._tpot: Sizes | None = None

    def outcome(self, outcome: str) -> tuple[Cell, ...]:
        """Where requests that ended so are counted."""
        found = self._outcomes.get(outcome)
        if found is None:
            metrics = self._metrics
            found = (metrics.outcomes.of(self._model, outcome),)
            if self._key:
                found += (metrics.key_requests.of(self._key, outcome),)
            self._outcomes[outcome] = found
        return found

    def use(self, usage: Usage) -> None:
        """Count the tokens of a request."""
        prompt, completion, cached, *of_key = self._tokens or self._begin_tokens()
        prompt.value += usage.prompt_tokens
        completion.value += usage.completion_tokens
        cached.value += usage.cached_tokens
        if of_key:
            of_key[0].value += usage.prompt_tokens
            of_key[1].value += usage.completion_tokens

    @property
    def e2e(self) -> Sizes:
        """Whole times."""
        if self._e2e is None:
            self._e2e = self._metrics.e2e.of(self._model)
        return self._e2e

    @property
    def ttft(self) -> Sizes:
        """Times to the first token."""
        if self._ttft is None:
            self._ttft = self._metrics.ttft.of(self._model)
        return self._ttft

    @property
    def tpot(self) -> Sizes:
        """Times between tokens."""
        if self._tpot is None:
            self._tpot = self._metrics.tpot.of(self._model)
        return self._tpot

    def _begin_tokens(self) -> tuple[Cell, ...]:
        of_model, of_key = self._metrics.model_tokens.of, self._metrics.key_tokens.of
        cells = tuple(of_model(self._model, kind) for kind in ("prompt", "completion", "cached"))
        if self._key:
            cells += (of_key(self._key, "prompt"), of_key(self._key, "completion"))
        self._tokens = cells
        return cells
