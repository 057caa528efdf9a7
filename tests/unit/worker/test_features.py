"""What a request asks for that its engine would ignore."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from neurogate.engines.engine import FEATURES
from neurogate.worker.features import ignored_feature


def asks(unsupported: frozenset[str] = FEATURES, **fields: Any) -> str:
    return ignored_feature(msgspec.json.encode(fields), unsupported)


def message(*parts: Any) -> list[Any]:
    return [{"role": "system", "content": "x"}, {"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"n": 2}, "n"),
        ({"n_cmpl": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 0}, "logprobs"),
        ({"n_probs": 3}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"tools": [{}]}, "tools"),
        ({"functions": [{}]}, "tools"),
        ({"grammar": "root ::= x"}, "grammar"),
        ({"json_schema": {"type": "object"}}, "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"text": {"format": {"type": "json_schema"}}}, "json_schema"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "json_schema"),
        ({"output_format": {"type": "json_schema"}}, "json_schema"),
        ({"messages": message({"type": "text"}, {"type": "image_url"})}, "images"),
        ({"messages": message({"type": "image"})}, "images"),
        ({"input": message({"type": "input_image"})}, "images"),
        ({"messages": message({"type": "input_audio"})}, "audio"),
    ],
)
def test_each_feature_is_found(fields: dict[str, Any], feature: str) -> None:
    assert asks(**fields) == feature
    assert asks(FEATURES - {feature}, **fields) == ""


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "n": 1,
            "best_of": 1,
            "logprobs": False,
            "n_probs": 0,
            "echo": False,
            "suffix": "",
            "tools": [],
            "grammar": "",
        },
        {"n": None, "logprobs": None, "response_format": None, "text": {}, "tools": None, "messages": None},
        {"response_format": {"type": "text"}, "text": {"format": {"type": "text"}}},
        {"messages": message({"type": "text", "text": "an image and audio"}, "image", {"type": 5})},
        {"messages": "image", "input": "image"},
        {"messages": ["image"]},
        {"n": "many", "best_of": [2]},
        {"response_format": "json_schema"},
    ],
)
def test_what_asks_for_nothing_special(fields: dict[str, Any]) -> None:
    assert asks(**fields) == ""


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages":[{"content":"\xff image"}]}'])
def test_what_cannot_be_read_is_for_the_engine_to_refuse(body: bytes) -> None:
    assert ignored_feature(body, FEATURES) == ""
