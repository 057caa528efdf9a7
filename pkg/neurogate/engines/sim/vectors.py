"""Embeddings and relevance, as far as the simulated engine can tell: from a hash, and from shared words.

The same text gives the same vector everywhere, and nothing else is meant by it.
"""

from __future__ import annotations

import math
import re
from hashlib import blake2b

DIMENSIONS = 64
DIMENSIONS_MAX = 8192

_WORD = re.compile(r"\w+")


def embedding(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A vector of length 1 that stands for a text."""
    key = blake2b(text.encode(), digest_size=64).digest()
    size = blake2b.MAX_DIGEST_SIZE
    blocks = [
        key,
        *(blake2b(bytes(str(number), "ascii"), key=key).digest() for number in range(1, -(-dimensions // size))),
    ]
    values = [byte - 127.5 for byte in b"".join(blocks)[:dimensions]]
    length = math.hypot(*values)
    return [value / length for value in values]


def relevance(query: str, document: str) -> float:
    """The share of the query's words that the document has, from 0 to 1; shorter documents come first among equals."""
    wanted = set(_WORD.findall(query.lower()))
    words = set(_WORD.findall(document.lower()))
    if not wanted:
        return 0.0
    return (len(wanted & words) + 1 / (1 + len(words))) / (len(wanted) + 1)
