"""Pickers by name."""

from __future__ import annotations

import random

import pytest

from neurogate.balancing.least_requests import LeastRequests
from neurogate.balancing.picker import build
from neurogate.balancing.round_robin import RoundRobin
from neurogate.errors import ConfigError


@pytest.mark.parametrize(("name", "kind"), [("round_robin", RoundRobin), ("least_requests", LeastRequests)])
def test_every_name_has_its_picker(name: str, kind: type):
    assert type(build(name, rng=random.Random(1))) is kind


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match=r"NEUROGATE_BALANCER.*'fastest'.*round_robin, least_requests"):
        build("fastest", rng=random.Random(1))
