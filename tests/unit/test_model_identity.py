"""Whether two workers have the same model, as far as they tell."""

from __future__ import annotations

import pytest

from neurogate.endpoint import ModelIdentity, ServedModel, WorkerReport

TOLD = WorkerReport(models=(ServedModel("llama", digest="abc", quantization="Q4_1"), ServedModel("qwen")))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ModelIdentity(), ModelIdentity(), True),
        (ModelIdentity("llama"), ModelIdentity("llama"), True),
        (ModelIdentity("llama"), ModelIdentity("qwen"), False),
        (ModelIdentity("llama"), ModelIdentity(), False),
        (ModelIdentity("llama", "abc"), ModelIdentity("llama", "abc"), True),
        (ModelIdentity("llama", "abc"), ModelIdentity("llama", "def"), False),
        (ModelIdentity("llama", "abc", "Q4_1"), ModelIdentity("llama", "def", "Q4_1"), False),
        (ModelIdentity("llama", "abc", "Q4_1"), ModelIdentity("llama", "abc", "Q4"), True),
        (ModelIdentity("llama", "", "Q4_1"), ModelIdentity("llama", "", "Q8_0"), False),
        (ModelIdentity("llama", "abc", "Q4_1"), ModelIdentity("llama", "", "Q8_0"), False),
        (ModelIdentity("llama", "abc", "Q4_1"), ModelIdentity("llama", "", "Q4_1"), True),
        (ModelIdentity("llama", "abc", "Q4_1"), ModelIdentity("llama"), True),
    ],
    ids=str,
)
def test_a_name_the_digest_and_else_the_quantization_decide_where_both_tell(
    one: ModelIdentity, other: ModelIdentity, same: bool
) -> None:
    assert one.may_be(other) is other.may_be(one) is same


@pytest.mark.parametrize(
    ("report", "asked_for", "identity"),
    [
        (TOLD, "", ModelIdentity("llama", "abc", "Q4_1")),
        (TOLD, "llama", ModelIdentity("llama", "abc", "Q4_1")),
        (TOLD, "qwen", ModelIdentity("qwen")),
        (TOLD, "phi", ModelIdentity("phi")),
        (WorkerReport(), "", ModelIdentity()),
    ],
    ids=["default", "named", "says little", "has it not", "tells nothing"],
)
def test_a_report_tells_which_model_answers(report: WorkerReport, asked_for: str, identity: ModelIdentity) -> None:
    assert report.identity_of(asked_for) == identity


def test_people_read_the_name_and_the_quantization() -> None:
    assert [str(ModelIdentity()), str(ModelIdentity("llama", "abc")), str(ModelIdentity("llama", "", "Q4_1"))] == [
        "the model",
        "llama",
        "llama (Q4_1)",
    ]
