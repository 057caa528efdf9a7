"""What is written down of a request that is over: an entry of the access log, made of what the endpoint knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neurogate.edge.settings import AccessLogSettings
from neurogate.gateway.edge import Edge
from neurogate.gateway.response import CLIENT_GONE
from neurogate.gateway.served import Served
from neurogate.telemetry.access_log import AccessLog, Entry

_PROMPT_BYTES_MAX = 32 * 1024


Record = Callable[[str, Served], None]
"""Takes the path and the request, when nothing more will happen to it."""


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


def recorder(log: AccessLog, edge: Edge, *, wall: Callable[[], float], loop: asyncio.AbstractEventLoop) -> Record:
    """Writes requests into the log; `wall` tells seconds since 1970."""

    def record(path: str, served: Served) -> None:
        response = served.response
        usage = response.usage if response is not None else None
        first_at = response.first_byte_at if response is not None else None
        log.write(
            Entry(
                at=wall(),
                method="POST",
                path=path,
                status=served.status,
                key_id=served.caller.key_id,
                request_id=served.request_id,
                model=served.model,
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
                completion_tokens=usage.completion_tokens if usage is not None else None,
                ttft_s=first_at - served.began_at if first_at is not None else None,
                duration_s=loop.time() - served.began_at,
                worker=response.worker_id if response is not None else "",
                attempts=response.attempts if response is not None else 0,
                bytes=response.bytes_sent if response is not None else 0,
                outcome=_outcome(served),
                client=edge.address(served.peer, served.headers.forwarded_for),
                prompt=served.body[:_PROMPT_BYTES_MAX].decode("utf-8", "replace") if log.prompts else "",
            )
        )

    return record


def _outcome(served: Served) -> str:
    if served.status == CLIENT_GONE:
        return "client_gone"
    if served.response is not None and served.response.broken:
        return "broken"
    return "answered" if served.status < 400 else "refused" if served.status < 500 else "failed"
