"""A value that tests wait for, so that none of them has to sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Watched(Generic[T]):
    """Holds a value and wakes whoever waits for it to become something."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._waiting: list[tuple[Callable[[T], bool], asyncio.Future[T]]] = []

    @property
    def value(self) -> T:
        """What it is now."""
        return self._value

    def set(self, value: T) -> None:
        """Change it."""
        self._value = value
        for wanted, future in tuple(self._waiting):
            if not future.done() and wanted(value):
                future.set_result(value)

    async def until(self, wanted: Callable[[T], bool]) -> T:
        """Wait for a value that is wanted; the present one may be. Values that come and go are not missed."""
        if wanted(self._value):
            return self._value
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        entry = (wanted, future)
        self._waiting.append(entry)
        try:
            return await future
        finally:
            self._waiting.remove(entry)

    def __repr__(self) -> str:
        return f"<Watched {self._value!r}>"
