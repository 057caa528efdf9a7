"""`/openapi.json` and `/docs`: made when first asked for, because starting fast is a promise, and kept from then on."""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from neurogate.gateway.dialects.table import BODIES
from neurogate.gateway.openapi.document import document
from neurogate.gateway.openapi.page import page
from neurogate.operations import OPERATIONS
from neurogate.prompt_api import PromptAnswer

_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def openapi_routes(*, authenticated: Callable[[], bool]) -> list[Route]:
    """Open to everybody: they tell what the gateway is, not what it holds.

    `authenticated` is whether API keys are asked for now: a reload can turn that on.
    """

    @functools.cache
    def described(*, asked: bool) -> dict[str, object]:
        return document(OPERATIONS.values(), BODIES, {"/prompt": PromptAnswer}, authenticated=asked)

    async def as_json(_: Request) -> Response:
        return Response(msgspec.json.encode(described(asked=authenticated())), media_type="application/json")

    async def as_page(_: Request) -> Response:
        return HTMLResponse(page(described(asked=authenticated())), headers={"Content-Security-Policy": _PAGE_POLICY})

    return [Route("/openapi.json", as_json), Route("/docs", as_page)]
