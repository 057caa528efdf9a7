"""How a connection to an engine ends before its time."""

from __future__ import annotations


class ConnectionLostError(ConnectionError):
    """The engine closed the connection, or spoke no HTTP, before its answer was whole."""


def afresh(error: OSError) -> OSError:
    """The same error to raise. One that is kept would hold the frames it passed, and the request's body, in a ring."""
    return type(error)(*error.args)


def reason_of(error: BaseException) -> str:
    """What went wrong, for a person: never empty."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
