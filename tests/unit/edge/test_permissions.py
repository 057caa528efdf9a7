"""What a key is good for."""

from __future__ import annotations

import pytest

from neurogate.edge.caller import ANYBODY, Caller
from neurogate.edge.permissions import may_call, may_use, sees
from neurogate.errors import ForbiddenError

BOUND = Caller("alice", models=frozenset({"tiny", "llama3*"}), routes=frozenset({"/prompt", "/v1/*"}))


@pytest.mark.parametrize("path", ["/prompt", "/v1/", "/v1/chat/completions"])
def test_a_route_is_allowed_by_its_name_or_by_its_beginning(path: str) -> None:
    may_call(BOUND, path)


@pytest.mark.parametrize("path", ["/prompts", "/prompt/", "/v1", "/v2/models", "/", "", "/api/chat"])
def test_any_other_route_is_forbidden(path: str) -> None:
    with pytest.raises(ForbiddenError, match="the key alice may not call") as refused:
        may_call(BOUND, path)
    assert refused.value.status == 403


@pytest.mark.parametrize("model", ["tiny", "llama3", "llama3.2:1b"])
def test_a_model_is_allowed_by_its_name_or_by_its_beginning(model: str) -> None:
    may_use(BOUND, model)
    assert sees(BOUND, model)


@pytest.mark.parametrize("model", ["tiny2", "Tiny", "llama", "llama2"])
def test_any_other_model_is_forbidden(model: str) -> None:
    with pytest.raises(ForbiddenError, match=r"may not use the model '\w+'; it may use llama3\*, tiny"):
        may_use(BOUND, model)
    assert not sees(BOUND, model)


def test_a_bound_key_cannot_leave_the_choice_of_model_to_somebody_else() -> None:
    with pytest.raises(ForbiddenError, match="the key alice must name a model"):
        may_use(BOUND, "")


def test_who_is_not_bound_may_do_all() -> None:
    may_call(ANYBODY, "/anything")
    may_use(ANYBODY, "")
    may_use(ANYBODY, "anything")
    may_call(Caller("x", routes=frozenset({"*"})), "/anything")
    may_use(Caller("x", models=frozenset({"*"})), "")


def test_a_long_name_does_not_make_a_long_message() -> None:
    with pytest.raises(ForbiddenError) as refused:
        may_use(BOUND, "m" * 10_000)
    assert len(str(refused.value)) < 250
