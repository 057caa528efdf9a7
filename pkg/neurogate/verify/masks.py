"""What a server stamps into an answer by itself, taken out of it so that the rest can be compared byte for byte.

Values are replaced where they stand; not a byte around them is touched. An id is replaced by its rank among the ids of
its answer, so that a stream in which two answers are mixed does not look like one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_STAMPS = (
    "created", "created_at", "completed_at", "system_fingerprint", "timings", "id_slot",
    "cached_tokens", "tokens_cached", "cache_read_input_tokens",
    "total_duration", "load_duration", "prompt_eval_duration", "eval_duration",
)  # fmt: skip
_IDS = ("id", "item_id")

NORMALISED = (
    f"values of the JSON fields {', '.join(_STAMPS)}: time, and the state of the engine's cache",
    f"values of the JSON fields {', '.join(_IDS)}: made up by the server; which of an answer are equal is compared",
    "whole JSON answers: the order of fields and the spaces between them (ADR 0008); their field values are compared",
    "streams: comments (lines that begin with a colon), which proxies send to keep a connection open",
    "headers: of all, only the media type of the answer is compared",
    "/v1/models: only the ids; a fleet may have more models than one engine",
    "refusals (4xx): that both refuse, and with JSON; a gateway words its own, and gives 404 for an unknown model",
)

_VALUE = rb'(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|null|\{[^{}]*\})'
_STAMPED = re.compile(rb'("(?:%s)"\s*:\s*)%s' % ("|".join(_STAMPS).encode(), _VALUE))
_NAMED = re.compile(rb'("(?:%s)"\s*:\s*)(%s)' % ("|".join(_IDS).encode(), _VALUE))
_RANK = re.compile(rb"<id \d+>")
_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r)|.+\Z", re.DOTALL)


def masked(body: bytes) -> bytes:
    """An answer without its stamps."""
    ranks: dict[bytes, bytes] = {}

    def ranked(match: re.Match[bytes]) -> bytes:
        return match[1] + ranks.setdefault(match[2], b"<id %d>" % (len(ranks) + 1))

    return _NAMED.sub(ranked, _STAMPED.sub(rb"\1<stamp>", body))


def answers_in(parts: Iterable[bytes]) -> int:
    """How many answers, by their ids, the masked parts of one answer come from."""
    return len({rank for part in parts for rank in _RANK.findall(part)})


def events(body: bytes, media_type: str) -> tuple[bytes, ...]:
    """A stream's events or lines, each with whatever ends it."""
    if media_type == "application/x-ndjson":
        return tuple(body.splitlines(keepends=True))
    return tuple(event for event in _EVENT.findall(body) if not _is_comment(event))


def canonical(body: bytes) -> bytes:
    """A whole JSON answer in one fixed order; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(_quoted(body)), sort_keys=True).encode()
    except ValueError:
        return body


def _quoted(masked_body: bytes) -> bytes:
    return re.sub(rb"(?<=[:\s])<(stamp|id \d+)>", rb'"<\1>"', masked_body)


def _is_comment(event: bytes) -> bool:
    return all(line.startswith(b":") for line in event.splitlines() if line)
