"""The simulated engine inside the worker's own process: no HTTP, no child process, the same answers.

It is the `Engine` that benches, tests and the simulator drive; on a virtual-time loop it needs no real time at all.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

from neurogate import __version__
from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineReply,
    EngineUnavailableError,
    EngineUnsupportedError,
    Figures,
    ModelInfo,
    Observation,
)
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim import chat_template, llamacpp_api, openai_api
from neurogate.engines.sim.apis import APIS
from neurogate.engines.sim.core import CONTEXT_TOKENS, LOADING, Generation, Question, SimCore
from neurogate.engines.sim.faults import Break
from neurogate.engines.sim.openai_forms import Asked
from neurogate.engines.sim.reply import FAILED_MESSAGE
from neurogate.engines.sim.scheduler import StoppedError
from neurogate.inference import Finished, GenerationEvent, Prompt, Token
from neurogate.operations import OPERATIONS

_OWN_APIS = frozenset(path for path in APIS if not OPERATIONS[path].universal)
_IGNORED = frozenset({"best_of", "suffix", "audio", "grammar"})

RESUMED: dict[str, Callable[[SimCore, bytes], Asked]] = {
    "/v1/chat/completions": openai_api.chat_asked,
    "/v1/completions": openai_api.completion_asked,
}
"""The paths whose answers can be continued, and how a request is read."""


class SimEngine:
    """An `Engine` that says made-up text at a set speed, with faults on demand.

    `rng` decides faults only, `now` is the wall clock in Unix seconds, `exit_process` is what the fault exit_after
    calls. Raises ConfigError for faults that do not exist.
    """

    def __init__(
        self,
        settings: SimSettings,
        *,
        model: str = "sim",
        rng: random.Random,
        now: Callable[[], float],
        exit_process: Callable[[int], None] = os._exit,
    ) -> None:
        self._core = SimCore(settings, model=model, rng=rng, now=now, exit_process=exit_process)

    def __repr__(self) -> str:
        return f"<SimEngine {self._core.model} {self._core.scheduler!r}>"

    @property
    def kind(self) -> str:
        """`sim`."""
        return "sim"

    async def start(self) -> None:
        """Begin; from here the fault slow_start counts."""
        self._core.start()

    async def run(self) -> None:
        """Wait until cancelled: there is nothing to supervise."""
        await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Abort what is running and take nothing more."""
        self._core.stop()

    async def observe(self) -> Observation:
        """The whole truth: slots, queue and cache are known exactly."""
        scheduler = self._core.scheduler
        reason = self._core.unready_reason()
        slots = len(scheduler.jobs)
        totals = scheduler.totals
        return Observation(
            ready=not reason,
            detail=reason,
            loading=reason == LOADING,
            version=__version__,
            models=(ModelInfo(self._core.model, loaded=not reason, context_length=CONTEXT_TOKENS),),
            slots_total=slots,
            slots_busy=scheduler.busy,
            queued=scheduler.queued,
            work_done=scheduler.work_done,
            prompt_tokens_per_s=totals.prompt_tokens / totals.prompt_s if totals.prompt_s else None,
            kv_used_ratio=scheduler.tokens_held / (slots * CONTEXT_TOKENS),
            apis=_OWN_APIS,
            resumes=frozenset(RESUMED),
            unsupported=_IGNORED,
        )

    def forward(self, call: EngineCall) -> AbstractAsyncContextManager[EngineReply]:
        """Answer any of `apis.APIS`. Each chunk of a streamed body holds whole events."""
        answering = APIS.get(call.path)
        if answering is None:
            raise EngineUnsupportedError(f"the simulated engine has no {call.path}")
        return answering(self._core, call.body)

    async def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Continue an answer of the paths in RESUMED, to the letter as it would have been; see Engine.resume."""
        resumed = self._core.resume(self._continuable(call), said.text)
        inference_ms = 0
        if not said.finish_reason:
            with resumed.begin() as generation:
                async with aclosing(_tokens(generation)) as tokens:
                    async for token in tokens:
                        yield token
                summary = generation.summary()
            inference_ms = round((summary.prefill_s + summary.decode_s) * 1000)
        elif (said.finish_reason, 0) != (resumed.finish_reason, resumed.left):
            raise EngineUnsupportedError("the simulated engine would not have ended its answer so")
        yield Finished(
            usage=resumed.usage,
            finish_reason=resumed.finish_reason,
            model=self._core.model,
            inference_time_ms=inference_ms,
        )

    async def figures(self) -> Figures:
        """Those that a llama-server in its place would have."""
        return Figures(llamacpp_api.figures(self._core).encode())

    async def heal(self, reason: str) -> bool:
        """Nothing: it is made to fail."""
        del reason
        return False

    async def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        """Answer one prompt."""
        openai_api.require_model(self._core, prompt.model)
        messages = [("system", prompt.system)] if prompt.system else []
        question = Question(chat_template.render([*messages, ("user", prompt.text)]), prompt.max_tokens)
        with self._core.begin(question) as generation:
            async with aclosing(_tokens(generation)) as tokens:
                async for token in tokens:
                    yield token
            summary = generation.summary()
        yield Finished(
            usage=summary.usage,
            finish_reason=summary.finish_reason,
            model=self._core.model,
            inference_time_ms=round((summary.prefill_s + summary.decode_s) * 1000),
        )

    def _continuable(self, call: EngineCall) -> Question:
        """The question whose answer is to be continued. Raises EngineUnsupportedError, and SimRefusedError."""
        read = RESUMED.get(call.path)
        asked = read(self._core, call.body) if read is not None else None
        if asked is None or len(asked.questions) > 1 or asked.logprobs is not None or asked.echo:
            raise EngineUnsupportedError(f"the simulated engine does not continue such answers of {call.path}")
        if asked.questions[0].says is not None:
            raise EngineUnsupportedError("the simulated engine does not continue tool calls and JSON")
        return asked.questions[0]


async def _tokens(generation: Generation) -> AsyncGenerator[Token, None]:
    """The text of an answer to its whole end. Raises EngineBrokenError, and EngineUnavailableError before it began."""
    try:
        while tokens := await generation.more():
            for token in tokens:
                yield Token(token.decode())
    except StoppedError as error:
        kind = EngineBrokenError if generation.taken else EngineUnavailableError
        raise kind(str(error)) from error
    if generation.breaks is Break.ERROR:
        raise EngineBrokenError(FAILED_MESSAGE)
    if generation.breaks is Break.CUT:
        raise EngineBrokenError("the simulated engine broke off (fault cut_after)")
