"""What is written down of a request that is over: an entry of the access log, the same whichever way it came.

`Recorder.write` makes the entry; whoever served the request tells what it knows, and leaves out what it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neurogate.edge.settings import AccessLogSettings
from neurogate.errors import BusyError, QueueFullError, QueueTimeoutError, QueueTooLongError
from neurogate.gateway.edge import Edge
from neurogate.gateway.response import CLIENT_GONE
from neurogate.gateway.served import Served
from neurogate.inference import Usage
from neurogate.telemetry.access_log import AccessLog, Entry
from neurogate.telemetry.trace_context import trace_id_of

_PROMPT_BYTES_MAX = 32 * 1024

_SHEDS = frozenset(error.code for error in (BusyError, QueueFullError, QueueTimeoutError, QueueTooLongError))
"""Codes of refusals for load. No worker, and no answer from where limits are kept, are failures."""

Record = Callable[[str, Served], None]
"""Takes the path and the request of a hot endpoint, when nothing more will happen to it."""


def access_log(settings: AccessLogSettings, *, on_loss: Callable[[int], None]) -> AccessLog | None:
    """The log that the settings ask for, not started yet. Raises ConfigError when its file cannot be opened."""
    if not settings.access_log:
        return None
    return AccessLog(
        settings.access_log,
        form=settings.access_log_format,
        max_bytes=settings.access_log_max_bytes,
        keep=settings.access_log_keep,
        max_waiting=settings.access_log_queue,
        prompts=settings.access_log_prompts,
        on_loss=on_loss,
    )


def outcome(status: int, *, broken: bool = False) -> str:
    """How a request ended; `broken` when its answer had begun and its last word was an error."""
    if status == CLIENT_GONE:
        return "client_gone"
    if broken:
        return "broken"
    return "answered" if status < 400 else "refused" if status < 500 else "failed"


def generation_outcome(status: int, failure: str = "", *, broken: bool = False) -> str:
    """The same, with what was refused by a limit (`limited`) or for load (`shed`) apart: what metrics say.

    `failure` is the code of the error that it ended with; an engine's own refusal has none.
    """
    ended = outcome(status, broken=broken)
    if ended == "refused" and status == 429:
        return "limited"
    return "shed" if ended == "failed" and failure in _SHEDS else ended


class Recorder:
    """Makes entries of requests and hands them to the log's `put`; `wall` tells seconds since 1970."""

    def __init__(
        self,
        put: Callable[[Entry], None],
        edge: Edge,
        *,
        wall: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        prompts: bool = False,
    ) -> None:
        self._put = put
        self._edge = edge
        self._wall = wall
        self._loop = loop
        self._prompts = prompts

    def write(
        self,
        method: str,
        path: str,
        status: int,
        *,
        began_at: float,
        peer: str,
        forwarded_for: bytes = b"",
        request_id: str = "",
        traceparent: str = "",
        key_id: str = "",
        model: str = "",
        usage: Usage | None = None,
        ttft_s: float | None = None,
        worker: str = "",
        attempts: int = 0,
        size: int = 0,
        broken: bool = False,
        prompt: bytes = b"",
    ) -> None:
        """Write one request down; never blocks.

        `began_at` is loop time, `peer` the other end's address, `ttft_s` to the first byte of a stream, `size` that of
        the answer's body, `prompt` the request's body. `broken` is as in `outcome`.
        """
        self._put(
            Entry(
                at=self._wall(),
                method=method,
                path=path,
                status=status,
                key_id=key_id,
                request_id=request_id,
                trace_id=trace_id_of(traceparent),
                model=model,
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
                completion_tokens=usage.completion_tokens if usage is not None else None,
                ttft_s=ttft_s,
                duration_s=self._loop.time() - began_at,
                worker=worker,
                attempts=attempts,
                bytes=size,
                outcome=outcome(status, broken=broken),
                client=self._edge.address(peer, forwarded_for),
                prompt=self._prompt(prompt),
            )
        )

    def served(self, path: str, served: Served) -> None:
        """Write a request of a hot endpoint down: a `Record`."""
        response = served.response
        first_at = response.first_byte_at if response is not None else None
        usage, broken = (response.usage, response.broken) if response is not None else (None, False)
        self._put(  # what `write` makes of it, without telling each of these twice
            Entry(
                at=self._wall(),
                method="POST",
                path=path,
                status=served.status,
                key_id=served.caller.key_id,
                request_id=served.request_id,
                trace_id=trace_id_of(served.traceparent) if served.traceparent else "",
                model=served.model,
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
                completion_tokens=usage.completion_tokens if usage is not None else None,
                ttft_s=first_at - served.began_at if first_at is not None else None,
                duration_s=self._loop.time() - served.began_at,
                worker=response.worker_id if response is not None else "",
                attempts=response.attempts if response is not None else 0,
                bytes=served.refusal_bytes + (response.bytes_sent if response is not None else 0),
                outcome=outcome(served.status, broken=broken),
                client=self._edge.address(served.peer, served.headers.forwarded_for),
                prompt=self._prompt(served.body),
            )
        )

    def _prompt(self, body: bytes) -> str:
        return body[:_PROMPT_BYTES_MAX].decode("utf-8", "replace") if self._prompts else ""
