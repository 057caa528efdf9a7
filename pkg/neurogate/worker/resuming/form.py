"""How an API writes what follows the bytes that a client already has."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from neurogate.engines.engine import EngineCall
from neurogate.inference import Finished


class Form(Protocol):
    """Writes the rest of one answer's stream, in whole events."""

    mark: bytes
    """The end mark, where it tells nothing else; empty where the account is part of it."""

    def opening(self) -> bytes:
        """What comes before the rest: nothing, unless the client has nothing at all."""
        ...

    def piece(self, text: str) -> bytes:
        """An event of text."""
        ...

    def closing(self, finished: Finished) -> bytes:
        """What the client lacks of the end: reason, account, end mark."""
        ...


class Continued(NamedTuple):
    """An answer that is to be continued."""

    asked: EngineCall
    """For whose answer the engine has words."""
    form: Form
    max_tokens: int | None = None
    """Of the whole answer, where the worker reads the request's limit."""
