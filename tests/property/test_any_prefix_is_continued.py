"""Whatever was asked, and wherever its answer stopped: another simulated engine says the rest, and counts the whole."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.inference import Finished, Token, Usage
from neurogate.virtual_time import run

WORDS = ["fox", " the", "e", ".", "[sim]", " quiet", "river se", "zebra", "🦊"]
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(min_size=1, max_size=40),
    chats=st.booleans(),
    limit=st.none() | st.integers(0, 120),
    stops=st.lists(st.sampled_from(WORDS), max_size=3),
    endless=st.booleans(),
    share=st.floats(0, 1),
)
def test_any_prefix_of_an_answer_is_continued_to_the_letter(
    text: str, *, chats: bool, limit: int | None, stops: list[str], endless: bool, share: float
) -> None:
    asked = {"messages": [{"role": "user", "content": text}]} if chats else {"prompt": text}
    fields = {"stop": stops, "ignore_eos": endless, "max_tokens": 50 if endless and limit is None else limit}
    call = EngineCall(CHAT if chats else COMPLETION, msgspec.json.encode({**asked, **fields}))

    async def main() -> None:
        one, other = (SimEngine(SimSettings(slots=1), rng=random.Random(1), now=lambda: 0.0) for _ in range(2))
        await one.start()
        await other.start()
        async with one.forward(call) as reply:
            whole = msgspec.json.decode(b"".join([piece async for piece in reply.body]))
        (choice,) = whole["choices"]
        answer = choice["message"]["content"] if chats else choice["text"]
        said = answer[: round(share * len(answer))]
        *events, last = [event async for event in other.resume(call, Resume(said))]
        assert said + "".join(event.text for event in events if isinstance(event, Token)) == answer
        assert isinstance(last, Finished)
        usage = Usage(whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"])
        assert (last.usage, last.finish_reason) == (usage, choice["finish_reason"])
        assert (await other.observe()).slots_busy == 0

    run(main())
