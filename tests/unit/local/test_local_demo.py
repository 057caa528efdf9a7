"""The demo succeeds only when every step did."""

from __future__ import annotations

import asyncio
import shlex
import socket

import pytest

from neurogate.local import demo as demo_module
from neurogate.local.demo import Demo
from neurogate.local.request import Post, RequestError, has_curl, send


@pytest.fixture
def run_demo(prepared, make_fleet, console, nothing_left):
    """Runs the demo with fakes. Returns whether it worked and what was shown."""

    def run(*, curl: bool = False, stop: bool = False, breaker_s: float = 15, **behaviours: str) -> tuple[bool, str]:
        fleet = make_fleet(**behaviours)

        async def main() -> bool:
            stopping = asyncio.Event()
            if stop:
                stopping.set()
            return await Demo(prepared, fleet, console, curl=curl, breaker_s=breaker_s).run(stopping)

        worked = asyncio.run(main())
        nothing_left(fleet)
        return worked, console.file.getvalue()

    return run


def test_every_step_is_shown_and_works(run_demo, prepared):
    worked, shown = run_demo(curl=has_curl())

    assert worked
    assert f"$ curl -sS -X POST {prepared.plan.url}/prompt \\" in shown
    assert "-H 'Authorization: Bearer neurogate-secret-key-1' \\" in shown
    assert '{"response": "a long and honest answer' in shown
    assert "Why is the sky blue? \n(the text of 5 events, as they arrived)" in shown
    assert "Why is the  [worker-0 is killed] sky blue?" in shown
    assert "another worker went on where worker-0 stopped: letter by letter the answer from before" in shown
    assert "What is gravity? → a long and honest answer to the question What is …" in shown
    assert "all 4 prompts were answered, and the breaker of worker-0 is open" in shown
    assert "no process is left, and every port is free again" in shown
    assert shown.endswith("All of it worked.\n")


def test_machine_without_curl_sends_the_same_request(run_demo):
    worked, shown = run_demo(curl=False)

    assert worked
    assert "(curl is not installed; the very same request is sent without it)" in shown


@pytest.mark.parametrize(
    ("behaviours", "told"),
    [
        ({"worker_1": "die"}, "worker-1 ended with exit code 1"),
        ({"gateway": "error-body"}, 'this is no answer: {"error": "broken"}'),
        ({"gateway": "empty"}, "the answer is empty"),
        ({"gateway": "cut-stream"}, "the stream did not end as it should"),
        ({"gateway": "one-piece"}, "the stream had only 1 piece(s) of text"),
        ({"gateway": "nameless"}, "no worker was killed"),
        ({"gateway": "not-continued"}, "the answer was over before its worker died"),
        ({"gateway": "no-breaker", "breaker_s": 0.5}, "the breaker of worker-0 is 'closed', and not open"),
        ({"gateway": "vanish"}, "POST http://127.0.0.1:"),
        ({"worker_1": "orphan"}, "these did not end by themselves: "),
    ],
)
def test_step_that_fails_fails_the_demo_with_the_logs(run_demo, behaviours, told):
    worked, shown = run_demo(**behaviours)

    assert not worked
    assert f"The demo failed: {told}" in shown
    assert "worker says hello" in shown
    assert "All of it worked" not in shown


def test_it_can_be_stopped_early(run_demo):
    worked, shown = run_demo(stop=True)

    assert not worked
    assert "stopped before its end" in shown


def test_gateway_that_is_gone_has_no_status(prepared, make_fleet, console):
    fleet = make_fleet()

    async def ask() -> None:
        async with fleet:
            fleet.gateway.signal(9)
            await fleet.gateway.ended()
            await Demo(prepared, fleet, console, curl=False)._state()

    with pytest.raises(demo_module.DemoError, match="ops port does not answer"):
        asyncio.run(ask())


def test_listener_that_stays_is_found(prepared, make_fleet, console):
    host, port = prepared.plan.listeners[0]
    demo = Demo(prepared, make_fleet(), console, curl=False)
    with socket.create_server((host, port)), pytest.raises(demo_module.DemoError, match="somebody still listens on"):
        demo._check_nothing_is_left()


def test_shown_command_is_the_command(tmp_path):
    post = Post(url="http://127.0.0.1:1/prompt", key="it's", body={"query": "a 'b'"})

    assert shlex.split(post.shown().replace("\\\n", " ")) == post.command


@pytest.mark.parametrize("curl", [has_curl(), False])
def test_answer_that_does_not_come_is_an_error(curl):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        post = Post(url=f"http://127.0.0.1:{silent.getsockname()[1]}/prompt", key="", body={})

        with pytest.raises(RequestError, match=r"took longer than 0\.3 s"):
            asyncio.run(send(post, curl=curl, timeout_s=0.3))


@pytest.mark.parametrize("curl", [has_curl(), False])
def test_nobody_there_is_an_error(curl):
    post = Post(url="http://127.0.0.1:1/prompt", key="", body={})

    with pytest.raises(RequestError, match=r"POST http://127\.0\.0\.1:1/prompt: "):
        asyncio.run(send(post, curl=curl))
