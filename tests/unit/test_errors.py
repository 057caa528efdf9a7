"""Errors a client can see."""

from __future__ import annotations

import pytest

from neurogate import errors
from neurogate.errors import GatewayError, NeuroGateError


def gateway_errors() -> list[type[GatewayError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, GatewayError)]
    return [kind for kind in found if kind is not GatewayError]


def test_every_error_is_the_projects_own():
    assert gateway_errors()
    assert all(issubclass(kind, NeuroGateError) for kind in (*gateway_errors(), errors.ConfigError))


@pytest.mark.parametrize("kind", gateway_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_a_code_and_a_kind_of_its_side(kind: type[GatewayError]):
    assert 400 <= kind.status < 600
    assert kind.code.islower()
    assert kind.code.replace("_", "").isalpha()
    if kind.status < 500:
        assert kind.kind in {"invalid_request_error", "permission_error", "rate_limit_error", "insufficient_quota"}
    else:
        assert kind.kind != "invalid_request_error"


def test_codes_are_told_apart():
    codes = [kind.code for kind in gateway_errors()]

    assert len(set(codes)) == len(codes)


def test_an_error_carries_its_message_and_where_to_look():
    error = errors.BadRequestError("max_tokens: must be at least 1", param="max_tokens", retry_after_s=2.0)

    assert (str(error), error.message, error.param, error.retry_after_s) == (
        "max_tokens: must be at least 1",
        "max_tokens: must be at least 1",
        "max_tokens",
        2.0,
    )


def test_where_to_look_is_optional():
    error = errors.DeadlineError("late")

    assert (error.param, error.retry_after_s) == (None, None)
