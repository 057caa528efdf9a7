"""Importing a package without what it would import if it could."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(name: str) -> Iterator[None]:
    """Let imports in this block find no package of that name, unless it is imported already.

    For packages that import an optional one merely because it is installed: the time and memory of it would be every
    process's. The package itself can be imported afterwards.
    """
    if name in sys.modules:
        yield
        return
    # None is how the import system is told that there is no such module.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
