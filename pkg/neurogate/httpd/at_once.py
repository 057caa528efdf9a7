"""What ASGI's `receive` and `send` give to await where there is nothing to wait for.

Whoever knows these, as the hot path does, looks at what it was given and needs no coroutine; everybody else awaits it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from starlette.types import Message


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
