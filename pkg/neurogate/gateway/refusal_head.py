"""The head of a refusal: the same beside every body, whichever part of the gateway refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable

from neurogate.edge.limits import Header
from neurogate.errors import GatewayError, RateLimitedError
from neurogate.gateway.dialects.dialect import JSON


def refusal_head(error: GatewayError, body: bytes, request_id: str, extra: Iterable[Header] = ()) -> list[Header]:
    """The headers of an error's answer; `extra` are more of them, such as a reservation's."""
    head = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
    if request_id:
        head.append((b"x-request-id", request_id.encode()))
    head += error_headers(error)
    head.extend(extra)
    return head


def error_headers(error: GatewayError) -> list[Header]:
    """What an error says in headers of its own: when to try again, and which bound was reached."""
    told = [] if error.retry_after_s is None else [retry_after(error.retry_after_s)]
    return [*told, *error.headers] if isinstance(error, RateLimitedError) else told


def retry_after(seconds: float) -> Header:
    """The Retry-After header, in whole seconds: never earlier than said."""
    return b"retry-after", b"%d" % max(1, math.ceil(seconds))
