"""Errors a client can see. Each class knows its HTTP status, code and whether another worker may do better.

Only the HTTP edge renders them; everything below raises or returns them. A message says what to change.
"""

from __future__ import annotations

EXIT_CONFIG = 78
"""How a process ends for a ConfigError, EX_CONFIG of sysexits.h: starting again without a change is of no use."""


class NeuroGateError(Exception):
    """Base of the project's own errors."""


class ConfigError(NeuroGateError):
    """A setting is wrong. The message names the key; the process exits with 78 (EX_CONFIG)."""


class GatewayError(NeuroGateError):
    """A request cannot be answered as asked."""

    status = 500
    code = "internal_error"
    kind = "server_error"
    """OpenAI's `error.type`."""
    retry_after_default_s: float | None = None
    """What Retry-After says when whoever raised it knew no better."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = self.retry_after_default_s if retry_after_s is None else retry_after_s


class BadRequestError(GatewayError):
    """The body is not what the endpoint takes."""

    status = 400
    code = "invalid_request"
    kind = "invalid_request_error"


class UnauthorizedError(GatewayError):
    """No key, or one that is not known."""

    status = 401
    code = "invalid_api_key"
    kind = "invalid_request_error"


class ForbiddenError(GatewayError):
    """The key is known, but not for this."""

    status = 403
    code = "not_allowed"
    kind = "permission_error"


class NotFoundError(GatewayError):
    """No such route."""

    status = 404
    code = "not_found"
    kind = "invalid_request_error"


class ModelNotFoundError(GatewayError):
    """No worker has the model."""

    status = 404
    code = "model_not_found"
    kind = "invalid_request_error"


class WorkerNotFoundError(GatewayError):
    """An admin named a worker that there is not."""

    status = 404
    code = "worker_not_found"
    kind = "invalid_request_error"


class WorkerExistsError(GatewayError):
    """An admin added a worker that there is."""

    status = 409
    code = "worker_exists"
    kind = "invalid_request_error"


class InvalidConfigError(GatewayError):
    """A new configuration is wrong; the one before is still in force."""

    status = 400
    code = "invalid_config"
    kind = "invalid_request_error"


class MethodNotAllowedError(GatewayError):
    """The route exists, with other methods."""

    status = 405
    code = "method_not_allowed"
    kind = "invalid_request_error"


class BodyTimeoutError(GatewayError):
    """The client did not send its body in time."""

    status = 408
    code = "body_timeout"
    kind = "invalid_request_error"


class TooLargeError(GatewayError):
    """The body is over the limit."""

    status = 413
    code = "request_too_large"
    kind = "invalid_request_error"


class RateLimitedError(GatewayError):
    """The key, or the client's address, has used what it may for now."""

    status = 429
    code = "rate_limit_exceeded"
    kind = "rate_limit_error"
    retry_after_default_s = 1.0

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        limit: str = "requests",
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit
        """Which bound it is, in metrics: requests, tokens, concurrent, budget or address."""
        self.headers = headers
        """`RateLimit-*`, names in lower case."""


class QuotaExhaustedError(RateLimitedError):
    """The key has used what it may in this month."""

    code = "insufficient_quota"
    kind = "insufficient_quota"


class LimiterUnavailableError(GatewayError):
    """What the key has used cannot be known now, and the operator chose to refuse rather than to guess."""

    status = 503
    code = "limiter_unavailable"
    kind = "unavailable_error"
    retry_after_default_s = 1.0


class UnsupportedError(GatewayError):
    """The engine has no such API."""

    status = 501
    code = "not_supported"
    kind = "not_supported_error"


class EngineFailedError(GatewayError):
    """The engine answered with a failure, on every worker that was tried."""

    status = 502
    code = "engine_failed"


class NoWorkerError(GatewayError):
    """No worker can take the request now."""

    status = 503
    code = "no_worker_available"
    kind = "unavailable_error"
    retry_after_default_s = 1.0


class BusyError(GatewayError):
    """Every worker that could serve the request refused it for load."""

    status = 503
    code = "workers_busy"
    kind = "unavailable_error"
    retry_after_default_s = 1.0


class QueueFullError(GatewayError):
    """As many requests wait for their turn as may."""

    status = 503
    code = "queue_full"
    kind = "unavailable_error"
    retry_after_default_s = 1.0


class QueueTimeoutError(GatewayError):
    """The request's turn did not come in time."""

    status = 503
    code = "queue_timeout"
    kind = "unavailable_error"
    retry_after_default_s = 1.0


class QueueTooLongError(QueueTimeoutError):
    """The request's turn would not come in time, so it did not have to wait for it."""

    code = "queue_too_long"


class DeadlineError(GatewayError):
    """The request's time ran out."""

    status = 504
    code = "deadline_exceeded"
    kind = "timeout_error"


class StreamBrokenError(GatewayError):
    """The answer broke off after its first bytes and could not be continued."""

    status = 502
    code = "stream_broken"
