"""`neurogate verify`: is the gateway transparent?"""

from __future__ import annotations

import asyncio
import json as json_format
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import get_args

from neurogate.errors import NeuroGateError
from neurogate.verify.grpc_run import GrpcPlan, verify_grpc
from neurogate.verify.grpc_side import GrpcSide
from neurogate.verify.http_calls import Api
from neurogate.verify.http_run import HttpPlan, verify_http
from neurogate.verify.http_side import HttpSide
from neurogate.verify.report import Report


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    direct: str
    proxy: str
    calls: int
    concurrency: int
    key: str
    direct_key: str
    tls_ca: str
    timeout_s: float
    model: str
    size_bytes: int
    apis: Sequence[str] = ()
    methods: Sequence[str] = ()


def main(wanted: Wanted, *, grpc: bool, json: bool) -> int:
    """Verify, and print the report. Returns 0 when nothing differed, 1 when something did."""
    report = asyncio.run(_grpc(wanted) if grpc else _http(wanted))
    print(json_format.dumps(report.as_json(), indent=2) if json else report.as_text(), end="\n" if json else "")
    return 0 if report.passed else 1


async def _http(wanted: Wanted) -> Report:
    unknown = set(wanted.apis) - set(get_args(Api))
    if unknown:
        raise NeuroGateError(f"--api: must be one of {', '.join(get_args(Api))} (got {', '.join(sorted(unknown))})")
    apis: frozenset[Api] = frozenset(api for api in get_args(Api) if api in wanted.apis)
    async with AsyncExitStack() as closing:
        direct = HttpSide(wanted.direct, key=wanted.direct_key, tls_ca=wanted.tls_ca, timeout_s=wanted.timeout_s)
        closing.push_async_callback(direct.close)
        proxy = HttpSide(wanted.proxy, key=wanted.key, tls_ca=wanted.tls_ca, timeout_s=wanted.timeout_s)
        closing.push_async_callback(proxy.close)
        plan = HttpPlan(apis, wanted.calls, wanted.concurrency, wanted.model, wanted.size_bytes)
        return await verify_http(direct, proxy, plan)


async def _grpc(wanted: Wanted) -> Report:
    async with AsyncExitStack() as closing:
        direct = GrpcSide(wanted.direct, key=wanted.direct_key, tls_ca=wanted.tls_ca, timeout_s=wanted.timeout_s)
        closing.push_async_callback(direct.close)
        proxy = GrpcSide(wanted.proxy, key=wanted.key, tls_ca=wanted.tls_ca, timeout_s=wanted.timeout_s)
        closing.push_async_callback(proxy.close)
        plan = GrpcPlan(wanted.calls, wanted.concurrency, wanted.model, wanted.size_bytes, tuple(wanted.methods))
        return await verify_grpc(direct, proxy, plan)
