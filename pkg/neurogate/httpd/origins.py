"""Origins of pages (https://fetch.spec.whatwg.org/#origin-header), as people write them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

ANY = "*"

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+")


def wrong(origins: Collection[str]) -> Iterator[str]:
    """What is wrong with a list of origins: those that no browser would ever send."""
    for origin in origins:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            yield f"{origin!r} is no origin: it must be {ANY} or scheme://host[:port], for example https://example.com"
