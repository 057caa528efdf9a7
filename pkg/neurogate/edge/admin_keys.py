"""The keys of the admin API: kept and compared as digests, and never the keys of clients."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from neurogate.errors import ForbiddenError, UnauthorizedError

CHARS_MIN = 12
_HASHED = re.compile(r"^(?:(?P<name>[\w.-]{1,64}):)?sha256\$(?P<digest>[0-9a-f]{64})$")


def weak(keys: Sequence[str]) -> Iterator[str]:
    """What is wrong with these keys, each named by its number: those that are too short, and those that come twice."""
    for number, key in enumerate(keys, 1):
        if not _HASHED.match(key) and ("sha256$" in key or len(key) < CHARS_MIN):
            yield (
                f"key {number} must have at least {CHARS_MIN} characters, or be sha256$ and 64 hexadecimal digits "
                "in lower case, with NAME: before it or without"
            )
    if len({_digest(key) for key in keys}) != len(keys):
        yield "a key comes twice"


class AdminKeys:
    """The keys of one process; none lets nobody in."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._ids: dict[bytes, str] = {}
        self.configure(keys)

    def configure(self, keys: Sequence[str]) -> None:
        """Take these keys and no others, from the next request on."""
        self._ids = {_digest(key): _name(key) or f"admin-{number}" for number, key in enumerate(keys, 1)}

    @property
    def required(self) -> bool:
        """Whether there is any key: where reading needs none without one, it does with one."""
        return bool(self._ids)

    def authenticate(self, authorization: str) -> str:
        """The id of the key in an Authorization header (`Bearer KEY`).

        Raises ForbiddenError while there is no key at all, UnauthorizedError for a missing or a wrong one.
        """
        if not self._ids:
            raise ForbiddenError("the admin API is off: set NEUROGATE_ADMIN_KEY to turn it on")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise UnauthorizedError(
                "an admin key is needed: send the header Authorization: Bearer YOUR_ADMIN_KEY", param="authorization"
            )
        found = self._ids.get(hashlib.sha256(key.strip().encode("latin-1")).digest())  # as it came
        if found is None:
            raise UnauthorizedError("this is no admin key here", param="authorization")
        return found


def _digest(key: str) -> bytes:
    hashed = _HASHED.match(key)
    return bytes.fromhex(hashed["digest"]) if hashed else hashlib.sha256(key.encode()).digest()


def _name(key: str) -> str | None:
    hashed = _HASHED.match(key)
    return hashed["name"] if hashed else None
