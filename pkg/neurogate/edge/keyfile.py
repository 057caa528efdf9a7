"""The key file: one key a line, `key_id:api_key[:rate_limit][:expiry] [word ...]`.

The part before the first space is the format of older systems; the words after it say what that has no room for. A bad
line is skipped and told by its number alone: nobody knows where in it a key stands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

import msgspec

from neurogate.edge.caller import Caller, Priority, Quota

KEY_CHARS_MIN = 8
HASHED = "sha256$"
"""What a stored digest begins with, in a key's place."""
PRIORITIES = ("interactive", "batch")
UNBOUNDED = -1
"""A bound that its line gives as 0: none, whatever the default is."""

_ID = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_LIKE_A_KEY = re.compile(r"sk-.*|[0-9a-fA-F]{32,}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_BETWEEN_WORDS = re.compile(r"[\s;]+")
_NUMBERS = {"tpm": "tokens_per_minute", "concurrent": "concurrent", "monthly": "tokens_per_month"}
_SETS = ("models", "routes")
_NUMBER_MAX = 10**15


class Key(msgspec.Struct, frozen=True, gc=False):
    """One key as it is held: what it hashes to, and whom it stands for.

    Thousands of them are read at once: looking for cycles, which they cannot have, would stop every stream.
    """

    digest: bytes
    caller: Caller
    expires_at: float | None = None
    """Seconds since 1970; None is never."""


class KeyLine(msgspec.Struct, frozen=True, gc=False):
    """A valid line."""

    number: int
    """From 1."""
    key: Key
    hashed: bool
    """Whether the file has the digest in the key's place."""


class KeyLines(msgspec.Struct, frozen=True):
    """What a file says."""

    lines: tuple[KeyLine, ...]
    warnings: tuple[str, ...]
    """One for each line that is skipped. No key is in them."""


class LineError(ValueError):
    """What is wrong with a line, without any of its text."""


def digest(key: bytes) -> bytes:
    """What a key is held and compared as."""
    return hashlib.sha256(key).digest()


def hashed(key: str) -> str:
    """What may be stored in the key's place."""
    return HASHED + digest(key.encode()).hex()


def stored_digest(text: str) -> bytes | None:
    """The digest in `sha256$HEX`; None for a text that is a key itself."""
    hexadecimal = text.removeprefix(HASHED)
    if hexadecimal == text or not _DIGEST.fullmatch(hexadecimal):
        return None
    return bytes.fromhex(hexadecimal)


def parse(text: str) -> KeyLines:
    """Read a file. No text makes it fail."""
    lines: list[KeyLine] = []
    warnings: list[str] = []
    ids: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            found = parse_line(line, number)
            if found is None:
                continue
            _refuse_second(ids, found.key.caller.key_id, "key id")
            _refuse_second(digests, found.key.digest, "key")
        except LineError as error:
            warnings.append(f"line {number}: {error}; the line is skipped")
            continue
        ids[found.key.caller.key_id] = digests[found.key.digest] = number
        lines.append(found)
    return KeyLines(tuple(lines), tuple(warnings))


def parse_line(line: str, number: int) -> KeyLine | None:
    """Read one line; None for a comment and for nothing.

    A bound that it does not give is 0 in the quota, for the default; one that it gives as 0 is UNBOUNDED.

    Raises LineError.
    """
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    head, tail = (*line.split(None, 1), "")[:2]
    key_id, colon, rest = head.partition(":")
    if not colon:
        raise LineError("a line is key_id:api_key[:rate_limit][:expiry]")
    check_id(key_id)
    key, rate, expiry = (*rest.split(":", 2), "", "")[:3]
    stored = stored_digest(key)
    if stored is None:
        check_key(key)
    numbers, sets, priority = _words(tail)
    if rate:
        numbers["requests_per_minute"] = _number(rate, "the rate limit") or UNBOUNDED
    caller = Caller(
        key_id,
        Quota(**numbers),
        models=sets.get("models"),
        routes=sets.get("routes"),
        priority=priority,
    )
    expires_at = expiry_at(expiry) if expiry else None
    return KeyLine(number, Key(stored or digest(key.encode()), caller, expires_at), stored is not None)


def line_of(key_id: str, key: str, *, rate_limit: str, expiry: str, words: Mapping[str, str]) -> str:
    """A line as it is written; empty texts are left out."""
    head = ":".join((key_id, key, rate_limit, expiry)).rstrip(":")
    return " ".join((head, *(f"{name}={value}" for name, value in words.items() if value)))


def with_key(line: str, key: str, *, expiry: str = "") -> str:
    """A valid line with another key, or what it hashes to, and another expiry where one is given."""
    head, *tail = line.split(None, 1)
    parts = head.split(":", 3)
    parts[1] = key
    if expiry:
        parts = [*[*parts, "", ""][:3], expiry]
    return " ".join((":".join(parts), *tail)).rstrip()


def with_hash(line: str) -> str:
    """A valid line with what its key hashes to in the key's place."""
    return with_key(line, hashed(line.split(None, 1)[0].split(":", 2)[1]))


def check_line(line: str) -> None:
    """Raises LineError for what is not one valid line with a key."""
    if not line.isprintable() or parse_line(line, 1) is None:
        raise LineError("a line has no line breaks and no other control characters")


def check_id(key_id: str) -> None:
    """Raises LineError for an id that logs could not carry, or that looks like a key in the wrong place."""
    if not _ID.fullmatch(key_id):
        raise LineError("a key id is 1 to 64 letters, digits, and ._@-")
    if _LIKE_A_KEY.fullmatch(key_id):
        raise LineError("the key id looks like a key: the id comes first, then the key")


def expiry_at(text: str) -> float:
    """Seconds since 1970 of an ISO date or time; without an offset it is UTC.

    Raises LineError.
    """
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise LineError("the expiry is not an ISO time such as 2027-01-01T00:00:00Z") from None


def check_key(key: str) -> None:
    """Raises LineError for a key that the file does not take."""
    if key.startswith(HASHED):
        raise LineError(f"after {HASHED} come 64 hexadecimal digits")
    if len(key) < KEY_CHARS_MIN:
        raise LineError(f"the key is shorter than {KEY_CHARS_MIN} characters")
    if not key.isprintable() or any(between in key for between in (" ", ":")):
        raise LineError("the key has a character that a line or a header cannot carry")


def _words(tail: str) -> tuple[dict[str, int], dict[str, frozenset[str]], Priority]:
    numbers: dict[str, int] = {}
    sets: dict[str, frozenset[str]] = {}
    priority: Priority = "interactive"
    seen: set[str] = set()
    for word in filter(None, _BETWEEN_WORDS.split(tail)):
        if word.startswith("#"):
            break
        name, _, value = word.partition("=")
        if name not in {*_NUMBERS, *_SETS, "priority"}:
            raise LineError("after the key come words: tpm=, concurrent=, monthly=, models=, routes=, priority=")
        if name in seen:
            raise LineError(f"{name}= is there twice")
        seen.add(name)
        if name in _NUMBERS:
            numbers[_NUMBERS[name]] = _number(value, f"{name}=") or UNBOUNDED
        elif name in _SETS:
            sets[name] = _set(name, value)
        elif value in PRIORITIES:
            priority = cast("Priority", value)
        else:
            raise LineError(f"priority= is one of {', '.join(PRIORITIES)}")
    return numbers, sets, priority


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_NUMBER_MAX)):
        raise LineError(f"{what} is not a whole number of at most {_NUMBER_MAX}")
    return int(text)


def _set(name: str, value: str) -> frozenset[str]:
    items = frozenset(value.split("|"))
    if "" in items:
        raise LineError(f"{name}= has an empty name; they are separated by |")
    if name == "routes" and not all(item.startswith(("/", "*")) for item in items):
        raise LineError("routes= are paths: they begin with /")
    return items


def _refuse_second(seen: dict[str, int] | dict[bytes, int], value: str | bytes, what: str) -> None:
    first = cast("dict[str | bytes, int]", seen).get(value)
    if first is not None:
        raise LineError(f"its {what} is already in line {first}")
