"""A worker in memory, behind the data plane's channel: it does what its script says, when virtual time says so.

A `FakeWorkerChannel` is worker and link in one. Its life is driven by plain calls (`come_up`, `tell`, `drain`, `leave`,
`die`, `refuse_connection`), each of which takes effect before it returns; its answers are scripts, whose steps the loop
plays out, or are given by hand through the `FakeCall` that every submit leaves in `calls`. Like a real channel it never
calls a sink from within `submit`, tells its observer of a lost link before it ends the calls, and keeps silent about a
call that was cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from neurogate.channel import Call, End, EndCode, LinkObserver, Sink
from neurogate.endpoint import Endpoint, ServedModel, WorkerReport
from neurogate.operations import CANARY_PATH

GOOD_END = End(http_status=200, finish_reason="stop")

_HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class Script:
    """What a worker does with one call."""

    steps: tuple[tuple[float, bytes | End], ...] = ()
    """(seconds after the step before, chunk or end). A call whose steps have no end is never ended."""


HANGS = Script()


def answers(*chunks: bytes, first_s: float = 0.0, every_s: float = 0.0, end: End = GOOD_END) -> Script:
    """The first chunk after `first_s`, each further one and the end `every_s` after the one before."""
    delays_s = (first_s, *(every_s for _ in chunks))
    return Script(tuple(zip(delays_s, (*chunks, end), strict=True)))


def ends(code: EndCode, *, after_s: float = 0.0, message: str = "", retry_after_s: float | None = None) -> Script:
    """No chunk, only an end of that code."""
    return Script(((after_s, End(code, message=message, retry_after_s=retry_after_s)),))


def refuses(status: int, *, after_s: float = 0.0, body: bytes = b"", retry_after_s: float | None = None) -> Script:
    """The engine's own answer of that HTTP status."""
    return Script(((after_s, End(http_status=status, body=body, retry_after_s=retry_after_s)),))


class FakeCall:
    """One call as its worker has it: recorded, and open to be answered by hand."""

    __slots__ = ("_channel", "_sink", "_timer", "at", "call", "cancelled", "ended", "ticket")

    def __init__(self, channel: FakeWorkerChannel, ticket: int, call: Call, sink: Sink, at: float) -> None:
        self.ticket = ticket
        self.call = call
        self.at = at
        """Loop time of the submit."""
        self.cancelled = False
        """The gateway took it back."""
        self.ended = False
        """The sink heard its end."""
        self._channel = channel
        self._sink = sink
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        """Neither ended nor cancelled: the worker holds it."""
        return not (self.cancelled or self.ended)

    def chunk(self, data: bytes) -> None:
        """Send a chunk now. Does nothing on a call that is not open, as bytes that cross a cancel are dropped."""
        if self.open:
            self._sink.on_chunk(data)

    def end(self, end: End = GOOD_END) -> None:
        """End the call now. Does nothing on a call that is not open."""
        if self.open:
            self.ended = True
            self._forget()
            self._sink.on_end(end)

    def play(self, script: Script, loop: asyncio.AbstractEventLoop) -> None:
        """Play a script out from now on."""
        if self.open and script.steps:
            (after_s, what), *rest = script.steps
            self._timer = loop.call_later(after_s, self._step, what, Script(tuple(rest)), loop)

    def cancel(self) -> None:
        """Forget the call, as `WorkerChannel.cancel` does. Idempotent."""
        if self.open:
            self.cancelled = True
            self._forget()

    def _step(self, what: bytes | End, rest: Script, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if isinstance(what, End):
            self.end(what)
        else:
            self.chunk(what)
            self.play(rest, loop)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._channel.running.pop(self.ticket, None)

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "ended" if self.ended else "open"
        return f"<FakeCall {self.ticket} {state}>"


class FakeWorkerChannel:
    """A `LinkChannel` whose worker is in memory. Single-threaded, on one event loop, virtual or real."""

    def __init__(
        self,
        endpoint: Endpoint,
        observer: LinkObserver,
        *,
        loop: asyncio.AbstractEventLoop,
        models: tuple[str, ...] = (),
        resumes: frozenset[str] = frozenset(),
        script: Script | Callable[[Call], Script] = HANGS,
    ) -> None:
        self.endpoint = endpoint
        self.up = False
        """The link is open."""
        self.served = False
        """`run` is running."""
        served = tuple(ServedModel(name) for name in models)
        self.present = WorkerReport(endpoint.id, ready=True, models=served, resumes=resumes)
        """What it says of itself; sent at `come_up`, replaced by `tell`."""
        self.script = script
        """For calls without a script of their own: one for all, or one made for each call."""
        self.canary = answers()
        """For canaries, which have neither a place in `calls` nor a script of a request's."""
        self.canaries: deque[FakeCall] = deque(maxlen=_HISTORY)
        """The canaries it was given while up."""
        self.calls: deque[FakeCall] = deque(maxlen=_HISTORY)
        """The calls it was given while up, in order: the last 10 000."""
        self.running: dict[int, FakeCall] = {}
        """Of these, the open ones by ticket."""
        self._next: deque[Script] = deque(maxlen=_HISTORY)
        self._observer = observer
        self._loop = loop
        self._tickets = 0

    def then(self, *scripts: Script) -> None:
        """Scripts of the next calls, one each, before `script` serves again."""
        self._next.extend(scripts)

    def submit(self, call: Call, sink: Sink) -> int:
        """Take a call; while down it ends as LINK_LOST, on the loop's next turn."""
        self._tickets += 1
        taken = FakeCall(self, self._tickets, call, sink, self._loop.time())
        self.running[taken.ticket] = taken
        if not self.up:
            lost = Script(((0.0, End(EndCode.LINK_LOST, message="the link is down")),))
            taken.play(lost, self._loop)
            return taken.ticket
        if call.path == CANARY_PATH:
            self.canaries.append(taken)
            taken.play(self.canary, self._loop)
        else:
            self.calls.append(taken)
            taken.play(self._script_for(call), self._loop)
        return taken.ticket

    def cancel(self, ticket: int) -> None:
        """Forget a call."""
        taken = self.running.get(ticket)
        if taken is not None:
            taken.cancel()

    async def run(self) -> None:
        """Stay until cancelled; then end every call in flight. Coming up is for `come_up` to do."""
        self.served = True
        try:
            await asyncio.Event().wait()
        finally:
            self.served = self.up = False
            self._lose_all("the gateway stops")

    def come_up(self) -> None:
        """Open the link with the present report. Raises RuntimeError when it is open, or `run` does not run."""
        if self.up or not self.served:
            raise RuntimeError(f"{self!r} cannot come up")
        self.up = True
        self._observer.link_up(self.present)

    def tell(self, report: WorkerReport) -> None:
        """Say something else of itself: at once while up, at the next `come_up` otherwise."""
        self.present = report
        if self.up:
            self._observer.link_report(report)

    def become_ready(self, *, models: tuple[str, ...] | None = None) -> None:
        """Report ready, with the models it had or with others."""
        served = self.present.models if models is None else tuple(ServedModel(name) for name in models)
        self.tell(replace(self.present, ready=True, draining=False, detail="", models=served))

    def become_unready(self, detail: str = "the engine is starting") -> None:
        """Report not ready."""
        self.tell(replace(self.present, ready=False, detail=detail))

    def drain(self) -> None:
        """Report that it takes nothing new. What it holds goes on."""
        self.tell(replace(self.present, ready=False, draining=True))

    def leave(self, reason: str = "the worker closed the link") -> None:
        """Close the link as announced by `drain`; the calls it still holds are handed back."""
        self._go(reason, planned=True)

    def die(self, reason: str = "connection reset") -> None:
        """Lose the link without a word; the calls it holds are lost."""
        self._go(reason, planned=False)

    def refuse_connection(self, reason: str = "connection refused") -> None:
        """Fail one attempt to open the link. Raises RuntimeError while it is open."""
        if self.up:
            raise RuntimeError(f"{self!r} is connected")
        self._observer.connect_failed(reason)

    def _script_for(self, call: Call) -> Script:
        if self._next:
            return self._next.popleft()
        return self.script(call) if callable(self.script) else self.script

    def _go(self, reason: str, *, planned: bool) -> None:
        if not self.up:
            raise RuntimeError(f"{self!r} has no link to lose")
        self.up = False
        self._observer.link_down(reason, planned=planned)
        self._lose_all(reason, EndCode.CANCELLED if planned else EndCode.LINK_LOST)

    def _lose_all(self, reason: str, code: EndCode = EndCode.LINK_LOST) -> None:
        for taken in tuple(self.running.values()):
            taken.end(End(code, message=reason))

    def __repr__(self) -> str:
        state = "up" if self.up else "down"
        return f"<FakeWorkerChannel {self.endpoint.id} {state} in_flight={len(self.running)}>"


class FakeFleet:
    """Makes the channels of a pool and keeps them by worker id: its `connect` is the pool's `Connect`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        models: Mapping[str, tuple[str, ...]] | None = None,
        resumes: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self.channels: dict[str, FakeWorkerChannel] = {}
        """The latest channel of each worker."""
        self._loop = loop
        self._models = models or {}
        self._resumes = resumes or {}

    def connect(self, endpoint: Endpoint, observer: LinkObserver) -> FakeWorkerChannel:
        """A channel for one endpoint, down until the test lets it `come_up`."""
        channel = FakeWorkerChannel(
            endpoint,
            observer,
            loop=self._loop,
            models=self._models.get(endpoint.id, ()),
            resumes=self._resumes.get(endpoint.id, frozenset()),
        )
        self.channels[endpoint.id] = channel
        return channel

    def __getitem__(self, worker_id: str) -> FakeWorkerChannel:
        return self.channels[worker_id]
