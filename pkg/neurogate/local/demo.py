"""`neurogate demo`: the whole product in a minute, on this machine, with nothing faked.

Every step checks what it shows. The exit code is 0 only when a real model answered, a worker was killed in the middle
of an answer which was whole nevertheless, the next prompts were answered, its breaker opened, and in the end no process
is left.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

from rich.console import Console

from neurogate.errors import NeuroGateError
from neurogate.gateway.settings import GatewayConfig
from neurogate.local.fleet import POLL_S, Child, Fleet, FleetError
from neurogate.local.plan import FleetRequest
from neurogate.local.ports import is_free
from neurogate.local.prepare import Prepared, prepare
from neurogate.local.request import Post, has_curl, send
from neurogate.local.sources import source
from neurogate.local.state import FleetState
from neurogate.local.table import table_of
from neurogate.process import EXIT_FAILURE, run, run_until

KEY = "neurogate-secret-key-1"
_GRACE_S = 10.0
_READY_TIMEOUT_S = 120.0
_BREAKER_S = 15.0
_QUESTION = "Why is the sky blue?"
_PIECES_BEFORE_DEATH = 3
_MORE_QUESTIONS = ("What is gravity?", "What is a computer?", "Name three fruits.", "Say hello.")


class DemoError(NeuroGateError):
    """A step did not work."""


def main(*, workers: int) -> int:
    """Run it. Returns the exit code."""
    console = Console(soft_wrap=True, highlight=False)
    console.print("NeuroGate demo: one gateway, some workers, a real model", style="bold")
    prepared = prepare(_request(workers), console)
    fleet = Fleet(prepared.plan, prepared.directory, grace_s=_GRACE_S)
    outcome: list[bool] = []

    async def service(stopping: asyncio.Event) -> None:
        outcome.append(await Demo(prepared, fleet, console, curl=has_curl()).run(stopping))

    code = run(service)
    return code if outcome == [True] else code or EXIT_FAILURE


def _request(workers: int) -> FleetRequest:
    """With a certificate, HTTPS gets a port beside HTTP_PORT, which stays plain: whoever asks there needs none."""
    tls = source(GatewayConfig, {}).read().config.tls
    beside = {"NEUROGATE_HTTPS_PORT": "0"} if tls.cert and tls.https_port < 0 else {}
    return FleetRequest(workers=workers, keys=(KEY,), settings=beside)


class Demo:
    """The steps, in order."""

    def __init__(
        self, prepared: Prepared, fleet: Fleet, console: Console, *, curl: bool, breaker_s: float = _BREAKER_S
    ) -> None:
        self._prepared = prepared
        self._fleet = fleet
        self._console = console
        self._curl = curl
        self._breaker_s = breaker_s

    async def run(self, stopping: asyncio.Event) -> bool:
        """Whether every step worked. Everything is stopped in any case, early when `stopping` is set."""
        showing = await run_until(stopping, self._whole(), name="demo")
        if showing.cancelled():
            self._say("\nstopped before its end")
            return False
        return showing.result()

    async def _whole(self) -> bool:
        try:
            async with self._fleet:
                await self._steps()
                self._step("Stopping everything")
            self._check_nothing_is_left()
        except NeuroGateError as error:
            self._console.print(f"\nThe demo failed: {error}", style="red", markup=False)
            for child in () if isinstance(error, FleetError) else self._fleet.children:  # that one has the logs
                self._console.print(f"\n{child.report()}", markup=False)
            return False
        self._console.print("\nAll of it worked.", style="bold green")
        return True

    async def _steps(self) -> None:
        await self._start()
        await self._prompt()
        text = await self._stream()
        self._step("The workers")
        self._console.print(table_of((await self._state()).rows))
        await self._ask_on(await self._kill(text))

    async def _start(self) -> None:
        count = len(self._fleet.workers)
        self._step(f"Starting a gateway and {count} workers")
        self._say(f"engine  {self._prepared.engine}, model {self._prepared.model or '(its default)'}")
        self._say(f"gateway {self._fleet.plan.url}")
        self._say(f"logs    {self._fleet.directory}")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._fleet.wait_ready(_READY_TIMEOUT_S, lambda _: None)
        self._say(f"ready after {loop.time() - began:.1f} s")

    async def _prompt(self) -> None:
        self._step("A prompt")
        post = self._post("/prompt", {"query": _QUESTION, "max_tokens": 80, "temperature": 0})
        self._show(post)
        answer = await send(post, curl=self._curl)
        self._say(answer.decode("utf-8", "replace").strip())
        _text_of(answer)

    async def _stream(self) -> str:
        self._step("The same through the OpenAI API, streamed")
        pieces: list[str] = []

        def on_line(line: bytes) -> None:
            pieces.append(_delta(line))
            self._console.print(pieces[-1], end="", markup=False)

        await self._streamed(self._chat(), on_line)
        count = sum(1 for piece in pieces if piece)
        if count < 2:
            raise DemoError(f"the stream had only {count} piece(s) of text")
        self._say(f"(the text of {count} events, as they arrived)")
        return "".join(pieces)

    async def _kill(self, undisturbed: str) -> Child:
        """Kill the worker of a stream in its middle. Returns it."""
        self._step("Once more, and its worker is killed with SIGKILL in the middle of the answer")
        children = {child.name: child for child in self._fleet.workers}
        serving: list[Child] = []
        killed: list[Child] = []
        pieces: list[str] = []
        continued: list[bytes] = []

        def on_line(line: bytes) -> None:
            name, _, value = line.decode("utf-8", "replace").strip().partition(": ")
            if name.lower() == "x-neurogate-worker" and value in children:
                serving.append(children[value])
            if line.startswith(b": continued"):
                continued.append(line)
            if piece := _delta(line):
                pieces.append(piece)
                self._console.print(piece, end="", markup=False)
            if len(pieces) == _PIECES_BEFORE_DEATH and serving and not killed:
                serving[0].signal(signal.SIGKILL)
                killed.append(serving[0])
                self._console.print(f" [{serving[0].name} is killed] ", end="", style="red", markup=False)

        await self._streamed(self._chat(show_head=True), on_line)
        if not killed:
            raise DemoError("no worker was killed: the answer did not say whose it is, or was too short")
        await killed[0].ended()
        if not continued:
            raise DemoError("the answer was over before its worker died")
        same = "letter by letter the answer from before" if "".join(pieces) == undisturbed else "an answer to its end"
        self._say(f"(another worker went on where {killed[0].name} stopped: {same})")
        return killed[0]

    async def _streamed(self, post: Post, on_line: Callable[[bytes], None]) -> None:
        self._show(post)
        answer = await send(post, curl=self._curl, on_line=on_line)
        self._say("")
        if not answer.rstrip().endswith(b"data: [DONE]"):
            raise DemoError(f"the stream did not end as it should: {answer[-300:]!r}")

    def _chat(self, *, show_head: bool = False) -> Post:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": _QUESTION}], "max_tokens": 80}
        body |= {"temperature": 0, "stream": True}
        if self._prepared.model:
            body = {"model": self._prepared.model, **body}
        return self._post("/v1/chat/completions", body, show_head=show_head)

    async def _ask_on(self, victim: Child) -> None:
        self._step(f"Asking on, without {victim.name} ({victim.address})")
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked = 0
        while True:
            state = await self._state()
            breaker = next((row.breaker for row in state.rows if row.worker == victim.name), "missing")
            if asked >= len(_MORE_QUESTIONS) and breaker == "open":
                break
            if loop.time() - began > self._breaker_s:
                raise DemoError(f"the breaker of {victim.name} is {breaker!r}, and not open")
            await self._ask(_MORE_QUESTIONS[asked % len(_MORE_QUESTIONS)])
            asked += 1
            await asyncio.sleep(POLL_S)
        self._say("")
        self._console.print(table_of(state.rows))
        self._say(f"all {asked} prompts were answered, and the breaker of {victim.name} is open")

    async def _ask(self, question: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await send(
            self._post("/prompt", {"query": question, "max_tokens": 24, "temperature": 0}), curl=self._curl
        )
        text = " ".join(_text_of(answer).split())
        shown = text if len(text) <= 50 else text[:49] + "…"
        worker = json.loads(answer).get("worker_id", "a worker")
        self._say(f"{question} → {shown} [{worker}, {loop.time() - began:.1f} s]")

    def _check_nothing_is_left(self) -> None:
        if self._fleet.killed:
            raise DemoError(f"these did not end by themselves: {', '.join(self._fleet.killed)}")
        taken = [f"{host}:{port}" for host, port in self._fleet.plan.listeners if not is_free(host, port)]
        if taken:
            raise DemoError(f"somebody still listens on {', '.join(taken)}")
        self._say("no process is left, and every port is free again")

    async def _state(self) -> FleetState:
        state = await self._fleet.state()
        if state is None:
            raise DemoError("the gateway's ops port does not answer")
        return state

    def _post(self, path: str, body: dict[str, Any], *, show_head: bool = False) -> Post:
        return Post(url=f"{self._fleet.plan.url}{path}", key=KEY, body=body, show_head=show_head)

    def _show(self, post: Post) -> None:
        if not self._curl:
            self._say("(curl is not installed; the very same request is sent without it)")
        self._console.print(f"$ {post.shown()}\n", style="cyan", markup=False)

    def _step(self, title: str) -> None:
        self._console.print(f"\n{title}", style="bold", markup=False)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)


def _text_of(answer: bytes) -> str:
    """The text of a POST /prompt. Raises DemoError when it is an error, or empty."""
    try:
        text = json.loads(answer)["response"]
    except (ValueError, KeyError, TypeError):
        raise DemoError(f"this is no answer: {answer[:500].decode('utf-8', 'replace')}") from None
    if not isinstance(text, str) or not text.strip():
        raise DemoError("the answer is empty")
    return text


def _delta(line: bytes) -> str:
    """The text of one line of an OpenAI stream; empty for every other line."""
    data = line.strip().removeprefix(b"data: ")
    if not data.startswith(b"{"):
        return ""
    choices = json.loads(data).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")
