"""What can go wrong between a model's name and its file."""

from __future__ import annotations

from neurogate.errors import NeuroGateError


class ModelError(NeuroGateError):
    """The model cannot be had. The message is written for a person and says what to do."""


class SourceError(ModelError):
    """One way to get the model failed; another way may work."""
