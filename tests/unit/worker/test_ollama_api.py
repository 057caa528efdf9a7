"""Ollama's API on a worker whose engine is not Ollama: answers, streamed and whole, and all that can break them."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.channel import End, EndCode
from neurogate.engines.engine import (
    FEATURES,
    AnswerTooLargeError,
    EngineBrokenError,
    EngineCall,
    EngineError,
    EngineRefusedError,
    EngineUnsupportedError,
    ModelInfo,
    Observation,
)
from neurogate.inference import Usage
from neurogate.testing.engines import HANG, READY, Pause, Reply, ScriptedEngine, stream
from neurogate.virtual_time import run
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.ollama_api.api import PATHS, OllamaApi, apis_of
from worker_support import NOW, FakeOutlet, Setup, incoming, progress

CHAT = "/api/chat"
GENERATE = "/api/generate"
BOTH = pytest.mark.parametrize("path", [CHAT, GENERATE])
QUESTIONS: dict[str, dict[str, Any]] = {
    CHAT: {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}]},
    GENERATE: {"model": "tiny", "prompt": "Why?"},
}
CREATED = "2023-11-14T22:13:20.500000Z"
HEAD = {"model": "tiny", "created_at": CREATED}
TIMINGS = {"cache_n": 1, "prompt_n": 2, "prompt_ms": 5.5, "predicted_n": 2, "predicted_ms": 20.25}


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    return b"data: " + json.dumps({"choices": list(choices), **fields}).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event({"delta": fields})


ROLE = delta(role="assistant", content=None)
HEL = delta(content="Hel")
LO = delta(content='lo "ö"\n')
STOP = event({"delta": {}, "finish_reason": "stop"})
USAGE = event(usage={"prompt_tokens": 3, "completion_tokens": 2}, timings=TIMINGS)
ACCOUNT = {
    "total_duration": 0,
    "load_duration": 0,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 5_500_000,
    "eval_count": 2,
    "eval_duration": 20_250_000,
}


class Asked:
    """One call and what came of it."""

    def __init__(
        self, reply: Reply, path: str = CHAT, *, seen: Observation = READY, limit: int = 10_000, **fields: Any
    ):
        self.engine = ScriptedEngine(replies=lambda _: reply)
        self.outlet = FakeOutlet()
        self.meter = Meter()
        self._call = incoming({**QUESTIONS.get(path, {}), **fields}, path=path)
        self._seen = seen
        self._limit = limit

    async def answered(self) -> End:
        api = OllamaApi(self.engine, now=lambda: NOW, max_answer_bytes=self._limit)
        try:
            return await api.answer(self._call, self.outlet, progress(WorkerMetrics(), self.meter), self._seen)
        finally:
            assert self.engine.active.value == 0

    @property
    def lines(self) -> list[Any]:
        """The JSON of each line."""
        assert self.outlet.body == b"" or self.outlet.body.endswith(b"\n")
        return [json.loads(line) for line in self.outlet.body.splitlines()]

    @property
    def whole(self) -> Any:
        """The JSON of a whole answer."""
        [body] = self.outlet.chunks
        return json.loads(body)

    @property
    def question(self) -> Any:
        [call] = self.engine.calls
        return json.loads(call.body)


def said(path: str, text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}} if path == CHAT else {"response": text}


# Answers


@BOTH
def test_a_streamed_answer_is_a_line_for_each_token_and_one_that_ends_it(path: str) -> None:
    async def main() -> None:
        asked = Asked(stream(ROLE, HEL, LO, STOP + USAGE), path)
        assert await asked.answered() == End(http_status=200, usage=Usage(3, 2), finish_reason="stop")
        assert len(asked.outlet.chunks) == 3
        assert asked.lines == [
            {**HEAD, **said(path, "Hel"), "done": False},
            {**HEAD, **said(path, 'lo "ö"\n'), "done": False},
            {**HEAD, **said(path, ""), "done": True, "done_reason": "stop", **ACCOUNT},
        ]
        assert asked.engine.calls[0].request_id == "r-1"

    run(main())


@BOTH
def test_a_whole_answer_is_one_object(path: str) -> None:
    async def main() -> None:
        asked = Asked(stream(ROLE, HEL + LO, STOP, USAGE), path, stream=False)
        assert await asked.answered() == End(http_status=200, usage=Usage(3, 2), finish_reason="stop")
        assert not asked.outlet.body.endswith(b"\n")
        assert asked.whole == {
            **HEAD,
            **said(path, 'Hello "ö"\n'),
            "done": True,
            "done_reason": "stop",
            **ACCOUNT,
        }
        assert asked.question["stream"] is True

    run(main())


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_however_the_engines_bytes_are_cut_the_lines_are_the_same(cuts: list[int]) -> None:
    async def main() -> None:
        whole = ROLE + HEL + LO + STOP + USAGE + b"data: [DONE]\n\n"
        at = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
        pieces = [whole[begin:end] for begin, end in itertools.pairwise(at) if begin < end]
        asked = Asked(stream(*pieces, done=False))
        assert (await asked.answered()).http_status == 200
        assert [line["message"]["content"] for line in asked.lines] == ["Hel", 'lo "ö"\n', ""]
        assert all(chunk.endswith(b"\n") for chunk in asked.outlet.chunks)

    run(main())


def test_a_raw_prompt_is_answered_from_completions() -> None:
    async def main() -> None:
        asked = Asked(stream(event({"text": "Hi"}), event({"text": "", "finish_reason": "length"})), GENERATE, raw=True)
        end = await asked.answered()
        assert (end.http_status, end.finish_reason, end.usage) == (200, "length", None)
        assert asked.engine.calls[0].path == "/v1/completions"
        first, last = asked.lines
        assert (first["response"], last["done_reason"], last["eval_count"]) == ("Hi", "length", 1)

    run(main())


def test_durations_that_the_engine_does_not_tell_are_measured() -> None:
    """Until the first token, and from there to the end. A prompt that nobody counted is not said to be empty."""

    async def main() -> None:
        engine = ScriptedEngine()
        opened, finishing = asyncio.Event(), asyncio.Event()
        asked = Asked(stream(ROLE, opened, HEL, LO, finishing, STOP))
        asyncio.get_running_loop().call_later(0.25, opened.set)
        asyncio.get_running_loop().call_later(1.0, finishing.set)
        await asked.answered()
        last = asked.lines[-1]
        assert (last["total_duration"], last["prompt_eval_duration"]) == (10**9, 25 * 10**7)
        assert (last["eval_duration"], last["load_duration"], last["eval_count"]) == (75 * 10**7, 0, 2)
        assert "prompt_eval_count" not in last
        assert engine.calls == []

    run(main())


@pytest.mark.parametrize("ms", ["0", "-1", "1e300"])
def test_durations_that_cannot_be_are_measured(ms: str) -> None:
    async def main() -> None:
        strange = b'data: {"choices":[],"timings":{"prompt_ms":%b,"predicted_ms":%b}}\n\n' % (ms.encode(), ms.encode())
        asked = Asked(stream(HEL, STOP, strange))
        await asked.answered()
        assert (asked.lines[-1]["prompt_eval_duration"], asked.lines[-1]["eval_duration"]) == (0, 0)

    run(main())


def test_an_answer_without_a_token_is_an_answer() -> None:
    async def main() -> None:
        asked = Asked(stream(ROLE, STOP))
        await asked.answered()
        [last] = asked.lines
        assert (last["done"], last["eval_count"], last["eval_duration"]) == (True, 0, 0)

    run(main())


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_thinking(name: str) -> None:
    async def main() -> None:
        steps = (delta(**{name: "Hm"}), delta(**{name: "."}), HEL, STOP)
        asked = Asked(stream(*steps))
        await asked.answered()
        assert [line["message"].get("thinking") for line in asked.lines] == ["Hm", ".", None, None]
        whole = Asked(stream(*steps), stream=False)
        await whole.answered()
        assert whole.whole["message"] == {"role": "assistant", "content": "Hel", "thinking": "Hm."}
        generated = Asked(stream(*steps), GENERATE, stream=False)
        await generated.answered()
        assert (generated.whole["response"], generated.whole["thinking"]) == ("Hel", "Hm.")

    run(main())


def fragment(index: int, arguments: str, **fields: Any) -> bytes:
    return delta(tool_calls=[{"index": index, "function": {"arguments": arguments, **fields}}])


CALLS = (
    delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]),
    fragment(0, '{"a":'),
    fragment(1, "", name="g"),
    fragment(0, " 1}"),
)
TOLD = [{"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": {}}}]


def test_calls_of_tools_are_told_whole_before_the_last_line() -> None:
    """Arguments are an object, not text; the reason is `stop`, as Ollama's is."""

    async def main() -> None:
        end = event({"delta": {}, "finish_reason": "tool_calls"})
        asked = Asked(stream(HEL, *CALLS, end), tools=[{"type": "function", "function": {"name": "f"}}])
        assert (await asked.answered()).finish_reason == "stop"
        first, calling, last = asked.lines
        assert first["message"] == {"role": "assistant", "content": "Hel"}
        assert (calling["message"], calling["done"]) == (
            {"role": "assistant", "content": "", "tool_calls": TOLD},
            False,
        )
        assert (last["done_reason"], last["message"]["content"]) == ("stop", "")
        whole = Asked(stream(HEL, *CALLS, end), stream=False)
        await whole.answered()
        assert whole.whole["message"] == {"role": "assistant", "content": "Hel", "tool_calls": TOLD}

    run(main())


def test_what_an_engine_writes_as_null_is_nothing() -> None:
    async def main() -> None:
        first = delta(
            content=None, tool_calls=[{"index": None, "id": None, "function": {"name": "f", "arguments": None}}]
        )
        asked = Asked(stream(first, delta(tool_calls=[{"function": None}]), event(choices=None, usage=None), STOP))
        await asked.answered()
        assert asked.lines[0]["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": {}}}]

    run(main())


@pytest.mark.parametrize("arguments", ['{"a":', "[]", "nonsense"])
def test_a_call_whose_arguments_are_no_object_breaks_the_answer(arguments: str) -> None:
    async def main() -> None:
        asked = Asked(stream(fragment(0, arguments, name="f"), STOP))
        with pytest.raises(EngineBrokenError, match="no JSON object"):
            await asked.answered()
        assert asked.outlet.chunks == []

    run(main())


def test_a_call_that_the_limit_cut_is_left_out() -> None:
    async def main() -> None:
        length = event({"delta": {}, "finish_reason": "length"})
        asked = Asked(stream(*CALLS[:2], length))
        assert (await asked.answered()).finish_reason == "length"
        [last] = asked.lines
        assert (last["done_reason"], "tool_calls" in last["message"]) == ("length", False)

    run(main())


def test_log_probabilities_are_told_with_their_tokens() -> None:
    async def main() -> None:
        other = {"token": "H", "logprob": -2.0, "bytes": [72]}
        token = {
            "id": 7,
            "token": "Hel",
            "logprob": -0.5,
            "bytes": [72, 101, 108],
            "top_logprobs": [{"id": 1, **other}],
        }
        plain = {"token": "lo", "logprob": -0.25}
        steps = (
            event({"delta": {"content": "Hel"}, "logprobs": {"content": [token]}}),
            event({"delta": {"content": "lo"}, "logprobs": {"content": [plain]}}),
            event({"delta": {"content": "!"}, "logprobs": {"content": None}}),
            STOP,
        )
        del token["id"]
        expected = [{**token, "top_logprobs": [other]}]
        asked = Asked(stream(*steps), logprobs=True)
        await asked.answered()
        assert [line.get("logprobs") for line in asked.lines] == [expected, [plain], None, None]
        whole = Asked(stream(*steps), logprobs=True, stream=False)
        await whole.answered()
        assert whole.whole["logprobs"] == [*expected, plain]

    run(main())


@pytest.mark.parametrize("asked_for", ["tiny", "tiny:latest"])
def test_the_engine_is_asked_for_the_name_it_knows_and_the_client_sees_its_own(asked_for: str) -> None:
    async def main() -> None:
        asked = Asked(stream(HEL, STOP), model=asked_for)
        await asked.answered()
        assert asked.question["model"] == "tiny"
        assert {line["model"] for line in asked.lines} == {asked_for}

    run(main())


# Nothing to answer


@BOTH
@pytest.mark.parametrize("keep_alive", ["5m", 0, None])
def test_nothing_asked_means_to_load_and_the_model_is_loaded(path: str, keep_alive: Any) -> None:
    """It stays loaded whatever `keep_alive` says, and is not said to be unloaded."""

    async def main() -> None:
        empty: dict[str, Any] = {"messages": []} if path == CHAT else {"prompt": ""}
        loaded = {**HEAD, **said(path, ""), "done": True, "done_reason": "load"}
        asked = Asked(Reply(), path, keep_alive=keep_alive, **empty)
        assert await asked.answered() == End(http_status=200)
        assert asked.lines == [loaded]
        whole = Asked(Reply(), path, stream=False, **empty)
        await whole.answered()
        assert whole.whole == loaded
        assert asked.engine.calls == whole.engine.calls == []

    run(main())


# What breaks


@BOTH
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((HEL,), "without its end mark"),
        ((), "without its end mark"),
        ((HEL, STOP), "without its end mark"),
        ((HEL, b'data: {"error":{"message":"out of memory"}}\n\n', LO), "reported: out of memory"),
        ((HEL, EngineBrokenError("broke off")), "broke off"),
        ((HEL, b'data: {"choices":"x"}\n\n'), "no chat completion"),
        ((HEL, b"data: nonsense\n\n"), "no event: 'data: nonsense"),
    ],
)
def test_a_broken_answer_never_looks_whole(path: str, streamed: bool, steps: list[bytes | Pause], told: str) -> None:
    async def main() -> None:
        asked = Asked(stream(*steps, done=False), path, stream=streamed)
        with pytest.raises(EngineBrokenError, match=told):
            await asked.answered()
        assert b'"done":true' not in asked.outlet.body
        if not streamed:
            assert asked.outlet.chunks == []

    run(main())


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_a_cut_stream_is_broken_wherever_it_is_cut(length: int) -> None:
    async def main() -> None:
        asked = Asked(stream((HEL + STOP)[:length], done=False))
        with pytest.raises(EngineBrokenError):
            await asked.answered()

    run(main())


def test_an_answer_that_is_no_stream_is_broken() -> None:
    async def main() -> None:
        for reply, kind in ((Reply([b"{}"]), "application/json"), (Reply([b"x"], content_type=""), "something")):
            with pytest.raises(EngineBrokenError, match=f"answered with {kind}"):
                await Asked(reply).answered()

    run(main())


def test_the_engines_refusal_is_raised_with_its_message() -> None:
    async def main() -> None:
        body = b'{"error":{"message":"the context is full"}}'
        with pytest.raises(EngineRefusedError, match="the context is full") as refused:
            await Asked(Reply([body], status=400, retry_after_s=2)).answered()
        assert (refused.value.status, refused.value.retry_after_s) == (400, 2)

    run(main())


def test_what_is_nested_too_deeply_is_a_bad_request() -> None:
    """However deep exactly: what can just be read may be too deep for the question to the engine."""

    async def main() -> None:
        for depth in (*range(900, 1010), 100_000):
            api = OllamaApi(engine := ScriptedEngine(), now=lambda: NOW, max_answer_bytes=1000)
            deep = b'{"a":' * depth + b"1" + b"}" * depth
            body = b'{"model":"tiny","prompt":"x","suffix":"y","format":' + deep + b"}"
            chat = b'{"model":"tiny","messages":[{"role":"user"}],"format":' + deep + b"}"
            for path, asked in ((GENERATE, body), (CHAT, chat)):
                with pytest.raises(EngineError):
                    await api.answer(incoming(asked, path=path), FakeOutlet(), progress(), READY)
            assert len(engine.calls) <= 1

    run(main())


def test_a_whole_answer_is_held_within_the_limit() -> None:
    async def main() -> None:
        reply = stream(delta(content="ö" * 10), STOP)
        await Asked(reply, limit=20, stream=False).answered()
        with pytest.raises(AnswerTooLargeError):
            await Asked(reply, limit=19, stream=False).answered()
        await Asked(reply, limit=1).answered()
        with pytest.raises(AnswerTooLargeError):
            await Asked(stream(fragment(0, "x" * 30, name="f")), limit=20).answered()

    run(main())


def test_a_gateway_that_reads_slowly_pauses_the_engine() -> None:
    async def main() -> None:
        asked = Asked(stream(HEL, LO, STOP))
        asked.outlet = FakeOutlet(limit=1)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(asked.answered())
            await asyncio.sleep(1)
            assert len(asked.outlet.chunks) == 1
            asked.outlet.read()
            await asyncio.sleep(1)
            asked.outlet.read()
        assert task.result().http_status == 200
        assert len(asked.outlet.chunks) == 3

    run(main())


def test_cancelling_stops_the_engine() -> None:
    async def main() -> None:
        asked = Asked(stream(HEL, HANG))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(asked.answered())
            await asyncio.sleep(1)
            task.cancel()
        assert (asked.engine.active.value, asked.engine.aborted) == (0, 1)

    run(main())


def test_the_limit_a_request_names_is_the_work_it_may_become() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        asked = Asked(stream(HEL, LO, gate, STOP), options={"num_predict": 10})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asked.answered())
            await asyncio.sleep(1)
            assert asked.meter.tokens_outstanding == 8
            gate.set()

    run(main())


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"tools": [{"function": {"name": "f"}}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"format": "json"}, "json_object"),
        ({"format": {"type": "object"}}, "json_schema"),
        ({"messages": [{"role": "user", "content": "What?", "images": ["iVBORw0KGgo="]}]}, "images"),
    ],
)
def test_what_the_engine_would_ignore_is_not_supported(fields: dict[str, Any], feature: str) -> None:
    async def main() -> None:
        cannot = Observation(ready=True, models=READY.models, unsupported=FEATURES)
        asked = Asked(stream(HEL, STOP), seen=cannot, **fields)
        with pytest.raises(EngineUnsupportedError, match=feature):
            await asked.answered()
        assert asked.engine.calls == []
        can = Asked(stream(HEL, STOP), seen=Observation(ready=True, unsupported=FEATURES - {feature}), **fields)
        await can.answered()

    run(main())


# Embeddings


def vectors(*found: list[float], tokens: int | None = 4) -> Reply:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found)]
    usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if tokens is not None else {}
    return Reply([json.dumps({"data": data[::-1], **usage}).encode()])


def test_texts_are_embedded_in_their_order() -> None:
    async def main() -> None:
        asked = Asked(
            vectors([0.6, 0.8], [1.0, 0.0]), "/api/embed", model="tiny:latest", input=["a", "b"], truncate=True
        )
        assert await asked.answered() == End(http_status=200, usage=Usage(4, 0))
        assert asked.whole == {
            "model": "tiny:latest",
            "embeddings": [[0.6, 0.8], [1.0, 0.0]],
            "total_duration": 0,
            "load_duration": 0,
            "prompt_eval_count": 4,
        }
        assert asked.engine.calls == [EngineCall("/v1/embeddings", asked.engine.calls[0].body, "r-1", 10_000)]
        assert asked.question == {"model": "tiny", "input": ["a", "b"], "encoding_format": "float"}

    run(main())


def test_one_text_is_a_list_of_one() -> None:
    async def main() -> None:
        asked = Asked(vectors([1.0], tokens=None), "/api/embed", model="tiny", input="a")
        assert (await asked.answered()).usage is None
        assert asked.whole["embeddings"] == [[1.0]]
        assert "prompt_eval_count" not in asked.whole
        assert asked.question["input"] == ["a"]

    run(main())


@pytest.mark.parametrize("nothing", [None, "", []])
def test_nothing_to_embed_is_nothing_embedded(nothing: Any) -> None:
    async def main() -> None:
        asked = Asked(Reply(), "/api/embed", model="tiny", input=nothing)
        await asked.answered()
        assert (asked.whole["embeddings"], asked.engine.calls) == ([], [])

    run(main())


@pytest.mark.parametrize(
    ("vector", "dimensions", "expected"),
    [
        ([3.0, 4.0, 12.0], 2, [0.6, 0.8]),
        ([3.0, 4.0], 2, [3.0, 4.0]),
        ([3.0, 4.0], 5, [3.0, 4.0]),
        ([0.0, 1.0], 1, [0.0]),
        ([3.0, 4.0], 0, [3.0, 4.0]),
    ],
)
def test_fewer_dimensions_are_the_first_ones_at_length_one(
    vector: list[float], dimensions: int, expected: list[float]
) -> None:
    async def main() -> None:
        asked = Asked(vectors(vector), "/api/embed", model="tiny", input="a", dimensions=dimensions)
        await asked.answered()
        assert asked.whole["embeddings"] == [expected]

    run(main())


def test_the_older_embeddings() -> None:
    async def main() -> None:
        asked = Asked(vectors([0.5]), "/api/embeddings", model="tiny", prompt="a")
        assert (await asked.answered()).usage == Usage(4, 0)
        assert asked.whole == {"embedding": [0.5]}
        empty = Asked(Reply(), "/api/embeddings", model="tiny")
        await empty.answered()
        assert (empty.whole, empty.engine.calls) == ({"embedding": []}, [])

    run(main())


@pytest.mark.parametrize(
    ("reply", "error", "told"),
    [
        (Reply([b"{}"]), EngineBrokenError, "no list of embeddings"),
        (Reply([b'{"data":']), EngineBrokenError, "no list of embeddings"),
        (vectors(), EngineBrokenError, "0 embeddings for 1 texts"),
        (vectors([0.5] * 90_000), AnswerTooLargeError, "larger"),
        (Reply([b'{"error":{"message":"too long"}}'], status=400), EngineRefusedError, "too long"),
        (Reply(before=[EngineUnsupportedError("no such API")]), EngineUnsupportedError, "no such API"),
    ],
)
def test_embeddings_that_are_none(reply: Reply, error: type[Exception], told: str) -> None:
    async def main() -> None:
        for path in ("/api/embed", "/api/embeddings"):
            asked = Asked(reply, path, model="tiny", input="a", prompt="a")
            with pytest.raises(error, match=told):
                await asked.answered()
            assert asked.outlet.chunks == []

    run(main())


def test_embedding_is_offered_where_the_engine_can_do_it() -> None:
    can = Observation(ready=True, apis=frozenset({"/v1/embeddings", "/v1/rerank"}))
    assert apis_of(can) == can.apis | {"/api/embed", "/api/embeddings"}
    assert apis_of(READY) == READY.apis


# Description


FULL = ModelInfo(
    "full",
    context_length=4096,
    family="llama",
    parameters=134_515_008,
    quantization="Q4_1",
    template="{{ messages }}",
)


def test_a_model_is_shown_as_far_as_it_is_known() -> None:
    async def main() -> None:
        seen = Observation(
            ready=True,
            models=(FULL, ModelInfo("bare")),
            apis=frozenset({"/v1/embeddings"}),
            unsupported=frozenset({"images"}),
        )
        asked = Asked(Reply(), "/api/show", seen=seen, model="full:latest", verbose=True)
        assert await asked.answered() == End(http_status=200)
        assert asked.whole == {
            "details": {
                "family": "llama",
                "families": ["llama"],
                "parameter_size": "134.52M",
                "quantization_level": "Q4_1",
            },
            "model_info": {
                "general.architecture": "llama",
                "general.parameter_count": 134_515_008,
                "llama.context_length": 4096,
            },
            "capabilities": ["completion", "embedding", "tools"],
            "template": "{{ messages }}",
        }
        bare = Asked(Reply(), "/api/show", seen=Observation(ready=True, models=(ModelInfo("bare"),)), name="bare")
        await bare.answered()
        assert bare.whole == {"details": {}, "model_info": {}, "capabilities": ["completion", "tools", "vision"]}
        tiny = Asked(Reply(), "/api/show", model="tiny")
        await tiny.answered()
        assert tiny.whole["model_info"] == {"general.context_length": 512}

    run(main())


@pytest.mark.parametrize(("fields", "status"), [({"model": "other"}, 404), ({}, 400), ({"model": 1}, 400)])
def test_a_model_that_is_not_there_is_not_shown(fields: dict[str, Any], status: int) -> None:
    async def main() -> None:
        with pytest.raises(EngineRefusedError) as refused:
            await Asked(Reply(), "/api/show", **fields).answered()
        assert refused.value.status == status

    run(main())


# In the worker


@BOTH
def test_a_worker_answers_and_counts_it(path: str) -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: stream(ROLE, HEL, LO, STOP, USAGE)))
        outlet = FakeOutlet()
        end = await setup.worker.answer(incoming(QUESTIONS[path], path=path), outlet)
        assert (end.code, end.usage) == (EndCode.ANSWERED, Usage(3, 2))
        assert json.loads(outlet.body.splitlines()[-1])["created_at"] == CREATED
        assert setup.value("tokens_generated_total", model="tiny") == 2
        setup.assert_idle()

    run(main())


def test_what_the_engine_cannot_follow_ends_as_such() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine())
        for fields, code, status in (
            ({"model": "tiny", "prompt": "x", "suffix": "y"}, EndCode.UNSUPPORTED, 0),
            ({"model": "tiny", "prompt": "x", "format": "xml"}, EndCode.ANSWERED, 400),
        ):
            end = await setup.worker.answer(incoming(fields, path=GENERATE), FakeOutlet())
            assert (end.code, end.http_status) == (code, status)
            assert end.message
        setup.assert_idle()

    run(main())


def test_the_paths_are_those_of_the_table() -> None:
    assert {"/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"} == PATHS
