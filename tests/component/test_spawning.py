"""Programs started by a process that speaks gRPC meanwhile, as a worker starts its engine: every one of them runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter

_SCRIPT = f"""
import neurogate
from {__name__} import main
import uvloop
uvloop.run(main())
"""

_SPAWNS = 150


async def main() -> None:
    """Echo over eight calls as fast as it goes, and start programs beside it."""
    from grpc import aio, method_handlers_generic_handler, stream_stream_rpc_method_handler

    async def echo(messages, _context):  # type: ignore[no-untyped-def]
        async for message in messages:
            yield message

    server = aio.server()
    methods = {"Echo": stream_stream_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((method_handlers_generic_handler("test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.TaskGroup() as tasks:

        async def pump() -> None:
            call = channel.stream_stream("/test/Echo")()
            while True:
                await call.write(b"token")
                await call.read()

        pumps = [tasks.create_task(pump()) for _ in range(8)]
        endings: Counter[int] = Counter()
        for _ in range(_SPAWNS):
            program = await asyncio.create_subprocess_exec(
                "/bin/true", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            await program.communicate()
            endings[program.returncode or 0] += 1
        for each in pumps:
            each.cancel()
    await server.stop(None)
    print(dict(endings))


def test_every_program_that_is_started_beside_grpc_runs() -> None:
    ended = subprocess.run([sys.executable, "-c", _SCRIPT], check=False, capture_output=True, text=True, timeout=120)

    assert ended.stdout.strip() == str({0: _SPAWNS}), ended.stderr[-2000:]
