"""Verifies an HTTP proxy.

An engine need not repeat itself: with several requests at once, llama.cpp's arithmetic depends on who shares a batch.
So wherever an answer differs, the engine is asked again, directly; where it differs from itself, nothing can be said
about the proxy, and that is told. An engine that repeats itself, as the simulated one does, leaves no such excuse.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import NamedTuple

from neurogate.verify import http_calls
from neurogate.verify.comparing import compare_parts
from neurogate.verify.http_calls import Api, HttpCall
from neurogate.verify.http_side import Answer, HttpSide
from neurogate.verify.masks import NORMALISED, answers_in
from neurogate.verify.report import Report, excerpt

_NOT_THERE = frozenset({401, 403, 404, 405, 501})
_POLL_S = 0.02
_LONG_ENOUGH_S = 0.6
"""An answer must take this long by itself, to see whether leaving ends it sooner."""


class HttpPlan(NamedTuple):
    """What to verify."""

    apis: frozenset[Api]
    calls: int
    concurrency: int
    model: str
    size_bytes: int


async def verify_http(direct: HttpSide, proxy: HttpSide, plan: HttpPlan) -> Report:
    """Make every call both ways. Raises NeuroGateError when a side cannot be reached."""
    await direct.reach()
    await proxy.reach()
    report = Report(direct.url, proxy.url, "http", NORMALISED)
    run = _Run(direct, proxy, plan, report)
    await run.catalogue()
    await run.models()
    await run.refusals()
    await run.large()
    await run.cancellation()
    await run.streams()
    return report


class _Run:
    def __init__(self, direct: HttpSide, proxy: HttpSide, plan: HttpPlan, report: Report) -> None:
        self._direct = direct
        self._proxy = proxy
        self._plan = plan
        self._report = report

    async def catalogue(self) -> None:
        """Every kind of call, one after the other."""
        for call in http_calls.catalogue(self._plan.apis, self._plan.model):
            expected = await self._direct.send(call)
            if expected.status in _NOT_THERE or expected.status >= 500 or expected.failure:
                why = expected.failure or f"status {expected.status}"
                self._report.skipped.append(f"{call.name}: {call.path} does not work directly ({why})")
                continue
            await self._compare(call, expected, await self._proxy.send(call))

    async def models(self) -> None:
        """The proxy must list what the engine lists."""
        call = http_calls.models(self._plan.apis)
        expected, given = await self._direct.send(call), await self._proxy.send(call)
        if expected.status != 200:
            self._report.skipped.append(f"{call.name}: {call.path} does not work directly (status {expected.status})")
            return
        self._report.compared("status", call.name, _differ(expected.status, given.status))
        missing = _model_ids(expected.raw) - _model_ids(given.raw)
        self._report.compared("bytes", call.name, f"the proxy lacks {', '.join(sorted(missing))}" if missing else "")

    async def refusals(self) -> None:
        """What is wrong must be refused by both, with the same status."""
        for call in http_calls.refusals(self._plan.apis):
            expected, given = await self._direct.send(call), await self._proxy.send(call)
            if 400 <= expected.status < 500:
                detail = _differ(expected.status, given.status)
            else:
                detail = "" if 400 <= given.status < 500 else f"must be refused, is status {given.status}"
            self._report.compared("status", call.name, detail)
            no_json = "" if given.is_json else f"the refusal is no JSON: {excerpt(given.raw)}"
            self._report.compared("bytes", call.name, no_json)
        call = http_calls.unknown_model(self._plan.apis)
        expected, given = await self._direct.send(call), await self._proxy.send(call)
        detail = "" if given.status in {404, expected.status} else f"must be 404, is {given.status}"
        self._report.compared("status", call.name, detail)

    async def large(self) -> None:
        """A large body must arrive whole."""
        call = http_calls.large(self._plan.size_bytes)
        expected = await self._direct.send(call)
        if expected.status != 200:
            why = expected.failure or f"status {expected.status}"
            self._report.skipped.append(f"{call.name}: {call.path} does not work directly ({why})")
            return
        given = await self._proxy.send(call)
        self._report.compared("answered", call.name, given.failure)
        self._report.compared("status", call.name, _differ(expected.status, given.status))
        told = f"{len(given.raw)} bytes of an answer that has {len(expected.raw)} directly"
        self._report.compared("size", call.name, "" if expected.parts == given.parts else told)

    async def cancellation(self) -> None:
        """Whoever leaves the proxy must free the engine, well before the answer would have ended by itself."""
        call = http_calls.long_stream(self._plan.model)
        loop = asyncio.get_running_loop()
        began = loop.time()
        whole = await self._direct.send(call)
        alone_s = loop.time() - began
        if whole.status != 200 or await self._direct.busy_slots() is None:
            self._report.skipped.append("cancellation: the direct side has no /v1/completions or no /slots")
            return
        if alone_s < _LONG_ENOUGH_S:
            self._report.skipped.append(f"cancellation: a long answer ends by itself after {alone_s:.2f} s already")
            return
        grace_s = min(alone_s / 2, 2.0)
        if not await self._proxy.leave_early(call):
            self._report.compared("cancellation", call.name, "the stream did not begin through the proxy")
            return
        left = loop.time()
        while busy := await self._direct.busy_slots():
            if loop.time() - left > grace_s:
                detail = f"{busy} slots still at work {grace_s:.2f} s after the client left (alone: {alone_s:.2f} s)"
                self._report.compared("cancellation", call.name, detail)
                return
            await asyncio.sleep(_POLL_S)
        self._report.compared("cancellation", call.name)

    async def streams(self) -> None:
        """Many streams at once, each with a marker of its own."""
        calls = http_calls.streams(self._plan.calls, self._plan.apis, self._plan.model)
        expected = await self._together(self._direct, calls)
        given = await self._together(self._proxy, calls)
        for call, one, other in zip(calls, expected, given, strict=True):
            strangers = http_calls.markers(other.raw) - {call.number}
            sources, usual = answers_in(other.parts), answers_in(one.parts)
            detail = ""
            if strangers:
                detail = f"holds the marker of stream {min(strangers)}"
            elif sources > max(usual, 1):
                detail = f"is made of {sources} answers, by their ids; {usual} directly"
            elif other.parts != one.parts and not other.failure:
                whose = next(
                    (
                        stream.name
                        for stream, answer in zip(calls, expected, strict=True)
                        if answer.parts == other.parts
                    ),
                    "",
                )
                detail = f"is the answer of {whose}" if whose else ""
            self._report.compared("cross-talk", call.name, detail)
        for call, one, other in zip(calls, expected, given, strict=True):
            await self._compare(call, one, other)

    async def _together(self, side: HttpSide, calls: Sequence[HttpCall]) -> list[Answer]:
        places = asyncio.Semaphore(self._plan.concurrency)

        async def send(call: HttpCall) -> Answer:
            async with places:
                return await side.send(call)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(call)) for call in calls]
        return [task.result() for task in tasks]

    async def _compare(self, call: HttpCall, expected: Answer, given: Answer) -> None:
        if given != expected and await self._unsteady(call, expected):
            self._report.skipped.append(f"{call.name}: the direct side does not repeat its own answer")
            return
        if expected.failure:
            self._report.skipped.append(f"{call.name}: the direct side failed ({expected.failure})")
            return
        self._report.compared("answered", call.name, given.failure)
        self._report.compared("status", call.name, _differ(expected.status, given.status))
        self._report.compared("metadata", call.name, _differ(expected.media_type, given.media_type))
        if expected.status == given.status and not given.failure:
            if expected.status < 300:
                compare_parts(self._report, call.name, expected.parts, given.parts)
            else:
                self._report.compared("bytes", call.name, "" if given.is_json else "the refusal is no JSON")

    async def _unsteady(self, call: HttpCall, expected: Answer) -> bool:
        if (expected.status, expected.failure) != (200, ""):
            return False
        return (await self._direct.send(call)).parts != expected.parts


def _differ(direct: object, proxy: object) -> str:
    return "" if direct == proxy else f"{direct} directly, {proxy} through the proxy"


def _model_ids(body: bytes) -> set[str]:
    try:
        listed = json.loads(body)
        return {str(model.get("id") or model.get("name")) for model in listed.get("data") or listed.get("models") or ()}
    except (ValueError, AttributeError):
        return set()
