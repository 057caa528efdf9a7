"""Where a key stands against its bounds, and how that is told: headers, and the words of a refusal.

Whatever counts, in memory or in Redis, fills in a `Standing`; nothing here counts.
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from neurogate.edge.caller import UNLIMITED, Quota
from neurogate.edge.limits import Header
from neurogate.errors import QuotaExhaustedError, RateLimitedError

NO_RETRY: Header = (b"x-should-retry", b"false")
"""OpenAI's and Anthropic's clients obey it; without it they would wait for what no waiting brings."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What a key has used, this request included when it was taken."""

    requests: int = 0
    requests_reset_s: float = 0.0
    """Seconds until none of them counts any more."""
    tokens: int = 0
    tokens_reset_s: float = 0.0
    concurrent: int = 0
    month_tokens: int = 0


def effective(quota: Quota, defaults: Quota) -> Quota:
    """The bounds that hold for a key: its own, and the default where it has 0; a negative one of its own is none."""
    if quota is UNLIMITED:
        return defaults
    return Quota(
        _effective(quota.requests_per_minute, defaults.requests_per_minute),
        _effective(quota.tokens_per_minute, defaults.tokens_per_minute),
        _effective(quota.concurrent, defaults.concurrent),
        _effective(quota.tokens_per_month, defaults.tokens_per_month),
    )


def _effective(own: int, default: int) -> int:
    return max(own or default, 0)


def headers(quota: Quota, standing: Standing) -> tuple[Header, ...]:
    """`RateLimit-*` of the bound that is nearest, as the IETF's draft has it, and OpenAI's `x-ratelimit-*` of each.

    Only what is counted by the minute is in them. The remaining count is what a request that comes now may use.
    """
    parted = (line.partition(b": ") for line in lines(quota, standing).split(b"\r\n")[:-1])
    return tuple((name, value) for name, _, value in parted)


def lines(quota: Quota, standing: Standing) -> bytes:
    """The same as lines of HTTP's head: made as one, for nearly every answer has them."""
    requests, tokens = quota.requests_per_minute, quota.tokens_per_minute
    if not requests and not tokens:
        return b""
    requests_left = requests - standing.requests if standing.requests < requests else 0
    tokens_left = tokens - standing.tokens if standing.tokens < tokens else 0
    requests_reset_s, tokens_reset_s = standing.requests_reset_s, standing.tokens_reset_s
    if not tokens:
        told: tuple[int | bytes, ...] = requests_left, _duration(requests_reset_s)
        return _form(requests, 0, of_requests=True) % (*told, requests_left, math.ceil(requests_reset_s))
    told = tokens_left, _duration(tokens_reset_s)
    if not requests:
        return _form(0, tokens, of_requests=False) % (*told, tokens_left, math.ceil(tokens_reset_s))
    reset = told[1] if requests_reset_s == tokens_reset_s else _duration(requests_reset_s)
    if requests_left * tokens <= tokens_left * requests:
        form, left, reset_s = _form(requests, tokens, of_requests=True), requests_left, requests_reset_s
    else:
        form, left, reset_s = _form(requests, tokens, of_requests=False), tokens_left, tokens_reset_s
    return form % (requests_left, reset, *told, left, math.ceil(reset_s))


@lru_cache(maxsize=1024)
def _form(requests: int, tokens: int, *, of_requests: bool) -> bytes:
    """The lines of these two limits with places for what changes; the nearest bound is that `of_requests`, or not."""
    limit, what = (requests, b"requests") if of_requests else (tokens, b"tokens")
    return (
        (_openai(b"requests", requests) if requests else b"")
        + (_openai(b"tokens", tokens) if tokens else b"")
        + b"ratelimit-limit: %d\r\nratelimit-remaining: %%d\r\nratelimit-reset: %%d\r\n" % limit
        + b'ratelimit-policy: %d;w=60;comment="%b"\r\n' % (limit, what)
    )


def _openai(what: bytes, limit: int) -> bytes:
    """With places for what is left of the limit, and for when it is whole again."""
    fields = ((b"limit", b"%d" % limit), (b"remaining", b"%d"), (b"reset", b"%b"))
    return b"".join(b"x-ratelimit-" + name + b"-" + what + b": " + value + b"\r\n" for name, value in fields)


def _duration(seconds: float) -> bytes:
    """As OpenAI writes it: 120ms, 12.5s, 1m0s."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    return _tenths(math.ceil(seconds * 10))


@lru_cache(maxsize=1024)
def _tenths(tenths: int) -> bytes:
    minutes, rest = divmod(tenths / 10, 60)
    return b"%dm%gs" % (minutes, rest) if minutes else b"%gs" % rest


def requests_refused(key_id: str, quota: Quota, standing: Standing, wait_s: float) -> RateLimitedError:
    """The key's requests a minute are used up."""
    limit = quota.requests_per_minute
    told = f"limit {limit}, used {standing.requests}, requested 1"
    return _refused(f"requests per minute (RPM): {told}", key_id, quota, standing, wait_s=wait_s, limit="requests")


def tokens_refused(key_id: str, quota: Quota, standing: Standing, tokens: int, wait_s: float) -> RateLimitedError:
    """The key's tokens a minute are used up, or too few are left for this request."""
    told = f"limit {quota.tokens_per_minute}, used {standing.tokens}, requested {tokens}"
    return _refused(f"tokens per minute (TPM): {told}", key_id, quota, standing, wait_s=wait_s, limit="tokens")


def concurrency_refused(key_id: str, quota: Quota, standing: Standing) -> RateLimitedError:
    """As many of the key's requests are in flight as may be."""
    return RateLimitedError(
        f"Rate limit reached for key {key_id} on concurrent requests: limit {quota.concurrent}, "
        f"in flight {standing.concurrent}. Please wait until one has ended.",
        headers=headers(quota, standing),
        limit="concurrent",
    )


def too_large(key_id: str, quota: Quota, tokens: int) -> RateLimitedError:
    """The request alone is more than the key's tokens a minute: it must not be tried again as it is."""
    error = RateLimitedError(
        f"Request too large for key {key_id} on tokens per minute (TPM): limit {quota.tokens_per_minute}, "
        f"requested {tokens}. The prompt or the maximum of answer tokens must be reduced.",
        headers=(NO_RETRY,),
        limit="tokens",
    )
    error.retry_after_s = None
    return error


def month_refused(key_id: str, quota: Quota, standing: Standing, tokens: int, wait_s: float) -> RateLimitedError:
    """The key's tokens of this month are used up, or too few are left for this request."""
    return QuotaExhaustedError(
        f"You exceeded the current quota of key {key_id}: {quota.tokens_per_month} tokens per calendar month (UTC), "
        f"used {standing.month_tokens}, requested {tokens}.",
        retry_after_s=math.ceil(wait_s),
        headers=(*headers(quota, standing), NO_RETRY),
        limit="budget",
    )


def _refused(
    bound: str, key_id: str, quota: Quota, standing: Standing, *, wait_s: float, limit: str
) -> RateLimitedError:
    return RateLimitedError(
        f"Rate limit reached for key {key_id} on {bound}. Please try again in {max(wait_s, 0.01):.2f}s.",
        retry_after_s=math.ceil(wait_s),
        headers=headers(quota, standing),
        limit=limit,
    )
