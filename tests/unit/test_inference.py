"""The records of a generation."""

from __future__ import annotations

from neurogate.inference import Prompt, Usage


def test_total_tokens_are_prompt_and_completion():
    assert Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2).total_tokens == 7


def test_a_prompt_leaves_to_the_engine_what_it_does_not_say():
    prompt = Prompt("hello")

    assert (prompt.model, prompt.system, prompt.max_tokens, prompt.temperature) == ("", "", None, None)
