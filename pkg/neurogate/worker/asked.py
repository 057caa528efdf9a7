"""The two fields of a request that the worker itself looks at, and only where it must: the bytes pass as they are."""

from __future__ import annotations

import msgspec

from neurogate.prompt_api import UNDECODABLE


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for; the defaults are those of every API."""

    model: str | None = None
    stream: bool | None = None


_decode = msgspec.json.Decoder(Asked).decode


def asked(body: bytes) -> Asked:
    """What the body asks for; nothing in particular when it cannot be read, which the engine will say."""
    try:
        return _decode(body)
    except UNDECODABLE:
        return Asked()
