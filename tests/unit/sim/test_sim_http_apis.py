"""llama.cpp's and Ollama's APIs of the simulated engine, asked without sockets on virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from neurogate.engines.sim import chat_template, http_answer, tokenizer
from neurogate.engines.sim.core import CONTEXT_TOKENS
from neurogate.engines.sim.server import build_app
from neurogate.engines.sim.vectors import embedding
from neurogate.virtual_time import run
from sim_support import WALL_S, Answered, AsgiCall, ask, events, live, settings


def with_app(test: Callable[[Any], Awaitable[None]], *, model: str = "sim", seed: int = 1, **given: Any) -> None:
    """Run a test against a started app, and check that no slot is left taken."""

    async def main() -> None:
        async with live(build_app(settings(**given), model=model, rng=random.Random(seed), now=lambda: WALL_S)) as app:
            await test(app)
            if (await ask(app, "GET", "/health")).status == 200:
                slots = (await ask(app, "GET", "/slots")).json()
                assert [slot["is_processing"] for slot in slots] == [False] * len(slots)

    run(main())


def answered(method: str, path: str, body: bytes | dict[str, Any] = b"", **given: Any) -> Answered:
    """One answer of a fresh app."""
    got = []

    async def test(app: Any) -> None:
        got.append(await ask(app, method, path, body))

    with_app(test, **given)
    return got[0]


def lines(answer: Answered) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


# llama.cpp


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
def test_health_is_ok(path: str) -> None:
    answer = answered("GET", path)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_the_model_is_listed(path: str) -> None:
    answer = answered("GET", path, model="tiny").json()
    assert answer["object"] == "list"
    [model] = answer["data"]
    assert (model["id"], model["object"], model["created"]) == ("tiny", "model", int(WALL_S))


def test_props_tell_slots_context_and_template() -> None:
    props = answered("GET", "/props", slots=3).json()
    assert props["total_slots"] == 3
    assert props["default_generation_settings"]["n_ctx"] == CONTEXT_TOKENS
    assert props["model_alias"] == "sim"
    assert props["chat_template"] == chat_template.TEMPLATE
    assert "sim" in props["build_info"]


def test_tokenize_and_detokenize_are_inverse() -> None:
    async def test(app: Any) -> None:
        text = "Hello wörld, 12345!"
        ids = (await ask(app, "POST", "/tokenize", {"content": text})).json()["tokens"]
        assert len(ids) == tokenizer.count(text)
        assert (await ask(app, "POST", "/detokenize", {"tokens": ids})).json() == {"content": text}
        named = (await ask(app, "POST", "/tokenize", {"content": text, "with_pieces": True})).json()["tokens"]
        assert [token["id"] for token in named] == ids
        assert "".join(token["piece"] for token in named) == text

    with_app(test)


def test_detokenize_refuses_what_is_no_id() -> None:
    answer = answered("POST", "/detokenize", {"tokens": [1]})
    assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_native_completion_streams_without_a_done_mark() -> None:
    answer = answered("POST", "/completion", {"prompt": "Once upon a time", "n_predict": 3, "stream": True})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert b"[DONE]" not in answer.body
    *tokens, last = events(answer.body)
    assert [token["tokens_predicted"] for token in tokens] == [1, 2, 3]
    assert all(tokenizer.decode(token["tokens"]) == token["content"] for token in tokens)
    assert not any(token["stop"] for token in tokens)
    assert (last["stop"], last["stop_type"], last["content"], last["id_slot"]) == (True, "limit", "", 0)
    prompt_tokens = tokenizer.count("Once upon a time")
    assert (last["tokens_evaluated"], last["tokens_predicted"]) == (prompt_tokens, 3)
    assert last["timings"]["prompt_n"] == prompt_tokens
    assert last["timings"]["predicted_per_second"] == pytest.approx(50)


@pytest.mark.parametrize("limit", [{}, {"n_predict": -1}, {"n_predict": 90}])
def test_a_whole_native_completion_ends_by_itself(limit: dict[str, int]) -> None:
    answer = answered("POST", "/completion", {"prompt": "Once upon", **limit}).json()
    assert (answer["stop"], answer["stop_type"]) == (True, "eos")
    assert tokenizer.count(answer["content"]) == answer["tokens_predicted"]


def test_an_interrupted_chat_is_continued_by_a_native_completion() -> None:
    """As a worker resumes on llama.cpp: the chat's template once, then the prompt with the text so far."""

    async def test(app: Any) -> None:
        messages = [{"role": "user", "content": "Tell me a story"}]
        whole = (await ask(app, "POST", "/v1/chat/completions", {"messages": messages})).json()
        text = whole["choices"][0]["message"]["content"]
        half = (await ask(app, "POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 9})).json()
        said = half["choices"][0]["message"]["content"]
        prompt = (await ask(app, "POST", "/apply-template", {"messages": messages})).json()["prompt"]
        rest = (await ask(app, "POST", "/completion", {"prompt": prompt + said})).json()
        assert said + rest["content"] == text
        assert rest["stop_type"] == "eos"

    with_app(test)


def test_slots_and_metrics_tell_what_happens() -> None:
    async def test(app: Any) -> None:
        calls = [AsgiCall(app, "POST", "/completion", {"prompt": "Hello", "stream": True}) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call.run())
            await calls[0].sent.wait()
            [slot] = (await ask(app, "GET", "/slots")).json()
            assert (slot["is_processing"], slot["next_token"][0]["n_decoded"]) == (True, 1)
            refused = await ask(app, "GET", "/slots?fail_on_no_slot=1")
            assert (refused.status, refused.json()["error"]["type"]) == (503, "unavailable_error")
            during = (await ask(app, "GET", "/metrics")).body.decode()
            assert "\nllamacpp:requests_processing 1\n" in during
            assert "\nllamacpp:requests_deferred 1\n" in during
        assert (await ask(app, "GET", "/slots?fail_on_no_slot=1")).status == 200
        after = await ask(app, "GET", "/metrics")
        assert after.headers["content-type"].startswith("text/plain; version=0.0.4")
        said = sum(len(events(call.answered.body)) - 1 for call in calls)
        assert f"\nllamacpp:tokens_predicted_total {said}\n" in after.body.decode()
        assert "# TYPE llamacpp:prompt_tokens_total counter\n" in after.body.decode()
        assert "\nllamacpp:n_busy_slots_per_decode 1.0\n" in after.body.decode()

    with_app(test, slots=1)


def test_metrics_of_an_idle_engine_are_zero() -> None:
    assert "\nllamacpp:predicted_tokens_seconds 0.0\n" in answered("GET", "/metrics").body.decode()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nope"), ("GET", "/v1/chat/completions"), ("DELETE", "/slots"), ("POST", "/v2/x")]
)
def test_other_paths_and_methods_are_not_found(method: str, path: str) -> None:
    answer = answered(method, path)
    assert answer.status == 404
    assert answer.json() == {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completion", b"{"),
        ("/completion", b"{}"),
        ("/completion", b'{"prompt":"a","n_predict":"many"}'),
        ("/tokenize", b"["),
        ("/apply-template", b'{"messages":1}'),
    ],
)
def test_a_wrong_native_body_is_refused(path: str, body: bytes) -> None:
    answer = answered("POST", path, body)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["type"]) == (400, 400, "invalid_request_error")


def test_a_native_prompt_over_the_context_is_refused_by_name() -> None:
    answer = answered("POST", "/completion", {"prompt": "!" * (CONTEXT_TOKENS + 1)})
    assert (answer.status, answer.json()["error"]["type"]) == (400, "exceed_context_size_error")


# Ollama


def test_ollama_says_that_it_runs() -> None:
    answer = answered("GET", "/")
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert "version" in answered("GET", "/api/version").json()


def test_ollama_lists_the_model_with_its_tag() -> None:
    [model] = answered("GET", "/api/tags", model="tiny").json()["models"]
    assert model["name"] == model["model"] == "tiny:latest"
    [tagged] = answered("GET", "/api/tags", model="tiny:1b").json()["models"]
    assert tagged["name"] == "tiny:1b"


def test_generate_streams_lines_with_a_truthful_account() -> None:
    answer = answered(
        "POST",
        "/api/generate",
        {"model": "sim", "prompt": "Hello", "options": {"num_predict": 5}},
        prefill_tps=100,
        decode_tps=10,
    )
    *tokens, last = lines(answer)
    assert [token["done"] for token in tokens] == [False] * 5
    assert tokens[0]["created_at"] == "2023-11-14T22:13:20.500000Z"
    said = "".join(token["response"] for token in tokens)
    prompt = chat_template.render([("user", "Hello")])
    prompt_tokens = tokenizer.count(prompt)
    assert last == {
        "model": "sim",
        "created_at": "2023-11-14T22:13:20.500000Z",
        "response": "",
        "done": True,
        "done_reason": "length",
        "context": tokenizer.encode(prompt + said),
        "total_duration": last["prompt_eval_duration"] + last["eval_duration"],
        "prompt_eval_count": prompt_tokens,
        "prompt_eval_duration": pytest.approx(prompt_tokens * 10_000_000),
        "eval_count": 5,
        "eval_duration": pytest.approx(500_000_000),
    }


def test_the_time_in_the_queue_counts_in_the_total() -> None:
    async def test(app: Any) -> None:
        body = {"model": "sim", "prompt": "Hello", "stream": False, "options": {"num_predict": 10}}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(app, "POST", "/api/generate", body)) for _ in range(2)]
        first, second = (task.result().json() for task in tasks)
        assert second["eval_duration"] == pytest.approx(first["eval_duration"])
        assert second["total_duration"] == pytest.approx(2 * first["total_duration"], rel=0.01)

    with_app(test, slots=1, decode_tps=10)


def test_what_took_no_time_is_left_out() -> None:
    answer = answered(
        "POST", "/api/generate", {"model": "sim", "prompt": "Hello", "raw": True}, prefill_tps=0, decode_tps=0
    )
    last = lines(answer)[-1]
    assert set(last) == {"model", "created_at", "response", "done", "done_reason", "prompt_eval_count", "eval_count"}


def test_chat_says_what_openais_chat_says() -> None:
    async def test(app: Any) -> None:
        messages = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hello"}]
        streamed = lines(await ask(app, "POST", "/api/chat", {"model": "sim", "messages": messages}))
        whole = await ask(app, "POST", "/api/chat", {"model": "sim", "messages": messages, "stream": False})
        openai = (await ask(app, "POST", "/v1/chat/completions", {"messages": messages})).json()
        text = openai["choices"][0]["message"]["content"]
        assert "".join(line["message"]["content"] for line in streamed) == text
        assert whole.headers["content-type"] == "application/json"
        assert whole.json()["message"] == {"role": "assistant", "content": text}
        assert (whole.json()["done"], whole.json()["done_reason"]) == (True, "stop")
        assert "context" not in whole.json()

    with_app(test)


def test_the_context_of_an_answer_continues_the_conversation() -> None:
    async def test(app: Any) -> None:
        first = await ask(app, "POST", "/api/generate", {"model": "sim", "prompt": "One", "stream": False})
        context = first.json()["context"]
        plain = {"model": "sim", "prompt": "Two", "stream": False}
        alone = (await ask(app, "POST", "/api/generate", plain)).json()
        after = (await ask(app, "POST", "/api/generate", {**plain, "context": context})).json()
        assert after["response"] != alone["response"]
        assert after["prompt_eval_count"] == alone["prompt_eval_count"] + len(context)
        broken = await ask(app, "POST", "/api/generate", {**plain, "context": [1]})
        assert (broken.status, "context" in broken.json()["error"]) == (400, True)

    with_app(test)


def test_a_raw_prompt_has_no_template() -> None:
    async def test(app: Any) -> None:
        body = {"model": "sim", "prompt": "Hello", "raw": True, "stream": False}
        answer = (await ask(app, "POST", "/api/generate", body)).json()
        assert answer["prompt_eval_count"] == tokenizer.count("Hello")
        refused = await ask(app, "POST", "/api/generate", {**body, "system": "x"})
        assert refused.json() == {"error": "raw mode does not support template, system, or context"}

    with_app(test)


def test_a_system_prompt_changes_the_answer() -> None:
    async def test(app: Any) -> None:
        body = {"model": "sim", "prompt": "Hello", "stream": False}
        plain = (await ask(app, "POST", "/api/generate", body)).json()
        system = (await ask(app, "POST", "/api/generate", {**body, "system": "Be kind"})).json()
        assert system["response"] != plain["response"]

    with_app(test)


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", "0m0s"])
def test_an_empty_question_loads_and_unloads_the_model(keep_alive: Any) -> None:
    async def test(app: Any) -> None:
        async def loaded() -> int:
            return len((await ask(app, "GET", "/api/ps")).json()["models"])

        assert await loaded() == 1
        unloaded = await ask(app, "POST", "/api/generate", {"model": "sim", "keep_alive": keep_alive})
        assert (unloaded.json()["done_reason"], unloaded.json()["response"]) == ("unload", "")
        assert await loaded() == 0
        load = await ask(app, "POST", "/api/chat", {"model": "sim", "keep_alive": "5m"})
        assert load.json()["done_reason"] == "load"
        assert load.json()["message"] == {"role": "assistant", "content": ""}
        [model] = (await ask(app, "GET", "/api/ps")).json()["models"]
        assert (model["expires_at"], model["context_length"]) == ("2023-11-14T22:18:20.500000Z", CONTEXT_TOKENS)
        await ask(app, "POST", "/api/chat", {"model": "sim", "keep_alive": keep_alive})
        messages = [{"role": "user", "content": "Hello"}]
        await ask(app, "POST", "/api/chat", {"model": "sim", "messages": messages})
        assert await loaded() == 1

    with_app(test)


def test_show_describes_the_model() -> None:
    shown = answered("POST", "/api/show", {"model": "sim:latest"}).json()
    assert shown["model_info"]["sim.context_length"] == CONTEXT_TOKENS
    assert "completion" in shown["capabilities"]


def test_embeddings_are_unit_vectors_of_their_texts() -> None:
    answer = answered("POST", "/api/embed", {"model": "sim", "input": ["a", "b"]}).json()
    assert answer["embeddings"] == [embedding("a"), embedding("b")]
    assert answer["prompt_eval_count"] == 2
    assert embedding("a") != embedding("b")
    assert sum(value * value for value in embedding("a")) == pytest.approx(1)
    assert answered("POST", "/api/embed", {"model": "sim", "input": "a"}).json()["embeddings"] == [embedding("a")]


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/api/generate", b"{", 400, "not valid JSON"),
        ("/api/generate", b'{"model":"sim","prompt":5}', 400, "prompt: Expected `str`"),
        ("/api/generate", b'{"prompt":"x"}', 400, "model is required"),
        ("/api/generate", b'{"model":"gpt","prompt":"x"}', 404, "model 'gpt' not found"),
        ("/api/chat", b'{"model":"gpt","messages":[]}', 404, "model 'gpt' not found"),
        ("/api/show", b'{"name":"gpt"}', 404, "model 'gpt' not found"),
        ("/api/embed", b'{"model":"gpt","input":"x"}', 404, "model 'gpt' not found"),
    ],
)
def test_ollamas_refusals_are_one_text(path: str, body: bytes, status: int, told: str) -> None:
    answer = answered("POST", path, body)
    assert (answer.status, list(answer.json())) == (status, ["error"])
    assert told in answer.json()["error"]


# Faults and clients that go away


@pytest.mark.parametrize("faults", ["refuse=1", "slow_start=5"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("POST", "/completion"), ("GET", "/nope")])
def test_while_it_is_not_ready_every_path_answers_503(faults: str, method: str, path: str) -> None:
    answer = answered(method, path, faults=faults)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["type"]) == (503, 503, "unavailable_error")
    assert error["message"] == ("Loading model" if "slow" in faults else "Refusing (fault refuse)")
    assert answered("GET", "/api/tags", faults=faults).json() == {"error": error["message"]}


def test_it_is_ready_when_it_has_loaded() -> None:
    async def test(app: Any) -> None:
        assert (await ask(app, "GET", "/health")).status == 503
        await asyncio.sleep(5)
        assert (await ask(app, "GET", "/health")).status == 200

    with_app(test, faults="slow_start=5")


GENERATE = {"model": "sim", "prompt": "Hello"}
COMPLETION = {"prompt": "Hello"}


def test_faults_before_the_first_byte_are_http_errors() -> None:
    busy = answered("POST", "/completion", {**COMPLETION, "stream": True}, faults="busy=1")
    assert (busy.status, busy.headers["retry-after"]) == (503, "1")
    assert busy.json()["error"]["type"] == "unavailable_error"
    failed = answered("POST", "/api/generate", GENERATE, faults="error=1")
    assert (failed.status, failed.json()) == (500, {"error": "simulated failure (fault error)"})
    native = answered("POST", "/completion", COMPLETION, faults="error=1")
    assert (native.status, native.json()["error"]["type"]) == (500, "server_error")


def test_a_cut_stream_ends_cleanly_without_its_end() -> None:
    ollama = answered("POST", "/api/generate", GENERATE, faults="cut_after=3")
    assert [line["done"] for line in lines(ollama)] == [False] * 3
    assert ollama.complete
    native = answered("POST", "/completion", {**COMPLETION, "stream": True}, faults="cut_after=3")
    assert [event["stop"] for event in events(native.body)] == [False] * 3
    assert native.complete
    assert answered("POST", "/api/generate", GENERATE, faults="cut_after=0").body == b""


def test_a_cut_whole_answer_breaks_the_connection_off() -> None:
    answer = answered("POST", "/completion", COMPLETION, faults="cut_after=3")
    assert not answer.complete
    assert int(answer.headers["content-length"]) > len(answer.body)


def test_a_failure_after_the_first_token_is_an_error_event() -> None:
    ollama = lines(answered("POST", "/api/chat", {**GENERATE, "messages": [{"role": "user"}]}, faults="error_after=2"))
    assert ollama[-1] == {"error": "simulated failure (fault error_after)"}
    assert len(ollama) == 3
    native = events(answered("POST", "/completion", {**COMPLETION, "stream": True}, faults="error_after=2").body)
    assert native[-1]["error"]["code"] == 500


def test_an_engine_that_stops_breaks_its_streams_off() -> None:
    async def main() -> None:
        app = build_app(settings(slots=1), rng=random.Random(1), now=lambda: WALL_S)
        streaming = AsgiCall(app, "POST", "/completion", {**COMPLETION, "stream": True})
        waiting = AsgiCall(app, "POST", "/completion", {**COMPLETION, "stream": True})
        async with asyncio.TaskGroup() as group, live(app):
            group.create_task(streaming.run())
            group.create_task(waiting.run())
            await streaming.sent.wait()
        assert not streaming.answered.complete
        assert waiting.answered.status == 503

    run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot_at_once(*, stream: bool) -> None:
    async def test(app: Any) -> None:
        call = AsgiCall(app, "POST", "/completion", {**COMPLETION, "stream": stream})
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call.run())
            await asyncio.sleep(0.2)
            assert (await ask(app, "GET", "/slots?fail_on_no_slot=1")).status == 503
            call.gone.set()
            await task
            assert (await ask(app, "GET", "/slots?fail_on_no_slot=1")).status == 200
        assert not call.answered.complete

    with_app(test, slots=1, faults="hang_after=3")


@pytest.mark.parametrize("path", ["/completion", "/tokenize"])
def test_a_client_that_goes_away_with_its_question_is_forgotten(path: str) -> None:
    async def test(app: Any) -> None:
        call = AsgiCall(app, "POST", path)
        call._asked = True
        call.gone.set()
        assert (await call.run()).status == 0

    with_app(test)


@pytest.mark.parametrize("path", ["/completion", "/tokenize"])
def test_a_body_over_the_limit_is_refused(path: str) -> None:
    answer = answered("POST", path, b" " * (http_answer.BODY_BYTES_MAX + 1))
    assert (answer.status, answer.json()["error"]["code"]) == (413, 413)


OLLAMA_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"required": ["city"], "properties": {"city": {"type": "string"}}},
        },
    }
]
WEATHER = [{"role": "user", "content": "What's the weather?"}]


def test_an_ollama_chat_calls_a_tool() -> None:
    asked = {"model": "sim", "messages": WEATHER, "tools": OLLAMA_TOOLS}
    called = {"function": {"name": "get_weather", "arguments": {"city": "[sim]"}}}
    call, last = lines(answered("POST", "/api/chat", asked))
    assert call["message"]["tool_calls"] == [called]
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "stop", "")
    whole = answered("POST", "/api/chat", {**asked, "stream": False}).json()
    assert whole["message"] == {"role": "assistant", "content": "", "tool_calls": [called]}
    cut = answered("POST", "/api/chat", {**asked, "stream": False, "options": {"num_predict": 2}}).json()
    assert (cut["message"], cut["done_reason"]) == ({"role": "assistant", "content": '{"'}, "length")


def test_an_ollama_chat_takes_a_tools_result() -> None:
    turns = [*WEATHER, {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather"}}]},
             {"role": "tool", "content": "sunny"}]  # fmt: skip
    asked = {"model": "sim", "messages": turns, "tools": OLLAMA_TOOLS, "stream": False}
    assert answered("POST", "/api/chat", asked).json()["message"]["content"].startswith("[sim]")


@pytest.mark.parametrize(
    ("wanted", "expected"), [("json", {"answer": "[sim]"}), ({"type": "array", "maxItems": 2}, [])]
)
def test_ollama_answers_in_json_when_asked_to(wanted: Any, expected: Any) -> None:
    chat = {"model": "sim", "messages": WEATHER, "format": wanted, "stream": False}
    assert json.loads(answered("POST", "/api/chat", chat).json()["message"]["content"]) == expected
    generate = {"model": "sim", "prompt": "x", "format": wanted, "stream": False}
    assert json.loads(answered("POST", "/api/generate", generate).json()["response"]) == expected


def test_another_format_of_ollama_is_refused() -> None:
    answer = answered("POST", "/api/generate", {"model": "sim", "prompt": "x", "format": "yaml"})
    assert (answer.status, "format" in answer.json()["error"]) == (400, True)


def test_images_and_stop_texts_count_for_ollama() -> None:
    asked = {"model": "sim", "prompt": "x", "stream": False}
    plain = answered("POST", "/api/generate", asked).json()
    seen = answered("POST", "/api/generate", {**asked, "images": ["AAAA"]}).json()
    assert seen["prompt_eval_count"] > plain["prompt_eval_count"]
    stopped = answered("POST", "/api/generate", {**asked, "options": {"stop": ["."]}}).json()
    assert stopped["response"] == plain["response"].partition(".")[0]


def test_the_older_embeddings_of_ollama_are_one_vector() -> None:
    answer = answered("POST", "/api/embeddings", {"model": "sim", "prompt": "Hi"}).json()
    assert answer == {"embedding": embedding("Hi")}
    short = answered("POST", "/api/embed", {"model": "sim", "input": "Hi", "dimensions": 3}).json()
    assert len(short["embeddings"][0]) == 3
