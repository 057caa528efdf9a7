"""Errors as gRPC tells them: the one table from what went wrong to a status."""

from __future__ import annotations

import math

import grpc

from neurogate.errors import BusyError, GatewayError, QueueFullError, QueueTimeoutError, RateLimitedError
from neurogate.rpc.backend import EngineKeyError

Metadata = tuple[tuple[str, str | bytes], ...]
StatusCode = grpc.StatusCode

_STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.ABORTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class SlowClientError(GatewayError):
    """The client read so slowly that its request was given up."""

    status = 429
    code = "slow_client"


def status_of(error: GatewayError) -> grpc.StatusCode:
    """Where HTTP has one status for several things, such as 503, gRPC has more."""
    match error:
        case BusyError() | QueueFullError() | QueueTimeoutError():
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case EngineKeyError():
            return grpc.StatusCode.FAILED_PRECONDITION
        case _:
            return _STATUS_CODES.get(error.status, grpc.StatusCode.INTERNAL)


def trailers_of(error: GatewayError, request_id: str) -> Metadata:
    """What goes with the status: the error's code, the request's id, and when to try again.

    `retry-after` is in whole seconds, as in HTTP; `grpc-retry-pushback-ms` is what gRPC's own retries look at.
    """
    trailers: list[tuple[str, str | bytes]] = [("x-neurogate-code", error.code), ("x-request-id", request_id)]
    if error.retry_after_s is not None:
        trailers.append(("retry-after", str(max(1, math.ceil(error.retry_after_s)))))
        trailers.append(("grpc-retry-pushback-ms", str(max(1, round(error.retry_after_s * 1000)))))
    if isinstance(error, RateLimitedError):
        trailers += [(name.decode("ascii"), value.decode("ascii")) for name, value in error.headers]
    return tuple(trailers)
