"""The chat template of the simulated engine."""

from __future__ import annotations

from neurogate.engines.sim import chat_template


def test_a_conversation_ends_where_the_assistant_speaks() -> None:
    prompt = chat_template.render([("system", "Be brief."), ("user", "Hi")])
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_assistants_own_last_words_are_left_open() -> None:
    asked = chat_template.render([("user", "Hi")])
    assert chat_template.render([("user", "Hi"), ("assistant", "Hello")]) == asked + "Hello"


def test_no_messages_are_an_empty_turn() -> None:
    assert chat_template.render([]) == "<|im_start|>assistant\n"
