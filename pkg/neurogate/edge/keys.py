"""API keys: who may call.

Keys are kept and compared as SHA-256 digests: a look-up by digest tells nothing about a key by its timing, and no key
lies in memory for a dump or a log to find (ADR 0011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from neurogate.edge.caller import ANYBODY, Caller
from neurogate.edge.keyfile import Key, digest
from neurogate.errors import UnauthorizedError


class KeyRing:
    """The keys of one gateway. Enforced without keys it lets nobody in; not enforced it lets everybody in."""

    def __init__(self, keys: Iterable[Key] = (), *, enforced: bool, now: Callable[[], float]) -> None:
        self._now = now
        self._held: dict[bytes, tuple[Caller, float | None]] = {}
        self._enforced = enforced
        self.replace(keys, enforced=enforced)

    def __repr__(self) -> str:
        return f"<KeyRing {len(self._held)} keys, {'' if self._enforced else 'not '}enforced>"

    def __len__(self) -> int:
        return len(self._held)

    @property
    def enforced(self) -> bool:
        """Whether a key is asked for at all."""
        return self._enforced

    def replace(self, keys: Iterable[Key], *, enforced: bool) -> None:
        """Hold these keys and no others, from the next request on. Of two with the same digest the first counts."""
        held: dict[bytes, tuple[Caller, float | None]] = {}
        for key in keys:
            held.setdefault(key.digest, (key.caller, key.expires_at))
        self._held, self._enforced = held, enforced

    def authenticate(self, authorization: bytes, api_key: bytes = b"") -> Caller:
        """Whose key an Authorization (`Bearer KEY`, or the bare key) or else an X-Api-Key header carries.

        An Authorization that holds no key of ours hides none: it may be meant for a proxy on the way. ANYBODY when
        authentication is off. Raises UnauthorizedError saying what is missing.
        """
        if not self._enforced:
            return ANYBODY
        if not self._held:
            raise UnauthorizedError("Authentication misconfigured: no API keys loaded", param="authorization")
        presented = authorization or api_key
        if not presented:
            raise UnauthorizedError(
                "an API key is needed: send the header Authorization: Bearer YOUR_KEY", param="authorization"
            )
        found = self._find(presented)
        if found is None and authorization and api_key:
            found = self._find(api_key)
        if found is None:
            raise UnauthorizedError(
                "Incorrect API key provided: it is not known here; check it for typing errors", param="authorization"
            )
        caller, expires_at = found
        if expires_at is not None and self._now() >= expires_at:
            raise UnauthorizedError("this API key has expired; ask for a new one", param="authorization")
        return caller

    def _find(self, presented: bytes) -> tuple[Caller, float | None] | None:
        scheme, space, key = presented.partition(b" ")
        if space and scheme.lower() == b"bearer":
            presented = key.strip()
        return self._held.get(digest(presented))
