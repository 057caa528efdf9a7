"""What the simulated engine says.

The one idea: an answer is a pure function of its prompt. Token i is looked up with byte i of a keyed BLAKE2b stream,
so it is the same in every process, costs next to nothing, and can be computed from any i. That is what makes an
interrupted answer resumable anywhere: a prompt that ends in the beginning of its own answer is continued there.

Words have at most five letters and every token is ASCII that JSON does not escape, so the tokenizer counts an answer
exactly as it was said, and a renderer may splice a token into JSON as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from neurogate.engines.sim.tokenizer import MARKER

_DETERMINERS = "the a one each this that every her his my our your their no some any"
_ADJECTIVES = "quiet small brave green round heavy light warm cold new quick slow tall plain sharp calm"
_NOUNS = "river fox table storm clock baker horse tower cloud robin stone wheel ship tree king lamp"
_VERBS = "sees finds holds moves takes keeps meets likes hears lifts turns wants needs helps calls makes"


def _spaced(words: str) -> tuple[bytes, ...]:
    return tuple(f" {word}".encode() for word in words.split())


# One table of 16 tokens for each place in a sentence.
_SENTENCE = (
    _spaced(_DETERMINERS.title()),
    _spaced(_ADJECTIVES),
    _spaced(_NOUNS),
    _spaced(_VERBS),
    _spaced(_DETERMINERS),
    _spaced(_ADJECTIVES),
    _spaced(_NOUNS),
    (b".",) * 16,
)
_BLOCK_TOKENS = blake2b.MAX_DIGEST_SIZE
_BLOCK = _SENTENCE * (_BLOCK_TOKENS // len(_SENTENCE))

_SENTENCES_MIN = 3
_SENTENCES_SPREAD = 9


class Answer:
    """The answer to one prompt, token by token.

    It has no end of its own: `natural_tokens` says where an undisturbed answer stops (25 to 89 tokens, at a full
    stop), and `token` gives any index beyond it as well.
    """

    __slots__ = ("_block", "_block_number", "_seed", "natural_tokens")

    def __init__(self, prompt: str) -> None:
        self._seed = blake2b(prompt.encode(), digest_size=16, person=b"neurogate-sim").digest()
        self.natural_tokens = 1 + len(_SENTENCE) * (_SENTENCES_MIN + self._seed[0] % _SENTENCES_SPREAD)
        self._block_number = -1
        self._block: list[bytes] = []

    def token(self, index: int) -> bytes:
        """Token `index`, counted from 0, which is the marker."""
        if index == 0:
            return MARKER.encode()
        number, offset = divmod(index - 1, _BLOCK_TOKENS)
        if number != self._block_number:
            stream = blake2b(number.to_bytes(8, "big"), key=self._seed).digest()
            self._block = [words[byte & 15] for words, byte in zip(_BLOCK, stream, strict=True)]
            self._block_number = number
        return self._block[offset]


class Place(NamedTuple):
    """Where an answer stopped."""

    token: int = 0
    """The first that was not said, or not all of it."""
    byte: int = 0
    """So many bytes of it were: a stop text can end an answer inside a token."""


def place_after(said: str, token: Callable[[int], bytes], length: int) -> Place | None:
    """Where an answer of so many tokens goes on that began with `said`; None when it did not begin so."""
    begun = said.encode()
    index = position = 0
    while position < len(begun):
        next_token = token(index) if index < length else b""
        if next_token and begun.startswith(next_token, position):
            position += len(next_token)
            index += 1
        elif next_token.startswith(begun[position:]):
            return Place(index, len(begun) - position)
        else:
            return None
    return Place(index)


def rest_of(token: Callable[[int], bytes], place: Place) -> Callable[[int], bytes]:
    """The tokens of an answer from a place on."""
    if place == (0, 0):
        return token
    first, byte = place
    return lambda index: token(first + index) if index else token(first)[byte:]


def answer_to(prompt: str, variant: int = 0) -> tuple[Answer, Place]:
    """The answer to a prompt, and how much of it the prompt's end already holds.

    Variants beyond the first are answers of their own, and continue nothing.
    """
    if variant:
        return Answer(f"{prompt}\0{variant}"), Place()
    start = prompt.rfind(MARKER)
    if start >= 0:
        answer = Answer(prompt[:start])
        place = place_after(prompt[start:], answer.token, len(prompt))
        if place is not None:
            return answer, place
    return Answer(prompt), Place()
