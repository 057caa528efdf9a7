"""A steady load on one address until standard input ends; then what became of every request, as one line of JSON.

    python tools/verify/k8s_load.py HOST PORT KEY REQUESTS_A_SECOND

Prints `loading` when it has begun. It is a process of its own because it runs inside a node's network namespace.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from steady_load import SteadyLoad  # type: ignore[import-not-found]  # tests are not type-checked


async def main() -> None:
    """Load, and count."""
    host, port, key, per_second = sys.argv[1:]
    load = SteadyLoad(int(port), host=host, key=key, per_second=float(per_second))
    async with load:
        print("loading", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    counts = load.counts
    told = {"asked": counts.asked, "whole": counts.whole, "connections": counts.connections, "failed": counts.failed}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
