"""The floor: the cheapest pure ASGI app on the gateway's own HTTP server. It reads a body and answers a constant.

python bench/floor.py          # prints its port, serves until SIGTERM
"""

from __future__ import annotations

import asyncio
import sys

from starlette.types import Receive, Scope, Send

from neurogate.httpd import HttpServer
from neurogate.process import run

_BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"[sim]"},"finish_reason":"length"}]}'
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"x-request-id", b"req-1795260524057962460"),
    (b"x-neurogate-worker", b"worker-0"),
    (b"x-neurogate-attempts", b"1"),
]


async def app(_: Scope, receive: Receive, send: Send) -> None:
    """Answer anything."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def serve(stopping: asyncio.Event) -> None:
    """Serve until told to stop."""
    server = HttpServer(app, name="floor", host="127.0.0.1", port=0)
    async with asyncio.TaskGroup() as tasks:
        print(await server.start(tasks), flush=True)
        await stopping.wait()
        await server.stop(1)


if __name__ == "__main__":
    sys.exit(run(serve))
