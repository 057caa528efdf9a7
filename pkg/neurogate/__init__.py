"""NeuroGate serves LLMs from a fleet of ordinary machines."""

__version__ = "0.1.0"
