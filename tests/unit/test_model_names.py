"""`NAME` and `NAME:latest` are one model, and sizes are written as Ollama does."""

from __future__ import annotations

import pytest

from neurogate.model_names import known_as, parameter_size


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("tiny", {"tiny"}, "tiny"),
        ("tiny:latest", {"tiny"}, "tiny"),
        ("tiny", {"tiny:latest"}, "tiny:latest"),
        ("tiny:latest", {"tiny:latest", "tiny"}, "tiny:latest"),
        ("tiny", {"tiny:latest", "tiny"}, "tiny"),
        ("tiny:7b", {"tiny", "tiny:latest"}, "tiny:7b"),
        ("other:latest", {"tiny"}, "other"),
        ("other", set(), "other"),
        ("", {"tiny"}, ""),
    ],
)
def test_a_model_is_found_with_and_without_latest(name: str, known: set[str], found: str) -> None:
    assert known_as(name, known) == found


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, ""), (999, "999"), (22_000, "22K"), (134_515_008, "134.52M"), (7_000_000, "7M"), (3_212_749_888, "3.2B")],
)
def test_numbers_of_parameters_are_written_as_ollama_does(count: int, told: str) -> None:
    assert parameter_size(count) == told
