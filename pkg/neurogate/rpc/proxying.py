"""Transparent proxying: a client's call and a call to a worker, joined so that each side sees the other.

Messages are bytes, and every shape of call is treated as a stream both ways. In each direction the next message is read
when the last one was written, so that a slow reader slows its sender and one message per direction is all that is held.
"""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import structlog

from neurogate.errors import ForbiddenError, GatewayError, NoWorkerError
from neurogate.resilience.breaker import Outcome
from neurogate.rpc.call_channel import BytesCall, connected, send, was_cut
from neurogate.rpc.public_backend import Hold, IncomingRpc, Proxied, Traffic
from neurogate.rpc.status import Metadata

ProxyContext = grpc.aio.ServicerContext[bytes, bytes]

_log = structlog.get_logger("neurogate.rpc")

_OPEN_TO_CLIENTS = frozenset({"/neurogate.v1.Worker/GetStatus"})
_GENERATE = "/neurogate.v1.Worker/Generate"

_NOT_FORWARDED = frozenset(
    {
        "authorization",  # the gateway's key is no worker's business
        "x-api-key",
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",  # gRPC writes its own
    }
)

_OUTCOMES = {
    grpc.StatusCode.UNAVAILABLE: Outcome.FAILURE,
    grpc.StatusCode.CANCELLED: Outcome.IGNORED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Outcome.IGNORED,  # the client's deadline says nothing about the worker
    grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.IGNORED,  # refused for load, or a message too large
    grpc.StatusCode.UNIMPLEMENTED: Outcome.IGNORED,
}


_HALF_CLOSE_GRACE_S = 0.005
"""A client that cancels ends its messages too, and gRPC tells of that end first: were it passed on at once, the worker
could take what it has of an upload for the whole. The cancellation, which follows at once, must win."""


class _NotReachedError(Exception):
    """The worker never had the call."""


class _WorkerLostError(Exception):
    """The channel was closed under the call, because the worker is gone or hangs."""


def refuse_private(method: str) -> None:
    """Raise ForbiddenError for what only gateways and workers may call of each other.

    Whoever may open a link is a gateway to the worker, and no key is asked of it. Generation passes no link only where
    there is no gateway: its model, its tokens and its limits are known to `llm.v1.LLMService` alone.
    """
    if method == _GENERATE:
        raise ForbiddenError(f"{method} is not called through a gateway: call llm.v1.LLMService")
    if method.startswith("/neurogate.") and method not in _OPEN_TO_CLIENTS:
        raise ForbiddenError(f"{method} is private: it is not called through a gateway")


async def proxy(rpc: IncomingRpc, context: ProxyContext, proxied: Proxied) -> None:
    """Join a client's call to one of a worker's; sets the status that the worker gave.

    Another worker is tried only while none had the call. Raises GatewayError when there is none, when the worker was
    lost, or when a message may not pass. Cancelled, it cancels the worker's call.
    """
    while True:
        hold = await proxied.candidates.next()
        outcome = Outcome.IGNORED  # unless something better is known: this client was cancelled
        try:
            call = hold.channel.call(rpc.method, timeout_s=_time_left(context), metadata=_forwarded(rpc.metadata))
            try:
                await _reach(call)
                await _join(call, context, hold, proxied.traffic)
                outcome = _OUTCOMES.get(await call.code(), Outcome.SUCCESS)
            finally:
                call.cancel()
        except _NotReachedError as error:
            outcome = Outcome.FAILURE
            _log.info("proxied call moves on", method=rpc.method, worker=hold.worker_id, error=str(error))
        except _WorkerLostError as error:
            outcome = Outcome.FAILURE
            raise NoWorkerError(f"{hold.worker_id} is gone, and with it this call") from error
        else:
            return
        finally:
            hold.release(outcome)


async def _reach(call: BytesCall) -> None:
    """Wait until the worker has the call's head. Raises _NotReachedError when it will not get it."""
    try:
        await connected(call)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise _NotReachedError(error.details()) from error
    except asyncio.CancelledError:
        _raise_own_cancellation()
        raise _NotReachedError("the channel was closed") from None


async def _join(call: BytesCall, context: ProxyContext, hold: Hold, traffic: Traffic) -> None:
    """Carry everything both ways, until the worker has given its status, or a message may not pass."""
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            upload = tasks.create_task(_upload(context, call, traffic), name="proxy-upload")
            try:
                await _download(call, context, hold, traffic)
            except Exception as error:  # noqa: BLE001 - raised below: out of the group it would come wrapped
                failure = error
            finally:
                upload.cancel()
    except* GatewayError as refused:
        failure = refused.exceptions[0]
    if failure is not None:
        raise failure
    code, details, trailers = await call.code(), await call.details(), await call.trailing_metadata()
    context.set_trailing_metadata(tuple(trailers or ()))
    context.set_details(details or "")
    context.set_code(code)


async def _upload(context: ProxyContext, call: BytesCall, traffic: Traffic) -> None:
    """The client's messages to the worker, and the end of them.

    Raises GatewayError for one that may not pass, and nothing else: the worker's status tells what failed.
    """
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
        while isinstance(message := await context.read(), bytes):
            await traffic.up(len(message))
            try:
                await send(call, message)
            finally:
                traffic.passed(len(message))
        await asyncio.sleep(_HALF_CLOSE_GRACE_S)
        await call.done_writing()


async def _download(call: BytesCall, context: ProxyContext, hold: Hold, traffic: Traffic) -> None:
    """The worker's metadata and messages to the client."""
    head = tuple(await call.initial_metadata() or ())
    if head or not call.done():
        hold.answered()
        await context.send_initial_metadata(head)
    while isinstance(message := await _read(call), bytes):
        await traffic.down(len(message))
        try:
            await context.write(message)
        finally:
            traffic.passed(len(message))


async def _read(call: BytesCall) -> object:
    """The next message of the worker; something else when there is no further one, whatever the status."""
    try:
        return await call.read()
    except grpc.aio.AioRpcError as error:
        if was_cut(call):
            raise _WorkerLostError from error
        return None
    except asyncio.CancelledError:
        _raise_own_cancellation()
        raise _WorkerLostError from None


def _raise_own_cancellation() -> None:
    """Raise when it is this task that is cancelled, and not the call, which gRPC tells with the same exception."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _time_left(context: ProxyContext) -> float | None:
    return context.time_remaining()


def _forwarded(metadata: Metadata) -> Metadata:
    return tuple((key, value) for key, value in metadata if key not in _NOT_FORWARDED)
