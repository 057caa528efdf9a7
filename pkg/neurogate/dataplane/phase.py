"""What an exchange is about, in one word, for whoever looks at what is in flight."""

from __future__ import annotations

import enum


class Phase(enum.StrEnum):
    """In the order of a request's life. Of a whole (unstreamed) answer nobody hears when its first token came."""

    INTAKE = "intake"
    """It comes in: its body arrives, its key's limits are asked. There is no exchange yet."""
    QUEUE = "queue"
    """It waits for its turn: there is no exchange yet."""
    PICK = "pick"
    """There is no worker for it now; one may come."""
    PREFILL = "prefill"
    """A worker was asked for a stream, and nothing of it came yet."""
    WHOLE = "whole"
    """A worker was asked for a whole answer."""
    DECODE = "decode"
    """The stream flows."""
    PROXIED = "proxied"
    """A call that passes through, of whose content nothing is known."""
    RESUME = "resume"
    """The stream broke, and nothing came yet of the worker that is to continue it."""
