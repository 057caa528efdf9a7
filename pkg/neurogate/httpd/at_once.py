"""What needs neither a task nor a coroutine.

`Done` and `Ready` are what ASGI's `receive` and `send` give to await where there is nothing to wait for. Whoever knows
them, as the hot path does, looks at what it was given and needs no coroutine; everybody else awaits it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from starlette.types import Message, Scope


class Done:
    """It is done."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        """Nothing comes of it."""
        return
        yield


DONE = Done()


class Ready:
    """A message that is there already."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message = message

    def __await__(self) -> Generator[Any, Any, Message]:
        """The message."""
        return self.message
        yield


class AtOnce(Protocol):
    """An app that can do without a task."""

    def at_once(self, scope: Scope) -> bool:
        """Whether this request, whose body is there as a whole, may be run without one (`stepped.py`)."""
        ...


def never(_: Scope) -> bool:
    """Of any other app."""
    return False
