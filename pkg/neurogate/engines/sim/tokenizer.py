"""How the simulated engine counts tokens.

The one idea: a token is up to five letters with the space before them, up to three digits, or any other single
character, and its id is its own UTF-8 bytes read as a number. So there is no vocabulary, every text has exactly one
tokenization on every machine, and ids turn back into the text they came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MARKER = "[sim]"
"""Begins every answer. One token."""

_PIECE = re.compile(re.escape(MARKER) + r"| ?[A-Za-z]{1,5}|[0-9]{1,3}|.", re.DOTALL)

# In front of a piece's bytes, so that an id keeps a leading NUL. Six bytes and this stay below 2**53, the largest
# whole number that every JSON reader keeps.
_LEAD = b"\x01"


def pieces(text: str) -> list[str]:
    """The tokens of a text, which joined are the text."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(_PIECE.findall(text))


def encode(text: str) -> list[int]:
    """The ids of a text's tokens."""
    return [int.from_bytes(_LEAD + piece.encode(), "big") for piece in pieces(text)]


def decode(ids: Iterable[int]) -> str:
    """The text of token ids; bytes that are no UTF-8 become replacement characters.

    Raises ValueError for a number that is no id.
    """
    return b"".join(map(_piece_of, ids)).decode("utf-8", errors="replace")


def _piece_of(token_id: int) -> bytes:
    if token_id > 0:
        piece = token_id.to_bytes((token_id.bit_length() + 7) // 8, "big")
        if piece[:1] == _LEAD and 2 <= len(piece) <= 7:
            return piece[1:]
    raise ValueError(f"{token_id} is no token id")
