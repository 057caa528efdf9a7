"""Which answers this worker can continue, and continuing one.

The engine says what follows the text that the client has, and what the whole answer cost; a form writes that as the
API's stream goes on. So an engine need know nothing of forms, and `/prompt` and Ollama's API are continued on every
engine that can continue the answer they are translated to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from neurogate.channel import End, EndCode, Resume
from neurogate.engines.engine import Engine, EngineBrokenError, EngineCall, EngineUnsupportedError, Observation
from neurogate.engines.http import CHAT_PATH
from neurogate.inference import Finished
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.features import ignored_feature
from neurogate.worker.ollama_api import api as ollama_api
from neurogate.worker.ollama_api.asking import COMPLETION_PATH
from neurogate.worker.ollama_api.wording import Writer
from neurogate.worker.progress import Progress
from neurogate.worker.resuming import openai_form, prompt_form
from neurogate.worker.resuming.form import Continued
from neurogate.worker.resuming.ollama_form import OllamaForm

_TRANSLATED = {
    "/prompt": frozenset({CHAT_PATH}),
    "/api/chat": frozenset({CHAT_PATH}),
    "/api/generate": frozenset({CHAT_PATH, COMPLETION_PATH}),
}
"""What an engine is asked for an answer of these paths."""


def resumes_of(seen: Observation, kind: str) -> frozenset[str]:
    """The paths whose answers a worker continues: its engine's, and those that it translates to them."""
    native = ollama_api.PATHS if kind == "ollama" else frozenset()
    return seen.resumes | {
        path for path, needed in _TRANSLATED.items() if needed <= seen.resumes and path not in native
    }


class Resumption:
    """Continues answers on one engine. `now` is the wall clock in Unix seconds."""

    def __init__(self, engine: Engine, *, now: Callable[[], float], max_answer_bytes: int) -> None:
        self._engine = engine
        self._now = now
        self._max_answer_bytes = max_answer_bytes

    async def answer(
        self, call: IncomingCall, said: Resume, outlet: Outlet, progress: Progress, seen: Observation
    ) -> End:
        """Write what follows `said` in the answer to a call, on an engine that was last seen so.

        Raises EngineError as the engine does, and for requests that it cannot follow; CancelledError stops the engine.
        """
        kind = self._engine.kind
        if call.path not in resumes_of(seen, kind):
            return End(EndCode.UNSUPPORTED, message=f"the engine {kind} does not continue answers of {call.path}")
        continued = self._continued(call, said, seen)
        progress.continues()
        if continued.max_tokens is not None:
            progress.expect(max(0, continued.max_tokens - said.tokens))
        if said.usage_sent and continued.form.mark:
            outlet.chunk(continued.form.mark)
            return End(http_status=200, finish_reason=said.finish_reason)
        return await self._go_on(continued, said, outlet, progress)

    async def _go_on(self, continued: Continued, said: Resume, outlet: Outlet, progress: Progress) -> End:
        form = continued.form
        opening = form.opening()
        async with aclosing(self._engine.resume(continued.asked, said)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    outlet.chunk(opening + form.closing(event))
                    return End(
                        http_status=200, usage=event.usage, finish_reason=said.finish_reason or event.finish_reason
                    )
                if said.finish_reason:
                    raise EngineBrokenError("the engine goes on with an answer that is whole")
                progress.tokens(1)
                outlet.chunk(opening + form.piece(event.text))
                opening = b""
                if outlet.full:
                    await outlet.room()
        raise EngineBrokenError("the engine's answer ended without its end mark")

    def _continued(self, call: IncomingCall, said: Resume, seen: Observation) -> Continued:
        asked = EngineCall(call.path, call.body, call.request_id, self._max_answer_bytes)
        model = seen.models[0].name if seen.models else ""
        if call.path == "/prompt":
            return prompt_form.continued(asked, said, model=model)
        if call.path in ollama_api.PATHS:
            return self._continued_ollama(asked, said, seen)
        ignored = ignored_feature(call.body, seen.unsupported) if seen.unsupported else ""
        if ignored:
            raise EngineUnsupportedError(f"the engine {self._engine.kind} does not do {ignored!r}")
        return openai_form.continued(asked, said, model=model, now=self._now)

    def _continued_ollama(self, call: EngineCall, said: Resume, seen: Observation) -> Continued:
        conversation = ollama_api.read_conversation(call.path, call.body)
        request = conversation.request
        form = OllamaForm(
            Writer(said.model or request.model, conversation.shape, self._now), asyncio.get_running_loop()
        )
        limit = request.options.max_tokens if request.options is not None else None
        if self._engine.kind == "ollama":
            return Continued(call, form, limit)
        question = ollama_api.question_of(conversation, seen, self._engine.kind)
        asked = EngineCall(question.path, question.body, call.request_id, call.max_answer_bytes)
        return Continued(asked, form, limit)
