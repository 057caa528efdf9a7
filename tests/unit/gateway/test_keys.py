"""API keys: who may call."""

from __future__ import annotations

import gc
import pickle

import pytest

from neurogate.errors import UnauthorizedError
from neurogate.gateway.keys import KeyRing

RING = KeyRing(["first-secret", "second-secret", "with space", "schlüssel"])


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
        ("Bearer schlüssel".encode(), b"", "key-4"),
    ],
)
def test_a_known_key_is_let_in_however_it_comes(authorization: bytes, api_key: bytes, key_id: str) -> None:
    assert RING.authenticate(authorization, api_key) == key_id


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
        (b"wrong", b"first-secret"),
        (b"", b"wrong"),
        (b"\xff\xfe", b""),
    ],
)
def test_any_other_key_is_refused(authorization: bytes, api_key: bytes) -> None:
    with pytest.raises(UnauthorizedError, match="not known") as refused:
        RING.authenticate(authorization, api_key)
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert "first-secret" not in str(refused.value)


def test_no_key_is_told_what_to_send() -> None:
    with pytest.raises(UnauthorizedError, match="Authorization: Bearer YOUR_KEY"):
        RING.authenticate(b"", b"")


def test_without_keys_everybody_is_let_in() -> None:
    ring = KeyRing([])
    assert not ring.enforced
    assert ring.authenticate(b"", b"") == ""
    assert ring.authenticate(b"Bearer whatever", b"") == ""
    assert RING.enforced


def test_no_key_lies_in_memory() -> None:
    """For no dump and no log to find."""
    key = "-".join(["a", "key", "made", "here"])
    ring = KeyRing([key])
    assert ring.authenticate(key.encode()) == "key-1"
    held = pickle.dumps([vars(ring), [repr(thing) for thing in gc.get_referents(ring)]])
    assert key.encode() not in held
    assert key not in repr(ring)
