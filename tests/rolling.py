"""A local fleet of simulated engines is restarted by `neurogate up --rolling` under a steady load.

`python tests/rolling.py --requests 2000` prints what became of every request, and fails when one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from steady_load import Counts, SteadyLoad

NEUROGATE = (sys.executable, "-m", "neurogate")
KEY = "key-of-the-rolling-restart"
_STOP_S = 60.0


@dataclass
class Rolled:
    """What came of it."""

    counts: Counts
    code: int
    """Of the first command that failed, else 0."""
    told: str
    """By the commands."""
    restarts: int
    seconds: float
    """All restarts together."""


async def rolled(state: Path, *, requests: int, workers: int = 3, per_second: float = 50) -> Rolled:
    """Restart the fleet again and again until so many requests have been asked. `state` is for its logs."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NEUROGATE_", "API_", "OLLAMA"))},
        "HTTP_PORT": "0",
        "METRICS_PORT": "0",
        "GRPC_PORT": "0",
        "NEUROGATE_GRPC_PORT": "0",
        "PORT_HEALTH": "-1",
        "XDG_STATE_HOME": str(state),
        "NEUROGATE_SIM_PREFILL_TPS": "0",
        "NEUROGATE_SIM_DECODE_TPS": "60",
        "NEUROGATE_SIM_SLOTS": "200",
    }
    up = await asyncio.create_subprocess_exec(
        *NEUROGATE, "up", "--workers", str(workers), "--engine", "sim", "--key", KEY,
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert up.stdout is not None
    try:
        head = ""
        async for line in up.stdout:
            head += line.decode()
            if line.startswith(b"ready"):
                break
        port = int(re.findall(r"gateway +http://127\.0\.0\.1:(\d+)", head)[0])
        reading = asyncio.get_running_loop().create_task(up.stdout.read())
        restarts, seconds, code, told = 0, 0.0, 0, ""
        async with SteadyLoad(port, key=KEY, per_second=per_second) as load:
            await load.until(int(per_second))
            while not code and (not restarts or load.counts.asked < requests):
                began = time.monotonic()
                code, said = await _roll(environment)
                restarts, seconds, told = restarts + 1, seconds + time.monotonic() - began, told + said
            await load.until(load.counts.asked + int(per_second))
        up.terminate()
        await asyncio.wait_for(reading, _STOP_S)
        return Rolled(load.counts, code or await up.wait(), told, restarts, seconds)
    finally:
        if up.returncode is None:
            up.kill()
            await up.wait()


async def _roll(environment: dict[str, str]) -> tuple[int, str]:
    command = await asyncio.create_subprocess_exec(
        *NEUROGATE, "up", "--rolling", env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await command.communicate()
    return command.returncode or 0, said.decode()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--per-second", type=float, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        done = asyncio.run(
            rolled(Path(state), requests=given.requests, workers=given.workers, per_second=given.per_second)
        )
    print(done.told, end="")
    print(f"{done.restarts} rolling restarts of {given.workers} workers and the gateway in {done.seconds:.0f} s")
    print(done.counts)
    return 1 if done.code or done.counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
