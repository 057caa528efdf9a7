"""Many simulated workers in one process, for benches of the gateway: each with a port, a link and reports of its own.

python bench/simworkers.py COUNT      # prints the workers' gRPC ports, then serves until SIGTERM
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.process import run
from neurogate.telemetry import logging
from neurogate.worker.app import serve
from neurogate.worker.settings import WorkerSettings

_SIM = SimSettings(prefill_tps=0, decode_tps=20, slots=8)


async def _serve(count: int, stopping: asyncio.Event) -> None:
    ports: list[int] = []
    settings = WorkerSettings(host="127.0.0.1", grpc_port=0, metrics_port=0)

    def listens(grpc_port: int, _: int) -> None:
        ports.append(grpc_port)
        if len(ports) == count:
            print(json.dumps(ports), flush=True)

    async with asyncio.TaskGroup() as workers:
        for number in range(count):
            engine = SimEngine(_SIM, model="bench", rng=random.Random(number), now=time.time)
            workers.create_task(serve(settings, engine, stopping, on_ports=listens))


def main() -> int:
    """Serve."""
    logging.configure(level="error", form="json", process="worker")
    return run(lambda stopping: _serve(int(sys.argv[1]), stopping))


if __name__ == "__main__":
    sys.exit(main())
