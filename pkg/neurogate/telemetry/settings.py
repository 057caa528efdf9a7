"""Settings of what processes tell of themselves."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.config import env


class LogFileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a process keeps its log in files, beside standard error."""

    directory: Annotated[
        str,
        env(
            "NEUROGATE_LOG_DIR",
            "Directory of log files: _boot for the process, llama-TYPE for a managed engine; empty writes none.",
        ),
    ] = ""
    max_bytes: Annotated[
        int,
        env("NEUROGATE_LOG_MAX_BYTES", "Size at which a log file becomes FILE.1 and begins anew; 0 is any.", ge=0),
    ] = 100 * 1024 * 1024
    keep: Annotated[
        int, env("NEUROGATE_LOG_KEEP", "Log files kept in each directory; those of running processes stay.", ge=1)
    ] = 20
