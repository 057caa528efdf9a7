"""The tokenizer of the simulated engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.engines.sim import tokenizer


@given(st.text())
def test_ids_turn_back_into_their_text(text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_every_way_to_count_agrees(text: str) -> None:
    assert tokenizer.count(text) == len(tokenizer.encode(text)) == len(tokenizer.pieces(text))
    assert "".join(tokenizer.pieces(text)) == text


@given(st.text())
def test_ids_survive_every_json_reader(text: str) -> None:
    assert all(0 < token_id < 2**53 for token_id in tokenizer.encode(text))


def test_words_are_cut_into_pieces_of_five_letters() -> None:
    assert tokenizer.pieces("Hello remarkable 12345!") == ["Hello", " remar", "kable", " ", "123", "45", "!"]


def test_the_marker_is_one_token() -> None:
    assert tokenizer.pieces("x[sim] y") == ["x", "[sim]", " y"]


@pytest.mark.parametrize("token_id", [0, -1, 5, 2**60, 0x0261])
def test_a_number_that_is_no_id_is_refused(token_id: int) -> None:
    with pytest.raises(ValueError, match="no token id"):
        tokenizer.decode([token_id])


def test_half_a_character_becomes_a_replacement_character() -> None:
    assert tokenizer.decode([0x01C3]) == "\ufffd"
