"""One answer of an OpenAI-like engine, worded as Ollama's, streamed or whole.

Each event is worded as a line at once; the last one is told only when the engine's own end mark came.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from neurogate.channel import End
from neurogate.engines.engine import Engine, EngineBrokenError, EngineCall
from neurogate.engines.http import STREAM_TYPE, refusal
from neurogate.engines.payload import Timings
from neurogate.engines.sse import Ending, SseTap
from neurogate.inference import Usage
from neurogate.rpc.backend import Outlet
from neurogate.worker.ollama_api.asking import Question
from neurogate.worker.ollama_api.listening import Listener
from neurogate.worker.ollama_api.wording import Account, Said, Writer
from neurogate.worker.progress import Progress

_S_MAX = 1e9


class Terms(NamedTuple):
    """How an answer is wanted, and within what bounds."""

    streamed: bool
    request_id: str
    max_answer_bytes: int
    """Of what must be held: a whole answer's text, the calls of tools."""


class Conversation:
    """One answer, from the question to its end."""

    def __init__(self, writer: Writer, terms: Terms, *, outlet: Outlet, progress: Progress) -> None:
        self._writer = writer
        self._terms = terms
        self._outlet = outlet
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self._first_at = 0.0
        self._listener = Listener(terms.max_answer_bytes)
        self._held: list[Said] = []

    async def hold(self, engine: Engine, question: Question) -> End:
        """Ask and answer.

        Raises EngineError as the engine does, and EngineBrokenError for an answer that is not whole.
        """
        terms = self._terms
        self._progress.expect(question.max_tokens)
        asked = EngineCall(question.path, question.body, terms.request_id, terms.max_answer_bytes)
        tap = SseTap()
        async with engine.forward(asked) as reply:
            if not 200 <= reply.status < 300:
                raise await refusal(reply)
            if reply.content_type != STREAM_TYPE:
                kind = reply.content_type or "something"
                raise EngineBrokenError(f"a stream was asked for, and the engine answered with {kind} instead")
            async for data in reply.body:
                if pieces := self._listener.hear(tap.feed(data)):
                    await self._say(pieces)
                if tap.error is not None:
                    break
        ending = tap.finish()
        if ending.error is not None:
            raise EngineBrokenError(f"the engine reported: {ending.error}")
        if not ending.complete:
            raise EngineBrokenError("the engine's stream ended without its end mark")
        return self._end(ending)

    async def _say(self, pieces: list[Said]) -> None:
        self._first_at = self._first_at or self._loop.time()
        self._progress.tokens(len(pieces))
        if not self._terms.streamed:
            for said in pieces:
                self._listener.hold(len(said.text.encode("utf-8", "replace")) + len(said.thinking))
            self._held += pieces
            return
        lines = b"".join([self._writer.piece(said) for said in pieces if said.text or said.thinking])
        if lines:
            self._outlet.chunk(lines)
            if self._outlet.full:
                await self._outlet.room()

    def _end(self, ending: Ending) -> End:
        reason = "length" if ending.finish_reason == "length" else "stop"
        account = self._account(ending)
        calls = self._listener.tool_calls(reason) or None
        if self._terms.streamed:
            line = self._writer.piece(Said(tool_calls=calls)) if calls else b""
            self._outlet.chunk(line + self._writer.last(Said(), reason, account) + b"\n")
        else:
            self._outlet.chunk(self._writer.last(_joined(self._held, calls), reason, account))
        return End(http_status=200, usage=ending.usage, finish_reason=reason)

    def _account(self, ending: Ending) -> Account:
        now = self._loop.time()
        first_at = self._first_at or now
        usage = ending.usage or Usage(completion_tokens=ending.tokens)
        measured = Account(now - self._began_at, first_at - self._began_at, now - first_at, usage)
        return _timed(measured, self._listener.timings)


def _timed(measured: Account, timings: Timings | None) -> Account:
    """The engine's own durations where it tells them: they are without the queue."""
    if timings is None:
        return measured
    prompt_s, decode_s = timings.prompt_ms / 1000, timings.predicted_ms / 1000
    return measured._replace(
        prompt_s=prompt_s if 0 < prompt_s < _S_MAX else measured.prompt_s,
        decode_s=decode_s if 0 < decode_s < _S_MAX else measured.decode_s,
    )


def _joined(pieces: list[Said], calls: list[dict[str, Any]] | None) -> Said:
    return Said(
        "".join([said.text for said in pieces]),
        "".join([said.thinking for said in pieces]),
        calls,
        [entry for said in pieces for entry in said.logprobs or ()] or None,
    )
