"""An engine in memory that does exactly what a test tells it, one step after the other.

The one idea: an answer is a list of steps. Bytes (or events) are said, an exception is raised, an `asyncio.Event` is
waited for, and HANG waits for ever; so each moment at which an engine can fail is written down where the test needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall, EngineReply, Figures, ModelInfo, Observation
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage
from neurogate.testing.watched import Watched

StepT = TypeVar("StepT")


class Hang:
    """The step that never ends but by cancellation."""


HANG: Final = Hang()

Pause = Exception | asyncio.Event | Hang
"""A step that says nothing: raises, waits for the event, or hangs."""

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"

READY: Final = Observation(ready=True, version="1.2.3", models=(ModelInfo("tiny", context_length=512),), slots_total=4)
"""A healthy engine with four slots and one model."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What `forward` answers."""

    steps: Sequence[bytes | Pause] = ()
    status: int = 200
    content_type: str = JSON
    retry_after_s: float | None = None
    before: Sequence[Pause] = ()
    """Steps before the head."""


def stream(*steps: bytes | Pause, done: bool = True) -> Reply:
    """A streamed reply; with its end mark unless told otherwise."""
    return Reply((*steps, DONE) if done else steps, content_type=EVENTS)


def finished(*, prompt: int = 3, completion: int = 2, reason: str = "stop") -> Finished:
    """The last event of a generation."""
    return Finished(Usage(prompt, completion), reason, "tiny", 12)


class ScriptedEngine:
    """An `Engine` that follows `replies`, `generations` and `continuations`, which are asked anew for every call.

    Whatever they raise is raised before the first byte. `active` counts the calls inside the engine and can be waited
    for, `aborted` those that were left before their last step.
    """

    def __init__(
        self,
        *,
        replies: Callable[[EngineCall], Reply] = lambda _: Reply([b"{}"]),
        generations: Callable[[Prompt], Sequence[GenerationEvent | Pause]] = lambda _: [Token("Hi"), finished()],
        continuations: Callable[[Resume], Sequence[GenerationEvent | Pause]] = lambda _: [finished()],
        observation: Observation = READY,
        start: Sequence[Pause] = (),
        supervise: Sequence[Pause] = (HANG,),
    ) -> None:
        self.replies = replies
        self.generations = generations
        self.continuations = continuations
        self.observation = observation
        """What it says of itself next."""
        self.observe_steps: Sequence[Pause] = ()
        """Steps before it says so."""
        self.calls: list[EngineCall] = []
        self.prompts: list[Prompt] = []
        self.resumed: list[Resume] = []
        self.active = Watched(0)
        self.aborted = 0
        self.observed = Watched(0)
        self.stopped = 0
        self.healed: list[str] = []
        """Why it was to be healed."""
        self.healable = False
        self.counted = Figures()
        """What it counts of itself."""
        self.figures_steps: Sequence[Pause] = ()
        """Steps before it says so."""
        self.figures_asked = 0
        self._start = start
        self._supervise = supervise

    @property
    def kind(self) -> str:
        """`scripted`."""
        return "scripted"

    async def start(self) -> None:
        """Follow the steps of `start`."""
        await _pause_all(self._start)

    async def run(self) -> None:
        """Follow the steps of `supervise`, which hang unless told otherwise."""
        await _pause_all(self._supervise)

    async def stop(self) -> None:
        """Count."""
        self.stopped += 1

    async def observe(self) -> Observation:
        """Say `observation`."""
        await _pause_all(self.observe_steps)
        self.observed.set(self.observed.value + 1)
        return self.observation

    @asynccontextmanager
    async def forward(self, call: EngineCall) -> AsyncIterator[EngineReply]:
        """Follow `replies`."""
        self.calls.append(call)
        reply = self.replies(call)
        steps: _Steps[bytes] = _Steps(reply.steps)
        with _inside(self, steps):
            await _pause_all(reply.before)
            yield EngineReply(reply.status, reply.content_type, steps.follow(), reply.retry_after_s)

    async def figures(self) -> Figures:
        """Say `counted`."""
        self.figures_asked += 1
        await _pause_all(self.figures_steps)
        return self.counted

    async def heal(self, reason: str) -> bool:
        """Count, and do as `healable` says."""
        self.healed.append(reason)
        return self.healable

    async def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        """Follow `generations`."""
        self.prompts.append(prompt)
        steps: _Steps[GenerationEvent] = _Steps(self.generations(prompt))
        with _inside(self, steps):
            async for event in steps.follow():
                yield event

    async def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Follow `continuations`."""
        self.calls.append(call)
        self.resumed.append(said)
        steps: _Steps[GenerationEvent] = _Steps(self.continuations(said))
        with _inside(self, steps):
            async for event in steps.follow():
                yield event

    def __repr__(self) -> str:
        return f"<ScriptedEngine active={self.active.value} aborted={self.aborted}>"


class _Steps(Generic[StepT]):
    """The steps of one answer, and whether they are over."""

    def __init__(self, steps: Sequence[StepT | Pause]) -> None:
        self._steps = steps
        self.over = not steps

    async def follow(self) -> AsyncGenerator[StepT, None]:
        last = len(self._steps) - 1
        for index, step in enumerate(self._steps):
            if isinstance(step, asyncio.Event | Hang):
                await _pause(step)
            self.over = index == last or isinstance(step, Exception)
            if isinstance(step, Exception):
                raise step
            if not isinstance(step, asyncio.Event | Hang):
                yield step


@contextmanager
def _inside(engine: ScriptedEngine, steps: _Steps[Any]) -> Iterator[None]:
    engine.active.set(engine.active.value + 1)
    try:
        yield
    finally:
        engine.aborted += not steps.over
        engine.active.set(engine.active.value - 1)


async def _pause_all(steps: Sequence[Pause]) -> None:
    for step in steps:
        await _pause(step)


async def _pause(step: Pause) -> None:
    if isinstance(step, Exception):
        raise step
    await (asyncio.Event() if isinstance(step, Hang) else step).wait()
