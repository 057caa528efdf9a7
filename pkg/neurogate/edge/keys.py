"""API keys: who may call.

Keys are kept and compared as SHA-256 digests: a look-up by digest tells nothing about a key by its timing, and no key
lies in memory for a dump or a log to find (ADR 0011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from neurogate.edge.caller import ANYBODY, Caller
from neurogate.edge.keyfile import Key, digest
from neurogate.errors import UnauthorizedError

Held = Mapping[bytes, Key]
"""Keys by their digest."""


def held(keys: Iterable[Key]) -> Held:
    """Keys as a ring holds them. Of two with the same digest the first counts."""
    found: dict[bytes, Key] = {}
    for key in keys:
        found.setdefault(key.digest, key)
    return found


class KeyRing:
    """The keys of one gateway. Enforced without keys it lets nobody in; not enforced it lets everybody in."""

    def __init__(self, keys: Iterable[Key] = (), *, enforced: bool, now: Callable[[], float]) -> None:
        self._now = now
        self.hold(held(keys), enforced=enforced)

    def __repr__(self) -> str:
        return f"<KeyRing {len(self._held)} keys, {'' if self._enforced else 'not '}enforced>"

    def __len__(self) -> int:
        return len(self._held)

    def callers(self) -> Iterator[Caller]:
        """Whose keys they are."""
        return (key.caller for key in self._held.values())

    @property
    def enforced(self) -> bool:
        """Whether a key is asked for at all."""
        return self._enforced

    def hold(self, keys: Held, *, enforced: bool) -> None:
        """Hold these keys and no others, from the next request on."""
        self._held, self._enforced = keys, enforced

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
        if found.expires_at is not None and self._now() >= found.expires_at:
            raise UnauthorizedError("this API key has expired; ask for a new one", param="authorization")
        return found.caller

    def _find(self, presented: bytes) -> Key | None:
        scheme, space, key = presented.partition(b" ")
        if space and scheme.lower() == b"bearer":
            presented = key.strip()
        return self._held.get(digest(presented))
