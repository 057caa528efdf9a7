"""The loads that are measured: what is asked, how often, and for how long.

A workload is the same for every gateway. One that offers requests at a rate is an open loop, whose moments are the same
for all; one with connections alone is a closed loop, in which streams, whose length the engine sets, come to the same
load for all as long as nobody is saturated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

from peers.peer import Capacity

PATH = "/v1/chat/completions"
_QUESTION = "Why is the sky blue?"
_FILLER = "It was a bright cold day in April, and the clocks were striking thirteen. "


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One load. Times are in seconds."""

    name: str
    title: str
    connections: int
    """Streams or requests at once; of an open loop the most."""
    rate: float = 0.0
    """Requests a second of an open loop; 0 is a closed one."""
    tokens: int = 0
    """Of each stream; 0 is an unstreamed answer."""
    tokens_per_s: float = 50.0
    """Of each stream."""
    prompt_bytes: int = 0
    """At least."""
    fresh: bool = False
    """A connection for each request."""
    seconds: float = 2.0
    warm_s: float = 0.5
    ramp_s: float = 0.0
    """Time over which connections begin."""
    drain_s: float = 1.0
    """Time for what is under way at the end to end by itself; the rest is cut, as streams are."""
    core: bool = True
    """Measured in every round, else in one."""
    idle: bool = False
    """Its streams are open and say nothing: it is about memory."""

    @property
    def streamed(self) -> bool:
        """Whether answers are streams."""
        return self.tokens > 0

    def within(self, capacity: Capacity | None) -> Workload:
        """As much of it as a peer can take."""
        if capacity is None:
            return self
        rate = min(self.rate, capacity.rate)
        return replace(self, connections=min(self.connections, capacity.connections), rate=rate)

    def request(self, headers: Mapping[str, str]) -> bytes:
        """The bytes of one request."""
        pattern = f"rate={self.tokens_per_s:g} tokens={self.tokens} " if self.streamed else ""
        filler = _FILLER * (self.prompt_bytes // len(_FILLER) + 1) if self.prompt_bytes else ""
        fields: dict[str, object] = {
            "model": "bench",
            "messages": [{"role": "user", "content": f"{pattern}{filler}{_QUESTION}"}],
            "max_tokens": self.tokens or 1,
        }
        if self.streamed:
            fields["stream"] = True
        body = json.dumps(fields, separators=(",", ":")).encode()
        lines = {
            "host": "bench",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **headers,
            **({"connection": "close"} if self.fresh else {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + body


def stream(tokens: int, tokens_per_s: float, streams: int, *, core: bool = False) -> Workload:
    """So many streams at once, each beginning anew when it ends."""
    ramp = min(2.0, tokens / tokens_per_s, 0.2 + streams / 500)
    return Workload(
        name=f"stream-{tokens}-{tokens_per_s:g}-x{streams}",
        title=f"{streams} stream{'s' if streams > 1 else ''} of {tokens} tokens at {tokens_per_s:g} token/s",
        connections=streams,
        tokens=tokens,
        tokens_per_s=tokens_per_s,
        ramp_s=ramp,
        warm_s=ramp + 0.4,
        drain_s=0.0,
        core=core,
    )


CLOSED = Workload(name="plain", title="unstreamed, 64 connections", connections=64)
OPEN = Workload(name="plain-open", title="unstreamed, 1000 requests/s offered", connections=512, rate=1000)
LARGE = Workload(
    name="plain-100k",
    title="unstreamed, prompt of 100 KB, 200 requests/s",
    connections=256,
    rate=200,
    prompt_bytes=100_000,
)
LARGE_SIDE = replace(LARGE, core=False)
FRESH = Workload(
    name="plain-fresh",
    title="unstreamed, a connection each, 500 requests/s",
    connections=512,
    rate=500,
    fresh=True,
    core=False,
)
IDLE = Workload(
    name="idle-x1000",
    title="1000 open streams without tokens",
    connections=1000,
    tokens=64,
    tokens_per_s=0.02,
    ramp_s=1.0,
    warm_s=1.8,
    seconds=1.0,
    drain_s=0.0,
    idle=True,
)
MANY = stream(64, 50, 400, core=True)
SOME = stream(64, 50, 100, core=True)
CROWD = stream(64, 20, 1000, core=True)

DEFAULT = (
    CLOSED,
    OPEN,
    IDLE,
    MANY,
    SOME,
    CROWD,
    LARGE_SIDE,
    FRESH,
    stream(512, 50, 400),
    stream(512, 20, 1000),
    stream(64, 100, 100),
    stream(64, 20, 400),
    stream(64, 50, 1),
)
"""Each of the values that matter, once; `every` has all their combinations."""

QUICK = tuple(
    replace(workload, seconds=1.2, warm_s=workload.ramp_s + 0.3, drain_s=0.0) for workload in (CLOSED, OPEN, MANY, SOME)
)


def every() -> list[Workload]:
    """The whole of it: every length, rate and number of streams, and each way to ask for an unstreamed answer."""
    found = [CLOSED, OPEN, IDLE, replace(LARGE, core=True), replace(FRESH, core=True)]
    found.append(
        replace(
            LARGE, name="plain-100k-fresh", title="unstreamed, 100 KB, a connection each, 200 requests/s", fresh=True
        )
    )
    for tokens, rate, streams in product((64, 512), (20, 50, 100), (1, 100, 400, 1000)):
        found.append(stream(tokens, rate, streams, core=True))
    return found
