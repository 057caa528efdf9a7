"""No secret reaches a log, wherever in a line it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurogate.edge.settings import KeySettings, LimitSettings
from neurogate.gateway.settings import AdminSettings, GatewayConfig
from neurogate.telemetry.masking import Mask, secrets_of
from neurogate.telemetry.settings import TraceSettings

SECRET = "correct-horse-battery"
KNOWN = Mask([SECRET])
UNKNOWN = Mask()


def line(mask: Mask, **fields: object) -> dict[str, object]:
    return dict(mask(None, "info", dict(fields)))


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"the key {SECRET} is wrong",
        f"x{SECRET}y",
        [SECRET],
        (1, {SECRET}),
        {"inner": {"deep": f"={SECRET}"}},
        SECRET.encode(),
        Path("/tmp") / SECRET,
        ValueError(SECRET),
    ],
    ids=repr,
)
def test_a_known_secret_is_masked_in_whatever_holds_it(value: object) -> None:
    shown = json.dumps(line(KNOWN, event="it failed", value=value), default=str)
    assert SECRET not in shown
    assert "********" in shown


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: {SECRET}",
        f"headers={{'Authorization': 'Bearer {SECRET}'}}",
        f"[(b'authorization', b'Bearer {SECRET}'), (b'host', b'x')]",
        f'{{"x-api-key": "{SECRET}"}}',
        f"Proxy-Authorization: Basic {SECRET}",
        f"Cookie: session={SECRET}",
        f"Cookie: theme=dark; session={SECRET}",
        f"set-cookie: theme=dark, session={SECRET}; Path=/",
        f"Authorization: Digest username=bob, response={SECRET}",
        f'authorization: Digest username="bob", response="{SECRET}"',
        f"Authorization: AWS4-HMAC-SHA256 Credential=a/b, Signature={SECRET}",
        f"{{'Authorization': 'Digest username=\"bob\", response=\"{SECRET}\"'}}",
        f"(b'cookie', b'theme=dark; session={SECRET}')",
        f'{{"headers": "{{\\"Cookie\\": \\"theme=dark; session={SECRET}\\"}}"}}',
        f'{{"password": "a \\"b\\", {SECRET}"}}',
        f'{{"text": "{{\\"password\\": \\"a\\\\\\"b {SECRET}\\"}}"}}',
        f"b'GET / HTTP/1.1\\r\\nCookie: a=b; c={SECRET}\\r\\n'",
        f'password="two words, {SECRET}"',
        f"GET /x?key={SECRET} HTTP/1.1",
        f"https://models.example/v1?alt=sse&key={SECRET}&x=1",
        f"GET /x?api_key={SECRET}&model=tiny",
        f"password={SECRET}",
        f"token: {SECRET}",
        f"sent bearer {SECRET}, refused",
        "Basic dXNlcjpwYXNzd29yZA==",
        f"redis://user:{SECRET}@cache:6379/0 does not answer",
        f"https://{SECRET}@models.example/x",
        "invalid key sk-abcdefghijklmnop1234",
        "hf_abcdefghijklmnop1234",
        "the key AIzaSy-abcdefghijklmnop1234_6789012345x of a project",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl",
        f'Traceback:\n  File "x.py", line 1\nError: 401 for Authorization: Bearer {SECRET}',
    ],
)
def test_what_looks_like_a_secret_is_masked_though_nobody_knows_it(text: str) -> None:
    masked = str(line(UNKNOWN, event=text)["event"])
    assert "********" in masked
    for secret in (SECRET, "dXNlcjpwYXNzd29yZA", "abcdefghijklmnop1234", "c2lnbmF0dXJl"):
        assert secret not in masked


def test_what_stands_around_a_secret_stays() -> None:
    assert UNKNOWN.text(f"redis://user:{SECRET}@cache:6379/0 is gone") == "redis://********@cache:6379/0 is gone"
    assert UNKNOWN.text(f"GET /x?api_key={SECRET}&model=tiny") == "GET /x?api_key=********&model=tiny"
    assert UNKNOWN.text(f"Authorization: Bearer {SECRET}\nHost: x") == "Authorization: ********\nHost: x"
    assert UNKNOWN.text(f"Cookie: a=b; c={SECRET}\r\nHost: x") == "Cookie: ********\r\nHost: x"
    assert UNKNOWN.text(f"{{'cookie': 'a=b; c={SECRET}', 'host': 'x'}}") == "{'cookie': '********', 'host': 'x'}"
    assert UNKNOWN.text(f'{{"token": "a \\" {SECRET}", "n": 1}}') == '{"token": "********", "n": 1}'
    assert UNKNOWN.text(f"GET /x?key={SECRET}&model=tiny") == "GET /x?key=********&model=tiny"
    assert UNKNOWN.text("password:\n  next: line") == "password:\n  next: line"


@pytest.mark.parametrize("name", ["authorization", "Authorization", "api_key", "x-api-key", "password", "token"])
def test_a_field_that_can_be_nothing_else_is_masked_whole(name: str) -> None:
    assert line(UNKNOWN, **{name: "a b"}) == {name: "********"}
    assert line(UNKNOWN, headers={name: "a b"}) == {"headers": {name: "********"}}
    assert line(UNKNOWN, **{name: ""}) == {name: ""}


@pytest.mark.parametrize(
    "value",
    [
        "worker listens",
        "key-1",
        "max_tokens=5 tokens: 7",
        "basic usage of the bearer of news",
        "http://collector:4318/v1/traces",
        "tokens a second, the secretary's token",
        "no token, retrying in 5 s",
        "neither a password, nor a cookie, nor an authorization header",
        'there is no "token", but that is fine',
        "key=alice, keys: 3, monkey=no",
        "password=''",
        5,
        2.5,
        True,
        None,
        ["a", 1],
        Path("/etc/neurogate.yaml"),
    ],
    ids=repr,
)
def test_what_is_no_secret_stays_as_it_is(value: object) -> None:
    assert line(KNOWN, key="alice", value=value) == {"key": "alice", "value": value}


def test_short_secrets_do_not_tear_words() -> None:
    assert Mask(["a", "", "abcd"]).text("abcdef") == "abcdef"


def test_secrets_may_change() -> None:
    mask = Mask(["first-secret"])
    mask.know(["second-secret", "second-secret-longer"])
    assert mask.text("first-secret second-secret-longer second-secret") == "first-secret ******** ********"


def test_the_secrets_of_a_configuration_are_its_keys_and_its_passwords() -> None:
    config = GatewayConfig(
        keys=KeySettings(api_keys=("plain-key-1", "sha256$abc")),
        admin=AdminSettings(admin_key=("ops:admin-key-123",)),
        limits=LimitSettings(redis_url="redis://user:p%40ssword@cache:6379/0"),
        tracing=TraceSettings(otlp_headers="api-key=abc%20def,x=1"),
    )
    found = secrets_of(config)
    assert {"plain-key-1", "ops:admin-key-123", "admin-key-123", "p%40ssword", "p@ssword", "abc def"} <= found
    assert not {text for text in found if "cache" in text or not text}
    assert secrets_of(GatewayConfig()) == set()
