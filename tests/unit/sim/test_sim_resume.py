"""An answer that one simulated engine began goes on in another as if nothing had happened, on virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
)
from neurogate.engines.sim.engine import SimEngine
from neurogate.inference import Finished, Token, Usage
from neurogate.virtual_time import run
from sim_support import chat_call, chat_text, engine, events

COMPLETION = "/v1/completions"


def completion_call(prompt: Any = "Once upon a time", **fields: Any) -> EngineCall:
    return EngineCall(COMPLETION, json.dumps({"prompt": prompt, **fields}).encode(), "r1")


CALLS = {
    "chat": chat_call(),
    "chat with a limit": chat_call(max_tokens=6),
    "chat beyond its natural end": chat_call(max_tokens=130, ignore_eos=True),
    "chat with a stop text": chat_call(stop=["river", "storm", "fox", "lamp", " the", "e"], max_tokens=40),
    "chat in other scripts": chat_call("Почему небо 🦊 синее?", max_tokens=9),
    "chat that continues its own answer": EngineCall(
        "/v1/chat/completions",
        json.dumps(
            {"messages": [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "[sim]"}]}
        ).encode(),
    ),
    "completion": completion_call(),
    "completion of nothing": completion_call(max_tokens=0),
    "completion with a stop text": completion_call(stop="a"),
}


def asked(call: EngineCall, **fields: Any) -> EngineCall:
    return EngineCall(call.path, json.dumps({**json.loads(call.body), **fields}).encode(), call.request_id)


async def whole_of(made: SimEngine, call: EngineCall) -> tuple[list[str], Usage, str]:
    """Tokens, usage and finish reason of the undisturbed answer."""
    async with made.forward(asked(call, stream=True, stream_options={"include_usage": True})) as reply:
        told = events(b"".join([chunk async for chunk in reply.body]))
    choices = [choice for event in told for choice in event["choices"]]
    texts = [choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices]
    counts = told[-1]["usage"]
    usage = Usage(counts["prompt_tokens"], counts["completion_tokens"])
    return [text for text in texts if text], usage, choices[-1]["finish_reason"]


async def resumed(made: SimEngine, call: EngineCall, said: Resume) -> tuple[list[str], Finished]:
    """The tokens of the rest, and what was said at its end."""
    *tokens, last = [event async for event in made.resume(call, said)]
    assert isinstance(last, Finished)
    return [token.text for token in tokens if isinstance(token, Token)], last


@pytest.mark.parametrize("name", CALLS)
def test_from_every_token_on_the_rest_is_what_it_would_have_been(name: str) -> None:
    call = CALLS[name]

    async def main() -> None:
        async with engine(seed=1) as one, engine(seed=2, slots=1, decode_tps=7) as other:
            tokens, usage, reason = await whole_of(one, call)
            for count in range(len(tokens) + 1):
                rest, last = await resumed(other, call, Resume("".join(tokens[:count]), tokens=count))
                assert rest == tokens[count:]
                assert (last.usage, last.finish_reason, last.model) == (usage, reason, "sim")

    run(main())


@pytest.mark.parametrize("name", CALLS)
def test_of_a_text_that_is_whole_only_the_usage_is_told_and_no_slot_is_taken(name: str) -> None:
    call = CALLS[name]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with engine() as made:
            tokens, usage, reason = await whole_of(made, call)
            began_at = loop.time()
            rest, last = await resumed(made, call, Resume("".join(tokens), finish_reason=reason))
            assert (rest, last.usage, last.finish_reason, loop.time()) == ([], usage, reason, began_at)

    run(main())


def test_the_text_may_end_inside_a_token() -> None:
    async def main() -> None:
        async with engine() as made:
            tokens, usage, _ = await whole_of(made, chat_call(max_tokens=5))
            said = "".join(tokens[:3])[:-2]
            rest, last = await resumed(made, chat_call(max_tokens=5), Resume(said))
            assert said + "".join(rest) == "".join(tokens)
            assert last.usage == usage

    run(main())


def test_prompt_and_text_so_far_take_their_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        call = chat_call(max_tokens=20)
        async with engine(prefill_tps=100, decode_tps=10) as made:
            tokens, usage, _ = await whole_of(made, call)
            began_at = loop.time()
            _, last = await resumed(made, call, Resume("".join(tokens[:15])))
            prefill_s, decode_s = (usage.prompt_tokens + 15) / 100, 5 / 10
            assert loop.time() - began_at == pytest.approx(prefill_s + decode_s)
            assert last.inference_time_ms == pytest.approx((prefill_s + decode_s) * 1000, abs=1)

    run(main())


REFUSED = {
    "another text": (chat_call(), Resume("I am another model")),
    "more text than the answer has": (chat_call(max_tokens=1), Resume("[sim] and more")),
    "an end that is not its end": (chat_call(max_tokens=5), Resume("[sim]", finish_reason="length")),
    "tools": (
        chat_call(tools=[{"type": "function", "function": {"name": "sky"}}], tool_choice="required"),
        Resume("{"),
    ),
    "JSON": (chat_call(response_format={"type": "json_object"}), Resume("{")),
    "several answers": (chat_call(n=2), Resume("[sim]")),
    "several prompts": (completion_call(["a", "b"]), Resume("[sim]")),
    "probabilities": (chat_call(logprobs=True), Resume("[sim]")),
    "echo": (completion_call(echo=True), Resume("[sim]")),
    "another API": (EngineCall("/v1/messages", b"{}"), Resume("[sim]")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_continued_faithfully_is_unsupported(name: str) -> None:
    call, said = REFUSED[name]

    async def main() -> None:
        async with engine() as made:
            with pytest.raises(EngineUnsupportedError):
                await resumed(made, call, said)

    run(main())


def test_a_request_that_is_wrong_is_refused() -> None:
    async def main() -> None:
        async with engine() as made:
            with pytest.raises(EngineRefusedError) as refused:
                await resumed(made, EngineCall(COMPLETION, b"{}"), Resume("[sim]"))
            assert refused.value.status == 400

    run(main())


@pytest.mark.parametrize(
    ("faults", "error"),
    [("cut_after=2", EngineBrokenError), ("error_after=2", EngineBrokenError), ("error=1", EngineRefusedError)],
)
def test_faults_meet_a_continued_answer_too(faults: str, error: type[Exception]) -> None:
    async def main() -> None:
        async with engine(faults=faults) as made:
            with pytest.raises(error):
                await resumed(made, chat_call(), Resume("[sim]"))

    run(main())


def test_an_engine_that_is_not_ready_or_stops_says_so() -> None:
    async def main() -> None:
        async with engine(faults="refuse=1") as made:
            with pytest.raises(EngineUnavailableError):
                await resumed(made, chat_call(), Resume("[sim]"))
        async with engine(decode_tps=1) as made:
            events = made.resume(chat_call(), Resume("[sim]"))
            assert isinstance(await anext(events), Token)
            await made.stop()
            with pytest.raises(EngineBrokenError):
                await anext(events)

    run(main())


def test_closing_it_frees_the_slot() -> None:
    async def main() -> None:
        async with engine() as made:
            events = made.resume(chat_call(), Resume("[sim]"))
            await anext(events)
            assert (await made.observe()).slots_busy == 1
            await events.aclose()
            assert (await made.observe()).slots_busy == 0

    run(main())


def test_it_says_which_answers_it_continues() -> None:
    async def main() -> None:
        async with engine() as made:
            assert (await made.observe()).resumes == {"/v1/chat/completions", COMPLETION}

    run(main())


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.path != COMPLETION])
def test_llamacpps_own_api_continues_a_rendered_conversation(name: str) -> None:
    """/apply-template, then /completion with prompt and text: how a llama.cpp server is asked to go on."""
    call = CALLS[name]
    request = json.loads(call.body)

    async def post(made: SimEngine, path: str, body: dict[str, Any]) -> Any:
        async with made.forward(EngineCall(path, json.dumps(body).encode())) as reply:
            return json.loads(b"".join([chunk async for chunk in reply.body]))

    async def main() -> None:
        async with engine() as made:
            tokens, usage, reason = await whole_of(made, call)
            prompt = (await post(made, "/apply-template", {"messages": request["messages"]}))["prompt"]
            for count in range(len(tokens) + 1):
                said = "".join(tokens[:count])
                counted = len((await post(made, "/tokenize", {"content": said}))["tokens"])
                body = {key: request[key] for key in ("stop", "ignore_eos") if key in request}
                if "max_tokens" in request:
                    body["n_predict"] = request["max_tokens"] - counted
                rest = await post(made, "/completion", {"prompt": prompt + said, **body})
                assert said + rest["content"] == "".join(tokens)
                assert counted + rest["tokens_predicted"] == usage.completion_tokens
                assert rest["stop_type"] == ("limit" if reason == "length" else rest["stop_type"])

    run(main())


def test_a_streamed_and_a_continued_answer_are_labelled_alike() -> None:
    async def main() -> None:
        async with engine() as made, made.forward(chat_call(stream=True)) as reply:
            text = chat_text(b"".join([chunk async for chunk in reply.body]))
            tokens, _ = await resumed(made, chat_call(), Resume(text[:20]))
        assert text[:20] + "".join(tokens) == text

    run(main())
