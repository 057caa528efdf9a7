"""API keys: who may call.

Keys are kept and compared as SHA-256 digests: a look-up by digest tells nothing about a key by its timing, and no key
lies in memory for a dump or a log to find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from neurogate.errors import UnauthorizedError


class KeyRing:
    """The keys of one gateway; empty means that authentication is off."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._ids = {_digest(key.encode()): f"key-{number}" for number, key in enumerate(keys, 1)}

    @property
    def enforced(self) -> bool:
        """Whether a key is asked for at all."""
        return bool(self._ids)

    def authenticate(self, authorization: bytes, api_key: bytes = b"") -> str:
        """The id of the key that an Authorization (`Bearer KEY`, or the bare key) or X-Api-Key header carries.

        Empty when authentication is off. Raises UnauthorizedError saying what is missing.
        """
        if not self._ids:
            return ""
        presented = authorization or api_key
        if not presented:
            raise UnauthorizedError(
                "an API key is needed: send the header Authorization: Bearer YOUR_KEY", param="authorization"
            )
        scheme, space, key = presented.partition(b" ")
        if space and scheme.lower() == b"bearer":
            presented = key.strip()
        key_id = self._ids.get(_digest(presented))
        if key_id is None:
            raise UnauthorizedError("this API key is not known; check it for typing errors", param="authorization")
        return key_id


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
