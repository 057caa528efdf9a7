"""What the worker itself reads of a request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from neurogate.operations import OPERATIONS
from neurogate.worker.asked import end_marks, wants_stream


@pytest.mark.parametrize(
    ("path", "fields", "wanted"),
    [
        ("/v1/messages", {"stream": True}, True),
        ("/v1/messages", {}, False),
        ("/v1/embeddings", {"stream": True}, False),
        ("/api/chat", {}, True),
        ("/api/chat", {"stream": None}, True),
        ("/api/chat", {"stream": False}, False),
    ],
)
def test_whether_a_stream_is_wanted(path: str, fields: dict[str, Any], wanted: bool) -> None:
    assert wants_stream(OPERATIONS[path], msgspec.json.encode(fields)) == wanted


@pytest.mark.parametrize(
    ("path", "fields", "marks"),
    [
        ("/v1/completions", {"prompt": ["a", "b"], "n": 3}, 1),
        ("/completion", {"prompt": "a"}, 1),
        ("/completion", {"prompt": []}, 1),
        ("/completion", {"prompt": [1, "b", 2]}, 1),
        ("/completion", {"prompt": ["a", "b"]}, 2),
        ("/completion", {"prompt": [[1, 2], [3], "c"]}, 3),
        ("/completion", {"prompt": {"prompt_string": "a"}}, 1),
        ("/completion", {"prompt": "a", "n": 2}, 2),
        ("/completion", {"prompt": ["a", "b"], "n_cmpl": 2, "n": 5}, 4),
        ("/completion", {"prompt": "a", "response_fields": ["content"]}, 0),
        ("/completion", {"prompt": "a", "response_fields": ["content", "stop"]}, 1),
        ("/infill", {"n": "many"}, 1),
    ],
)
def test_how_many_ends_a_stream_has(path: str, fields: dict[str, Any], marks: int) -> None:
    assert end_marks(OPERATIONS[path], msgspec.json.encode(fields)) == marks
