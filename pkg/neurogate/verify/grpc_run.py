"""Verifies a gRPC proxy: messages, metadata, trailers, status, deadlines, cancellation, sizes and cross-talk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from neurogate.rpc import verify_messages as wire
from neurogate.rpc.verify_messages import NORMALISED
from neurogate.verify.comparing import compare_parts
from neurogate.verify.grpc_side import GrpcSide, Metadata, Reply
from neurogate.verify.http_calls import marker, markers
from neurogate.verify.report import Report, excerpt

_POLL_S = 0.02
_DEADLINE_S = 0.3
_GRACE_MAX_S = 2.0
"""How long the end of a call may take to reach the worker at most."""
_OVERTAKEN_MAX = 5
"""So often is a call made whose end was overtaken; who always ends so is believed then."""
_ECHOED: Metadata = (("x-verify", "text, and more text"), ("x-verify-bin", b"\x00\xff\x80"))
_STEADY = (
    *NORMALISED,
    "metadata and trailers: what gRPC itself writes, and what a proxy adds; all that the direct side sends must come",
    "pieces of text: compared by their text where the direct side does not cut it the same way twice",
)


class GrpcPlan(NamedTuple):
    """What to verify."""

    calls: int
    concurrency: int
    model: str
    size_bytes: int
    methods: tuple[str, ...] = ()
    """Further methods, called with one empty message, which every protobuf method takes."""


class _Call(NamedTuple):
    name: str
    method: str
    request: bytes
    generates: bool = False
    number: int = 0


async def verify_grpc(direct: GrpcSide, proxy: GrpcSide, plan: GrpcPlan) -> Report:
    """Make every call both ways. Raises NeuroGateError when a side cannot be reached."""
    await direct.reach()
    await proxy.reach()
    report = Report(direct.url, proxy.url, "grpc", _STEADY)
    run = _Run(direct, proxy, plan, report)
    await run.catalogue()
    await run.large()
    await run.ends_early()
    await run.streams()
    return report


class _Run:
    def __init__(self, direct: GrpcSide, proxy: GrpcSide, plan: GrpcPlan, report: Report) -> None:
        self._direct = direct
        self._proxy = proxy
        self._plan = plan
        self._report = report

    async def catalogue(self) -> None:
        """Every kind of call, one after the other; a method that does not exist is one of them."""
        calls = [
            self._prompt("unary", wire.GENERATE_TEXT, "Tell me about zq00000qz.", 12),
            self._prompt("streamed", wire.STREAM_TEXT, "Tell me about caf\u00e9s and \U0001f98a.", 12),
            self._prompt("one token", wire.STREAM_TEXT, "Tell me about nothing.", 1),
            _Call("health", wire.HEALTH, b""),
            _Call("worker's status", wire.STATUS, b""),
            _Call("unknown method", "/verify.v1.Nobody/Nothing", b""),
            _Call("unknown method of a service", "/llm.v1.LLMService/NoSuchMethod", b""),
            *(_Call(method, method, b"") for method in self._plan.methods),
        ]
        for call in calls:
            expected = await self._send(self._direct, call)
            if call.generates and expected.code != "OK":
                self._report.skipped.append(f"{call.name}: does not work directly ({expected.code} {expected.details})")
                continue
            await self._compare(call, expected, await self._send(self._proxy, call))

    async def large(self) -> None:
        """A message of the largest size must arrive, and be answered as it is directly."""
        call = _Call(f"{self._plan.size_bytes} bytes", wire.STATUS, wire.padded(self._plan.size_bytes))
        expected, given = await self._send(self._direct, call), await self._send(self._proxy, call)
        if expected.code != "OK":
            self._report.skipped.append(f"{call.name}: not taken directly ({expected.code} {expected.details})")
            return
        self._report.compared("status", call.name, _differ(expected.code, given.code))
        self._report.compared("size", call.name, "" if given.code == "OK" else f"does not arrive: {given.details}")

    async def ends_early(self) -> None:
        """A deadline, and a client that cancels, must each end a call and the work on it, well before its own end."""
        loop = asyncio.get_running_loop()
        for method in (wire.STREAM_TEXT, wire.GENERATE_TEXT):
            call = self._prompt(method, method, "Count to a million: 1 2 3", 400)
            began = loop.time()
            alone = await self._send(self._direct, call)
            alone_s = loop.time() - began
            if alone.code != "OK" or await self._at_work() is None:
                self._report.skipped.append(f"ending {method}: it does not work directly, or {wire.STATUS} does not")
            elif alone_s < 2 * _DEADLINE_S:
                self._report.skipped.append(f"ending {method}: it ends by itself after {alone_s:.2f} s already")
            else:
                await self._deadline(call, min((alone_s - _DEADLINE_S) / 2, _GRACE_MAX_S))
                if method != wire.GENERATE_TEXT:  # which has no beginning to wait for
                    await self._cancellation(call, min(alone_s / 2, _GRACE_MAX_S))

    async def _deadline(self, call: _Call, grace_s: float) -> None:
        given = await self._proxy.call(call.method, [call.request], timeout_s=_DEADLINE_S)
        detail = _differ("DEADLINE_EXCEEDED", given.code)
        if not detail and given.took_s > _DEADLINE_S + grace_s:
            detail = f"took {given.took_s:.2f} s for a deadline of {_DEADLINE_S} s"
        self._report.compared("deadline", call.name, detail or await self._still_at_work(grace_s))

    async def _cancellation(self, call: _Call, grace_s: float) -> None:
        began = await self._proxy.leave_early(call.method, call.request)
        detail = await self._still_at_work(grace_s) if began else "no answer began through the proxy"
        self._report.compared("cancellation", call.name, detail)

    async def streams(self) -> None:
        """Many streams at once, each with a marker of its own in its prompt and in its id."""
        calls = []
        for number in range(1, self._plan.calls + 1):
            method = (wire.STREAM_TEXT, wire.GENERATE_TEXT)[number % 2]
            text = f"Say something about {marker(number)}."
            calls.append(self._prompt(f"stream {number}", method, text, 8 + number % 24, number=number))
        expected = await self._together(self._direct, calls)
        given = await self._together(self._proxy, calls)
        said: dict[str, int] = {}
        for call, answer in zip(calls, expected, strict=True):
            said.setdefault(wire.text_of(call.method, answer.messages), call.number)
        for call, one, other in zip(calls, expected, given, strict=True):
            strangers = set().union(*map(markers, other.messages)) - {call.number}
            text = wire.text_of(call.method, other.messages)
            detail = ""
            if strangers:
                detail = f"holds the marker of stream {min(strangers)}"
            elif text != wire.text_of(call.method, one.messages) and text in said:
                detail = f"is the answer of stream {said[text]}"
            self._report.compared("cross-talk", call.name, detail)
        for call, one, other in zip(calls, expected, given, strict=True):
            await self._compare(call, one, other)

    def _prompt(self, name: str, method: str, text: str, max_tokens: int, *, number: int = 0) -> _Call:
        request_id = f"verify-{marker(number)}"
        request = wire.prompt(text, request_id=request_id, max_tokens=max_tokens, model=self._plan.model)
        return _Call(name, method, request, generates=True, number=number)

    async def _send(self, side: GrpcSide, call: _Call) -> Reply:
        """One call; made again when it ends as one does whose end a reset overtook (docs/verify.md)."""
        for _ in range(_OVERTAKEN_MAX):
            reply = await side.call(call.method, [call.request], metadata=_ECHOED)
            if reply.code != "INTERNAL" or reply.messages:
                return reply
        return reply

    async def _together(self, side: GrpcSide, calls: Sequence[_Call]) -> list[Reply]:
        places = asyncio.Semaphore(self._plan.concurrency)

        async def send(call: _Call) -> Reply:
            async with places:
                return await self._send(side, call)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(call)) for call in calls]
        return [task.result() for task in tasks]

    async def _compare(self, call: _Call, expected: Reply, given: Reply) -> None:
        report, name = self._report, call.name
        status = _differ(expected.code, given.code)
        if not status and expected.code != "OK":
            status = _differ(expected.details, given.details)
        report.compared("status", name, status)
        report.compared("metadata", name, _missing(expected.head, given.head))
        report.compared("trailers", name, _missing(expected.trailers, given.trailers))
        if status:
            return
        one, other = _comparable(call, expected), _comparable(call, given)
        if one != other and call.generates:
            again = await self._send(self._direct, call)
            if _comparable(call, again) != one:
                self._compare_texts(call, expected, given, again)
                return
        compare_parts(report, name, one, other)

    def _compare_texts(self, call: _Call, expected: Reply, given: Reply, again: Reply) -> None:
        """The direct side does not repeat the messages; perhaps it repeats the text that is in them."""
        text = wire.text_of(call.method, expected.messages)
        if wire.text_of(call.method, again.messages) != text:
            self._report.skipped.append(f"{call.name}: the direct side does not repeat its own answer")
            return
        detail = _differ(excerpt(text), excerpt(wire.text_of(call.method, given.messages)))
        self._report.compared("bytes", call.name, detail)

    async def _at_work(self) -> int | None:
        status = await self._direct.call(wire.STATUS, [b""])
        return wire.at_work(status.messages[0]) if status.code == "OK" and status.messages else None

    async def _still_at_work(self, grace_s: float) -> str:
        loop = asyncio.get_running_loop()
        left = loop.time()
        while busy := await self._at_work():
            if loop.time() - left > grace_s:
                return f"{busy} requests still at work {grace_s:.2f} s after its client had gone"
            await asyncio.sleep(_POLL_S)
        return ""


def _comparable(call: _Call, reply: Reply) -> list[bytes]:
    return [wire.unstamped(call.method, message) for message in reply.messages]


def _missing(direct: Metadata, proxy: Metadata) -> str:
    """What the direct side sent and the proxy did not, in the order it was sent."""
    left = list(proxy)
    for entry in direct:
        if entry not in left:
            return f"lacks {excerpt(entry)}"
        left.remove(entry)
    return ""


def _differ(direct: object, proxy: object) -> str:
    return "" if direct == proxy else f"{direct} directly, {proxy} through the proxy"
