"""NeuroGate's own API, `/prompt`, on whatever engine the worker has.

It is translated here and not in the gateway, so that the gateway's path for a token is the same for every API: bytes
through. The gateway has validated the body and adds what only it knows (worker id, latency).
"""

from __future__ import annotations

from contextlib import aclosing

import msgspec

from neurogate.channel import End
from neurogate.engines.engine import MAX_ANSWER_BYTES, AnswerTooLargeError, Engine, EngineBrokenError
from neurogate.inference import Finished, Prompt, Token
from neurogate.prompt_api import UNDECODABLE, PromptAnswer, PromptDone, PromptRequest, PromptToken
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.progress import Progress

_decode = msgspec.json.Decoder(PromptRequest).decode
_encoder = msgspec.json.Encoder()


async def answer_prompt(
    engine: Engine, call: IncomingCall, outlet: Outlet, progress: Progress, *, max_answer_bytes: int = MAX_ANSWER_BYTES
) -> End:
    """Answer a `/prompt` call, streamed or whole; `max_answer_bytes` bounds the text of a whole answer.

    Raises EngineError as the engine does, and CancelledError, which stops the engine.
    """
    try:
        request = _decode(call.body)
    except UNDECODABLE as error:
        return End(http_status=400, message=str(error))
    progress.expect(request.max_tokens)
    prompt = prompt_of(request)
    text: list[str] = []
    count = held = 0
    async with aclosing(engine.generate(prompt)) as events:
        async for said in events:
            if isinstance(said, Finished):
                outlet.chunk(_last(call, request, said, "".join(text)))
                return End(http_status=200, usage=said.usage, finish_reason=said.finish_reason)
            count += 1
            progress.tokens(1)
            if request.stream:
                outlet.chunk(event(_token(call, said, count)))
                if outlet.full:
                    await outlet.room()
            else:
                text.append(said.text)
                held += len(said.text.encode("utf-8", "replace"))
                if held > max_answer_bytes:
                    raise AnswerTooLargeError(max_answer_bytes)
    raise EngineBrokenError("the engine's answer ended without its end mark")


def prompt_of(request: PromptRequest) -> Prompt:
    """What to ask an engine."""
    return Prompt(
        request.query, request.model or "", request.system_prompt or "", request.max_tokens, request.temperature
    )


def done_of(request_id: str, finished: Finished) -> PromptDone:
    """The last event of a whole stream."""
    usage = finished.usage
    return PromptDone(
        request_id=request_id,
        model=finished.model,
        finish_reason=finished.finish_reason,
        tokens=usage.total_tokens,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        inference_time_ms=finished.inference_time_ms,
    )


def event(message: PromptToken | PromptDone) -> bytes:
    """One event of a stream."""
    return b"data: " + _encoder.encode(message) + b"\n\n"


def _token(call: IncomingCall, token: Token, count: int) -> PromptToken:
    return PromptToken(request_id=call.request_id, token=token.text, tokens_generated=count)


def _last(call: IncomingCall, request: PromptRequest, finished: Finished, text: str) -> bytes:
    if request.stream:
        return event(done_of(call.request_id, finished))
    usage = finished.usage
    return _encoder.encode(
        PromptAnswer(
            request_id=call.request_id,
            response=text,
            model=finished.model,
            tokens=usage.total_tokens,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            finish_reason=finished.finish_reason,
            inference_time_ms=finished.inference_time_ms,
        )
    )
