"""What an OpenAI list of models tells of them."""

from __future__ import annotations

import msgspec
import pytest

from neurogate.engines.openai import models_of


@pytest.mark.parametrize(
    ("ftype", "quantization"),
    [
        (None, ""),
        ("", ""),
        ("all F32", "F32"),
        ("F16", "F16"),
        ("Q4_1", "Q4_1"),
        ("Q8_0 (guessed)", "Q8_0"),
        ("Q4_K - Medium", "Q4_K_M"),
        ("Q4_K - Small (guessed)", "Q4_K_S"),
        ("Q3_K - Large", "Q3_K_L"),
        ("Q2_K - Medium", "Q2_K"),
        ("Q2_K - Small", "Q2_K_S"),
        ("IQ2_XXS - 2.0625 bpw", "IQ2_XXS"),
        ("MXFP4 MoE", "MXFP4"),
    ],
)
def test_a_quantization_has_the_same_name_whichever_engine_tells_it(ftype: str | None, quantization: str) -> None:
    (model,) = models_of(msgspec.json.encode({"data": [{"id": "tiny", "meta": {"ftype": ftype}}]}))

    assert model.quantization == quantization
