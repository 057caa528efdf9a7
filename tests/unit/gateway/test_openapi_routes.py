"""The API's description is that of the gateway as it is now."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette

from neurogate.gateway.openapi.routes import openapi_routes
from neurogate.testing.connections import FakeClient


def test_keys_are_in_the_description_as_soon_as_they_are_asked_for() -> None:
    """A reload may turn authentication on."""
    enforced = False
    app = Starlette(routes=openapi_routes(authenticated=lambda: enforced))

    async def asked() -> object:
        client = FakeClient("/openapi.json", method="GET")
        await client.ask(app)
        return client.json()["security"]

    assert asyncio.run(asked()) == []
    enforced = True
    assert asyncio.run(asked()) != []
    enforced = False
    assert asyncio.run(asked()) == []
