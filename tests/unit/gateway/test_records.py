"""What is written down of a request that is over."""

from __future__ import annotations

import pytest

from neurogate.gateway.records import outcome


@pytest.mark.parametrize(
    ("status", "broken", "said"),
    [
        (200, False, "answered"),
        (302, False, "answered"),
        (200, True, "broken"),
        (502, True, "broken"),
        (404, False, "refused"),
        (499, False, "client_gone"),
        (499, True, "client_gone"),
        (500, False, "failed"),
    ],
)
def test_how_a_request_ended(status: int, broken: bool, said: str) -> None:
    assert outcome(status, broken=broken) == said
