"""API keys: who may call."""

from __future__ import annotations

import gc
import pickle
import traceback
from collections.abc import Iterable

import pytest

from neurogate.edge.caller import ANYBODY, Caller, Quota
from neurogate.edge.keyfile import Key, digest
from neurogate.edge.keys import KeyRing, held
from neurogate.errors import UnauthorizedError


def ring(*keys: str, enforced: bool = True) -> KeyRing:
    made = [Key(digest(key.encode()), Caller(f"key-{number}")) for number, key in enumerate(keys, 1)]
    return KeyRing(made, enforced=enforced, now=lambda: 0.0)


RING = ring("first-secret", "second-secret", "with space", "schlüssel")


@pytest.mark.parametrize(
    ("authorization", "api_key", "key_id"),
    [
        (b"Bearer first-secret", b"", "key-1"),
        (b"bearer second-secret", b"", "key-2"),
        (b"BEARER   first-secret  ", b"", "key-1"),
        (b"first-secret", b"", "key-1"),
        (b"with space", b"", "key-3"),
        (b"", b"second-secret", "key-2"),
        (b"Bearer first-secret", b"second-secret", "key-1"),
        (b"Bearer wrong", b"second-secret", "key-2"),
        (b"Basic dXNlcjpwYXNzd29yZA==", b"second-secret", "key-2"),
        ("Bearer schlüssel".encode(), b"", "key-4"),
    ],
)
def test_a_known_key_is_let_in_however_it_comes(authorization: bytes, api_key: bytes, key_id: str) -> None:
    assert RING.authenticate(authorization, api_key) == Caller(key_id)


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (b"Bearer wrong", b""),
        (b"Bearer first-secre", b""),
        (b"Bearer first-secret ,", b""),
        (b"Bearer FIRST-SECRET", b""),
        (b"Bearer", b""),
        (b"Bearer ", b""),
        (b"Basic first-secret", b""),
        (b"wrong", b"first-secre"),
        (b"", b"wrong"),
        (b"\xff\xfe", b""),
        (digest(b"first-secret").hex().encode(), b""),
        (b"sha256$" + digest(b"first-secret").hex().encode(), b""),
    ],
)
def test_any_other_key_is_refused_and_so_is_a_stored_digest(authorization: bytes, api_key: bytes) -> None:
    with pytest.raises(UnauthorizedError, match="not known") as refused:
        RING.authenticate(authorization, api_key)
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert "first-secret" not in "".join(traceback.format_exception(refused.value))


def test_no_key_is_told_what_to_send() -> None:
    with pytest.raises(UnauthorizedError, match="Authorization: Bearer YOUR_KEY"):
        RING.authenticate(b"", b"")


def test_everybody_is_let_in_where_keys_are_not_enforced() -> None:
    for off in (ring(enforced=False), ring("first-secret", enforced=False)):
        assert not off.enforced
        assert off.authenticate(b"", b"") is ANYBODY
        assert off.authenticate(b"Bearer whatever") is ANYBODY


@pytest.mark.parametrize("authorization", [b"", b"Bearer first-secret"])
def test_nobody_is_let_in_where_keys_are_enforced_and_none_is_there(authorization: bytes) -> None:
    with pytest.raises(UnauthorizedError, match=r"^Authentication misconfigured: no API keys loaded$"):
        ring().authenticate(authorization)


def test_a_key_holds_until_its_expiry() -> None:
    now = 99.9
    bounded = KeyRing([Key(digest(b"guest-key"), Caller("guest"), expires_at=100.0)], enforced=True, now=lambda: now)
    assert bounded.authenticate(b"guest-key").key_id == "guest"
    now = 100.0
    with pytest.raises(UnauthorizedError, match="has expired"):
        bounded.authenticate(b"guest-key")


def test_the_caller_carries_what_the_key_may_use() -> None:
    caller = Caller("team", Quota(tokens_per_minute=5), frozenset({"tiny"}), frozenset({"/v1/*"}), "batch")
    assert KeyRing([Key(digest(b"k"), caller)], enforced=True, now=lambda: 0.0).authenticate(b"k") is caller


def test_replaced_keys_count_at_once_and_those_of_before_no_more() -> None:
    changing = ring("first-secret")
    keys = [Key(digest(b"other"), Caller("other")), Key(digest(b"other"), Caller("later"))]
    changing.hold(held(keys), enforced=True)
    assert changing.authenticate(b"other").key_id == "other"
    with pytest.raises(UnauthorizedError):
        changing.authenticate(b"first-secret")
    assert len(changing) == 1


def test_no_key_lies_in_memory() -> None:
    """For no dump and no log to find."""
    key = "-".join(["a", "key", "made", "here"])
    holding = ring(key)
    assert holding.authenticate(key.encode()).key_id == "key-1"
    with pytest.raises(UnauthorizedError):
        holding.authenticate(key.encode() + b"x")
    assert not [thing for thing in reachable(holding) if key in str(thing) or key.encode() in bytes_of(thing)]
    assert key.encode() not in pickle.dumps(holding._held)
    assert repr(holding) == "<KeyRing 1 keys, enforced>"


def bytes_of(thing: object) -> bytes:
    return thing if isinstance(thing, bytes) else b""


def reachable(root: object) -> Iterable[object]:
    """All data that an object leads to; modules, classes and functions lead everywhere."""
    seen: dict[int, object] = {}
    left = [root.__dict__]
    while left:
        thing = left.pop()
        if id(thing) in seen or callable(thing):
            continue
        seen[id(thing)] = thing
        left += gc.get_referents(thing)
        left += [getattr(thing, field) for field in getattr(thing, "__struct_fields__", ())]  # unseen by the collector
    return seen.values()
