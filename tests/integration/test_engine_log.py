"""What a managed engine's process writes reaches its log file."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import structlog

from engine_support import LogList, leaving_nothing
from neurogate.engines.factory import build
from neurogate.engines.llamacpp.process import ChildProcess, Launch
from neurogate.engines.settings import EngineSettings, SimSettings
from neurogate.telemetry.log_files import engine_log
from neurogate.telemetry.settings import LogFileSettings

SCRIPT = "import sys; print('loading'); sys.stdout.flush(); print('0.01 E out of memory', file=sys.stderr)"


def test_all_that_the_process_writes_is_in_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        settings = LogFileSettings(directory=str(tmp_path))
        with engine_log(settings, kind="tiny", host="host", now=lambda: 0.0) as log:
            assert log is not None
            async with leaving_nothing():
                child = await ChildProcess.spawn(Launch((sys.executable, "-I", "-S", "-c", SCRIPT), b""), log=log)
                assert await child.run() == 0

    with structlog.testing.capture_logs() as logged:
        asyncio.run(main())
    written = (tmp_path / "llama-tiny" / "latest.txt").read_text().splitlines()
    assert sorted(written) == ["0.01 E out of memory", "loading"]
    assert sorted(entry["log_level"] for entry in logged) == ["debug", "error"]


def test_a_managed_engine_gets_its_log_by_its_models_name() -> None:
    logs = {"tiny": LogList()}
    engine = build(
        EngineSettings(),
        SimSettings(),
        resolve_model=lambda _: ("tiny", Path("/models/x.gguf")),
        rng=random.Random(1),
        now=lambda: 0.0,
        log_of=logs.__getitem__,
    )
    assert engine._log is logs["tiny"]  # type: ignore[attr-defined]
