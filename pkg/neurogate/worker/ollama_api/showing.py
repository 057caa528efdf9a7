"""`/api/show` for an engine that is not Ollama: what its observation tells of a model, and nothing else."""

from __future__ import annotations

from typing import Any

from neurogate.engines.engine import ModelInfo, Observation
from neurogate.model_names import parameter_size

_FEATURES = {"tools": "tools", "images": "vision"}
"""What Ollama calls a feature."""


def shown(model: ModelInfo, seen: Observation, kind: str) -> dict[str, Any]:
    """The answer; what is not known is left out."""
    info: dict[str, Any] = {}
    if model.family:
        info["general.architecture"] = model.family
    if model.parameters:
        info["general.parameter_count"] = model.parameters
    if model.context_length:
        info[f"{model.family or 'general'}.context_length"] = model.context_length
    answer: dict[str, Any] = {
        "details": details(model),
        "model_info": info,
        "capabilities": _capabilities(seen, kind),
    }
    if model.template:
        answer["template"] = model.template
    return answer


def details(model: ModelInfo) -> dict[str, Any]:
    """What Ollama's lists tell of a model, as far as it is known."""
    known: dict[str, Any] = {}
    if model.family:
        known |= {"family": model.family, "families": [model.family]}
    if model.parameters:
        known["parameter_size"] = parameter_size(model.parameters)
    if model.quantization:
        known["quantization_level"] = model.quantization
    return known


def _capabilities(seen: Observation, kind: str) -> list[str]:
    """Of an engine behind OpenAI's API nobody knows which features it would ignore."""
    found = ["completion"]
    if "/v1/embeddings" in seen.apis:
        found.append("embedding")
    if kind != "openai":
        found += [name for feature, name in _FEATURES.items() if feature not in seen.unsupported]
    return found
