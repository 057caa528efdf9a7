"""Structured logging to standard error, as text for people or JSON for machines.

Every line goes the same way, whether it is ours, a library's, a warning of Python's or an exception that nobody caught:
it names the request that it is about, and has no secrets in it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, TextIO, cast

import msgspec
import structlog

from neurogate.telemetry import concern
from neurogate.telemetry.masking import Mask

_log = structlog.get_logger("neurogate.process")

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def configure(
    *,
    level: str,
    form: str,
    process: str,
    copy: Callable[[str], None] | None = None,
    count: structlog.types.Processor | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Set logging up for this process; called once, by its composition root.

    `level` is debug, info, warn or error; `form` is text or json. Libraries that use the standard library's logging
    (uvicorn, grpc, aiohttp) are heard from warnings up. `copy` hears every line, with its end; it must neither block
    nor fail. `count` gets every line's fields, its level among them, and gives them back.
    `secrets` are never written.
    """
    threshold = LEVELS[level]
    stream = cast("TextIO", _Unfailing(sys.stderr, copy))
    renderer: structlog.types.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and copy is None, pad_event_to=0)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        Mask(secrets),
        *([count] if count is not None else ()),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.raiseExceptions = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def set_level(level: str) -> None:
    """Log from another level up, from now on."""
    threshold = LEVELS[level]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(threshold))  # the rest stays as it is
    logging.getLogger().setLevel(max(threshold, logging.WARNING))


def know_secrets(secrets: Iterable[str]) -> None:
    """From now on these are never written, and no others are looked for."""
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, Mask):
            processor.know(secrets)


def _name_request(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say which request the line is about, where the line itself does not."""
    for name, value in concern.current().fields().items():
        event.setdefault(name, value)
    return event


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    _log.critical("uncaught exception", exc_info=(kind, error, traceback))


def _uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None:
        name = caught.thread.name if caught.thread is not None else ""
        raised = (caught.exc_type, caught.exc_value, caught.exc_traceback)
        _log.critical("uncaught exception", thread=name, exc_info=raised)


class _Unfailing:
    """A stream whose full disk or closed pipe costs log lines, never the process; each line is copied."""

    def __init__(self, stream: TextIO, copy: Callable[[str], None] | None) -> None:
        self._stream = stream
        self._copy = copy

    def write(self, text: str) -> None:
        if self._copy is not None:
            self._copy(text)
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _to_json(event: dict[str, object], **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
