"""What everything an engine does wrong becomes: an End for the link, a GatewayError for callers without one.

An engine that does not take the key is the worker's fault and not the client's: its 401 never leaves the worker as one.
"""

from __future__ import annotations

from neurogate.channel import End, EndCode
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineError,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
)
from neurogate.errors import (
    BadRequestError,
    BusyError,
    DeadlineError,
    EngineFailedError,
    GatewayError,
    ModelNotFoundError,
    NoWorkerError,
    StreamBrokenError,
    UnsupportedError,
)
from neurogate.rpc.backend import EngineKeyError

KEY_REFUSED = frozenset({401, 403, 407})
"""What an engine, or a proxy before it, answers when the worker's key is not the right one."""


def key_refused(told: str) -> str:
    """What to tell of such an answer."""
    return f"{told}: the engine does not take the worker's NEUROGATE_ENGINE_API_KEY"


def end_for(error: EngineError) -> End:
    """How a call ends that the engine failed so."""
    told = str(error)
    match error:
        case EngineUnavailableError():
            return End(EndCode.UNAVAILABLE, message=told)
        case EngineRefusedError() if error.status in KEY_REFUSED:
            return End(EndCode.UNAVAILABLE, message=key_refused(told))
        case EngineRefusedError():
            return End(http_status=error.status, retry_after_s=error.retry_after_s, message=told)
        case EngineUnsupportedError():
            return End(EndCode.UNSUPPORTED, message=told)
        case _:
            return End(EndCode.BROKEN, message=told)


def error_for(error: EngineError, *, started: bool) -> GatewayError:
    """What a caller without a link is told; `started` when tokens came before."""
    told = str(error)
    match error:
        case EngineRefusedError():
            return _error_for_status(error)
        case EngineUnavailableError():
            return NoWorkerError(told)
        case EngineUnsupportedError():
            return UnsupportedError(told)
        case EngineBrokenError() if started:
            return StreamBrokenError(told)
        case _:
            return EngineFailedError(told)


def _error_for_status(error: EngineRefusedError) -> GatewayError:
    told, status = str(error), error.status
    if status in KEY_REFUSED:
        return EngineKeyError(key_refused(told))
    if status == 404:
        return ModelNotFoundError(told)
    if status in {408, 504}:
        return DeadlineError(told)
    if status == 429 or (status == 503 and error.retry_after_s is not None):
        return BusyError(told, retry_after_s=error.retry_after_s)
    if status < 500:
        return BadRequestError(told)
    return NoWorkerError(told) if status == 503 else EngineFailedError(told)


def error_for_refusal(refusal: End) -> GatewayError:
    """The same for what the worker itself refused."""
    kind = BusyError if refusal.code is EndCode.BUSY else NoWorkerError
    return kind(refusal.message, retry_after_s=refusal.retry_after_s)
