"""A worker process with a directory for its logs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from neurogate.config import child_environment


def test_a_worker_keeps_its_log_in_a_file_too(tmp_path: Path) -> None:
    changes = {
        "NEUROGATE_LOG_DIR": str(tmp_path),
        "LOG_FORMAT": "json",
        "NEUROGATE_ENGINE": "sim",
        "NEUROGATE_WORKER_HOST": "127.0.0.1",
        "GRPC_PORT": "0",
        "METRICS_PORT": "0",
    }
    command = [sys.executable, "-m", "neurogate", "worker"]
    with subprocess.Popen(command, env=child_environment(changes), stderr=subprocess.PIPE, text=True) as process:
        heard = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        heard += process.stderr.read()
        assert process.wait(timeout=60) == 0
    written = (tmp_path / "_boot" / "latest.txt").read_text()
    assert written == heard
    assert json.loads(written.splitlines()[-1])["event"] == "worker stopped"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_boot"], "no managed engine, no log of one"


def test_a_directory_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    changes = {"NEUROGATE_LOG_DIR": str(tmp_path / "file"), "NEUROGATE_ENGINE": "sim"}
    command = [sys.executable, "-m", "neurogate", "worker"]
    done = subprocess.run(
        command, env=child_environment(changes), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78
    assert done.stderr.startswith("neurogate: NEUROGATE_LOG_DIR: ")
