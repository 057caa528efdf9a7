"""Judging an answer: whole, honestly failed, or a lie (docs/decisions/0022-fault-suite.md).

The checker knows what the answer should have been and how each API says it, and nothing of who gave it.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chaos_support import answers
from chaos_support.answers import NotTheApiError, Said, UnfinishedError


class Kind(enum.Enum):
    WHOLE = "whole"
    HONEST = "honest failure"
    LIE = "lie"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: Kind
    why: str = ""
    text: str = ""
    """What the client had."""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.why}" if self.why else self.kind.value


@dataclass(frozen=True, slots=True)
class Expected:
    """What an undisturbed answer says."""

    text: str
    finish: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(slots=True)
class Received:
    """What a client had of one answer."""

    status: int = 0
    """0 while there is no head."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    """By HTTP's own framing, or gRPC's OK."""
    timed_out: bool = False
    failed: str = ""
    """gRPC's status and details, where it is not OK."""
    messages: list[bytes] = field(default_factory=list)
    """gRPC's."""
    times: list[float] = field(default_factory=list)
    """Seconds of the loop at which pieces of text came."""

    @property
    def longest_gap_s(self) -> float:
        return max((after - before for before, after in zip(self.times, self.times[1:], strict=False)), default=0.0)


Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """How one API is asked, and how its answers are read."""

    name: str
    path: str
    body: Callable[[str, int], Body]
    """Makes a request's body from a prompt and the most tokens."""
    said: Callable[[bytes], Iterator[Said]]
    """Reads the body of an answer."""
    error: Callable[[Body], str]
    """Reads the body of a refusal."""
    media_type: str
    mark: bytes
    """In every piece of a stream that has text."""
    streams: bool
    usage: bool = True
    """An answer tells its usage."""


def expected_of(api: Api, undisturbed: Received) -> Expected:
    """What a whole answer says. Raises AssertionError when it is none."""
    heard = _Heard()
    for said in api.said(undisturbed.body):
        heard.take(said)
    assert len(heard.finishes) == len(heard.usages) == 1, undisturbed
    expected = Expected(heard.text, heard.finishes[0], *heard.usages[0])
    verdict = judge(api, undisturbed, expected)
    assert verdict.kind is Kind.WHOLE, f"undisturbed, and yet {verdict}: {undisturbed}"
    return expected


def judge(api: Api, received: Received, expected: Expected, whose: Callable[[str], str] = lambda _: "") -> Verdict:
    """What this answer is. `whose` tells whose a text is, for the reason given."""
    if received.timed_out:
        return Verdict(Kind.SILENT, f"nothing decisive came, after {len(received.body)} bytes")
    if received.status == 0:
        return Verdict(Kind.HONEST, "cut: no answer")
    if received.status != 200:
        return _refused(api, received)
    if received.complete and not received.headers.get("content-type", "").startswith(api.media_type):
        return Verdict(Kind.LIE, f"the media type is {received.headers.get('content-type')!r}")
    return _judge_events(api.said(received.body), received, expected, usage=api.usage, whose=whose)


def judge_messages(received: Received, expected: Expected, whose: Callable[[str], str] = lambda _: "") -> Verdict:
    """The same for a stream of gRPC."""
    if received.timed_out:
        return Verdict(Kind.SILENT, f"nothing decisive came, after {len(received.messages)} messages")
    events = map(answers.token_message, received.messages)
    return _judge_events(events, received, expected, usage=True, whose=whose)


def _refused(api: Api, received: Received) -> Verdict:
    if not received.complete:
        return Verdict(Kind.HONEST, f"cut: {received.status}")
    if received.status < 400:
        return Verdict(Kind.LIE, f"status {received.status}")
    try:
        value = json.loads(received.body)
        return Verdict(Kind.HONEST, f"{received.status} {api.error(value)}")
    except (ValueError, NotTheApiError, AttributeError) as error:
        return Verdict(Kind.LIE, f"{received.status} with a body that is not the API's: {error}")


def _judge_events(
    events: Iterable[Said], received: Received, expected: Expected, *, usage: bool, whose: Callable[[str], str]
) -> Verdict:
    heard = _Heard()
    unfinished = False
    try:
        for said in events:
            heard.take(said)
    except UnfinishedError as rest:
        unfinished = True
        if received.complete:
            return Verdict(Kind.LIE, f"it ends within an event: {str(rest)[:60]!r}", heard.text)
    except (NotTheApiError, ValueError, TypeError, KeyError, IndexError) as error:
        return Verdict(Kind.LIE, f"not the API's: {error}", heard.text)
    if heard.wrong:
        return Verdict(Kind.LIE, heard.wrong, heard.text)
    if not heard.ended or received.failed or unfinished:
        return _judge_failed(heard, received, expected, whose)
    return _judge_whole(heard, expected, usage=usage, whose=whose)


def _judge_failed(heard: _Heard, received: Received, expected: Expected, whose: Callable[[str], str]) -> Verdict:
    if heard.ended:
        return Verdict(Kind.LIE, f"something follows its end mark: {received.failed or 'half an event'}", heard.text)
    if not expected.text.startswith(heard.text):
        return Verdict(
            Kind.LIE, f"failed, and wrong before: {_how_wrong(heard.text, expected.text, whose)}", heard.text
        )
    if heard.error is not None:
        return Verdict(Kind.HONEST, heard.error, heard.text)
    if received.failed:
        return Verdict(Kind.HONEST, received.failed, heard.text)
    if received.complete:
        return Verdict(Kind.LIE, "it ends cleanly, without end mark or error", heard.text)
    return Verdict(Kind.HONEST, "cut: the connection", heard.text)


def _judge_whole(heard: _Heard, expected: Expected, *, usage: bool, whose: Callable[[str], str]) -> Verdict:
    if heard.text != expected.text:
        return Verdict(Kind.LIE, _how_wrong(heard.text, expected.text, whose), heard.text)
    if heard.finishes != [expected.finish]:
        return Verdict(Kind.LIE, f"finish reasons {heard.finishes}, not {expected.finish!r}", heard.text)
    right = [(expected.prompt_tokens, expected.answer_tokens)] if usage else []
    if heard.usages != right:
        return Verdict(Kind.LIE, f"usage {heard.usages}, not {right}", heard.text)
    return Verdict(Kind.WHOLE, text=heard.text)


def _how_wrong(text: str, right: str, whose: Callable[[str], str]) -> str:
    if whose(text):
        return f"another's text: {whose(text)}"
    if right.startswith(text):
        return f"truncated: {len(text)} of {len(right)} characters"
    if text.startswith(right):
        return f"goes on past its end: {text[len(right) :][:60]!r}"
    same = next(index for index, (a, b) in enumerate(zip(text, right, strict=False)) if a != b)
    extra = len(text) - len(right)
    if extra > 0 and text[:same] + text[same + extra :] == right:
        return f"text repeated or inserted at character {same}: {text[same : same + extra][:60]!r}"
    return f"text differs at character {same}: {text[same:][:40]!r}, not {right[same:][:40]!r}"


class _Heard:
    """What was said so far, and the first thing wrong with how it was said."""

    def __init__(self) -> None:
        self.text = ""
        self.finishes: list[str] = []
        self.usages: list[tuple[int, int]] = []
        self.ended = False
        self.error: str | None = None
        self.wrong = ""
        self._identity: tuple[object, ...] | None = None
        self._shape: frozenset[str] | None = None
        self._roles = 0
        self._events = 0
        self._counted = 0

    def take(self, said: Said) -> None:
        self.wrong = self.wrong or self._order(said) or self._sameness(said)
        self._events += 1
        self.text += said.text
        if said.finish is not None:
            self.finishes.append(said.finish)
        if said.usage is not None:
            self.usages.append(said.usage)
        self.ended = self.ended or said.end
        self.error = self.error if said.error is None else said.error

    def _order(self, said: Said) -> str:
        if self.ended:
            return "a second end mark" if said.end else "something follows the end mark"
        if self.error is not None:
            return "an end mark follows the error" if said.end else "something follows the error"
        if said.text and self.finishes:
            return f"text follows the finish reason: {said.text!r}"
        return ""

    def _sameness(self, said: Said) -> str:
        if said.identity is not None:
            if self._identity not in {None, said.identity}:
                return f"its identity changes from {self._identity} to {said.identity}"
            self._identity = said.identity
        if said.shape is not None:
            if self._shape not in {None, said.shape}:
                return f"the shape of its events changes: {sorted((self._shape or frozenset()) ^ said.shape)}"
            self._shape = said.shape
        if said.role is not None:
            self._roles += 1
            if said.role != "assistant" or self._roles > 1:
                return f"role {said.role!r} in event {self._events}"
        if said.counted is not None:
            if said.counted <= self._counted:
                return f"its count goes from {self._counted} to {said.counted}"
            self._counted = said.counted
        return ""


def _chat(prompt: str, max_tokens: int, **more: object) -> Body:
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, **more}


def _completion(prompt: str, max_tokens: int, **more: object) -> Body:
    return {"prompt": prompt, "max_tokens": max_tokens, **more}


def _prompt(prompt: str, max_tokens: int, **more: object) -> Body:
    return {"query": prompt, "max_tokens": max_tokens, **more}


def _ollama_chat(prompt: str, max_tokens: int, **more: object) -> Body:
    return {
        "messages": [{"role": "user", "content": prompt}],
        "model": "sim",
        "options": {"num_predict": max_tokens},
        **more,
    }


def _ollama_generate(prompt: str, max_tokens: int, **more: object) -> Body:
    return {"prompt": prompt, "model": "sim", "options": {"num_predict": max_tokens}, **more}


def _one(read: Callable[[str], Said]) -> Callable[[bytes], Iterator[Said]]:
    def said(body: bytes) -> Iterator[Said]:
        if not body:
            raise UnfinishedError("")
        try:
            yield read(body.decode())
        except UnicodeDecodeError as error:
            raise NotTheApiError("no UTF-8") from error
        except NotTheApiError as error:
            if "no JSON" in str(error):  # a body that is cut is no lie, one that is complete is
                raise UnfinishedError(body[-60:].decode(errors="replace")) from error
            raise

    return said


def _sse(read: answers.Reader) -> Callable[[bytes], Iterator[Said]]:
    return lambda body: answers.server_sent(body, read)


def _ndjson(read: answers.Reader) -> Callable[[bytes], Iterator[Said]]:
    return lambda body: answers.lines(body, read)


_SSE = "text/event-stream"
_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_USAGE = {"include_usage": True}
_OPENAI = answers.openai_error


def _openai_apis() -> Iterator[Api]:
    for name, path, body, chat, mark in (
        ("chat", "/v1/chat/completions", _chat, True, b'"content":"'),
        ("completions", "/v1/completions", _completion, False, b'"text":"'),
    ):
        event = partial(answers.openai_event, chat=chat)
        whole = partial(answers.openai_whole, chat=chat)
        told = partial(body, stream=True, stream_options=_USAGE)
        yield Api(f"{name} stream", path, told, _sse(event), _OPENAI, _SSE, mark, streams=True)
        yield Api(
            f"{name} stream without usage",
            path,
            partial(body, stream=True),
            _sse(event),
            _OPENAI,
            _SSE,
            mark,
            streams=True,
            usage=False,
        )
        yield Api(name, path, body, _one(whole), _OPENAI, _JSON, mark, streams=False)


def _ollama_apis() -> Iterator[Api]:
    for name, path, body, chat, mark in (
        ("ollama chat", "/api/chat", _ollama_chat, True, b'"content":"'),
        ("ollama generate", "/api/generate", _ollama_generate, False, b'"response":"'),
    ):
        read = partial(answers.ollama_event, chat=chat)
        error = answers.ollama_error
        yield Api(f"{name} stream", path, body, _ndjson(read), error, _NDJSON, mark, streams=True)
        whole = partial(body, stream=False)
        yield Api(name, path, whole, _one(partial(answers.ollama_whole, chat=chat)), error, _JSON, mark, streams=False)


def _prompt_apis() -> Iterator[Api]:
    error = answers.prompt_error
    streamed = partial(_prompt, stream=True)
    yield Api("prompt stream", "/prompt", streamed, _sse(answers.prompt_event), error, _SSE, b'"token":"', streams=True)
    yield Api("prompt", "/prompt", _prompt, _one(answers.prompt_whole), error, _JSON, b'"response":"', streams=False)


APIS = {api.name: api for api in (*_openai_apis(), *_prompt_apis(), *_ollama_apis())}
"""Every API over HTTP, by name."""
