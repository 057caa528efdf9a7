"""The body of `/prompt`, as gateway and worker read it."""

from __future__ import annotations

import msgspec
import pytest

from neurogate.prompt_api import MAX_TOKENS, PromptRequest

_decode = msgspec.json.Decoder(PromptRequest).decode


@pytest.mark.parametrize(("told", "stream"), [("null", False), ("false", False), ("true", True)])
def test_whether_to_stream_may_be_null(told: str, stream: bool) -> None:
    assert _decode(f'{{"query":"Why?","stream":{told}}}').stream is stream


def test_every_other_field_may_be_null_or_absent() -> None:
    fields = ["model", "max_tokens", "temperature", "system_prompt", "stream"]
    nulls = _decode(msgspec.json.encode({"query": "Why?", **dict.fromkeys(fields)}))
    assert nulls == _decode(b'{"query":"Why?"}')
    assert not nulls.stream


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"query":"Why?","stream":"yes"}', "Expected `bool | null`, got `str` - at `$.stream`"),
        ('{"query":"Why?","max_tokens":1000001}', f"Expected `int` <= {MAX_TOKENS} - at `$.max_tokens`"),
    ],
)
def test_a_wrong_field_is_named(body: str, told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as wrong:
        _decode(body)
    assert str(wrong.value) == told
