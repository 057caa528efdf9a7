"""`NAME` and `NAME:latest` are one model."""

from __future__ import annotations

import pytest

from neurogate.model_names import known_as


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
