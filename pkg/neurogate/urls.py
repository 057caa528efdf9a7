"""URLs as they may be shown: logs, status pages and errors never tell the user and password in them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def split(url: str) -> SplitResult:
    """The parts of a URL, its port among them. Raises ValueError, which never quotes the URL, for what is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("it is no URL") from None
    return parts


def userinfo(url: str) -> str:
    """The `user:password` in a URL; empty when there is none."""
    try:
        return split(url).netloc.rpartition("@")[0]
    except ValueError:
        return ""


def shown(url: str) -> str:
    """The URL without user and password; of what is no URL, only what follows its last @."""
    try:
        parts = split(url)
    except ValueError:
        return url.rpartition("@")[2]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
