"""What the simulated engine says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.engines.sim import chat_template, tokenizer
from neurogate.engines.sim.text import Answer, Place, answer_to, place_after, rest_of


def said(answer: Answer, start: int, stop: int) -> str:
    return b"".join(answer.token(index) for index in range(start, stop)).decode()


@given(st.text(), st.integers(0, 300))
def test_an_answer_is_a_pure_function_of_its_prompt(prompt: str, count: int) -> None:
    assert said(Answer(prompt), 0, count) == said(Answer(prompt), 0, count)


@given(st.text(), st.integers(0, 300))
def test_tokens_may_be_asked_for_in_any_order(prompt: str, count: int) -> None:
    forward = [Answer(prompt).token(index) for index in range(count)]
    answer = Answer(prompt)
    backward = [answer.token(index) for index in reversed(range(count))]
    assert forward == backward[::-1]


@given(st.text(), st.integers(0, 100))
def test_an_answer_continues_after_any_of_its_tokens(prompt: str, held: int) -> None:
    """A prompt that ends in the first tokens of its answer gives the rest of the same answer."""
    whole, (first, _) = answer_to(prompt)
    resumed, (position, byte) = answer_to(prompt + said(whole, first, first + held))
    assert byte == 0
    assert said(resumed, position, position + 50) == said(whole, first + held, first + held + 50)
    assert resumed.natural_tokens - position == whole.natural_tokens - first - held


def test_a_chat_continues_behind_its_template() -> None:
    prompt = chat_template.render([("user", "Tell me about foxes")])
    whole, _ = answer_to(prompt)
    resumed, place = answer_to(prompt + said(whole, 0, 7))
    assert place == (7, 0)
    assert said(resumed, 7, 30) == said(whole, 7, 30)


def test_words_that_are_not_the_answer_are_a_new_prompt() -> None:
    prompt = "Say on: [sim] something else"
    answer, place = answer_to(prompt)
    assert place == (0, 0)
    assert said(answer, 0, 20) == said(Answer(prompt), 0, 20)


@given(st.text(), st.integers(5, 200))
def test_an_answer_continues_inside_a_token(prompt: str, characters: int) -> None:
    """A stop text can end an answer inside a token; the rest of the token comes first."""
    whole = said(Answer(prompt), 0, 100)
    answer, place = answer_to(prompt + whole[:characters])
    rest = rest_of(answer.token, place)
    assert b"".join(rest(index) for index in range(100)).decode().startswith(whole[characters:])


def test_an_answer_continues_only_what_is_its_beginning() -> None:
    tokens = [b"one", b" two"]
    places = [place_after(text, tokens.__getitem__, 2) for text in ("", "one", "one t", "one two", "one two ", "on e")]
    assert places == [Place(), Place(1), Place(1, 2), Place(2), None, None]


@given(st.text())
def test_the_natural_length_ends_a_sentence(prompt: str) -> None:
    answer = Answer(prompt)
    assert 24 <= answer.natural_tokens <= 96
    assert said(answer, 0, answer.natural_tokens).endswith(".")


@given(st.text(), st.integers(0, 200))
def test_the_tokenizer_counts_what_was_said(prompt: str, count: int) -> None:
    assert tokenizer.count(said(Answer(prompt), 0, count)) == count


@given(st.text())
def test_an_answer_is_labelled_english_that_json_does_not_escape(prompt: str) -> None:
    text = said(Answer(prompt), 0, 90)
    assert text.startswith("[sim] ")
    assert text.isascii()
    assert json.dumps(text) == f'"{text}"'


def test_different_prompts_have_different_answers() -> None:
    answers = {said(Answer(f"question {number}"), 0, 20) for number in range(200)}
    assert len(answers) == 200


@pytest.mark.parametrize("seed", ["0", "1"])
def test_another_process_says_the_same(seed: str) -> None:
    """Hash randomisation changes nothing."""
    program = (
        "from neurogate.engines.sim.text import Answer; a = Answer('hello');"
        "print(b''.join(a.token(i) for i in range(a.natural_tokens)).decode())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
    )
    answer = Answer("hello")
    assert ran.stdout.strip() == said(answer, 0, answer.natural_tokens)
