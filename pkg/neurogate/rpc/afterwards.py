"""A wait in a `finally`, for modules that are compiled and must have none (ADR 0030)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def afterwards(body: Awaitable[_T], then: Callable[[], Awaitable[None]]) -> _T:
    """Wait for the body, and then for what is to happen however it ended."""
    try:
        return await body
    finally:
        await then()
