"""Browsers: which pages may call the API, and what they may see of its answers. And the port that only says `ok`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from fleet_in_process import fleet
from http_support import Echo, listening, request
from neurogate.httpd import cors, health_only
from raw_client import exchange, statuses
from real_loop import run_real

PAGE = "https://page.example"
ASKED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


def preflight(origin: str = PAGE, headers: str = "authorization,content-type,x-stainless-os") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
    }


def cors_headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def talk(origins: tuple[str, ...], method: str, path: str, headers: Mapping[str, str], **request: Any) -> Any:
    async with fleet(cors_origins=origins) as made:
        return await made.client.request(method, path, headers=headers, **request)


def test_without_origins_a_browser_gets_no_leave() -> None:
    answer = run_real(talk((), "OPTIONS", "/v1/chat/completions", preflight()))
    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
    assert cors_headers(answer) == {}
    answer = run_real(talk((), "POST", "/v1/chat/completions", {"Origin": PAGE}, json=ASKED))
    assert answer.status_code == 200
    assert cors_headers(answer) == {}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/nothing"])
def test_a_preflight_is_answered_for_every_path_without_a_key(path: str) -> None:
    async def main() -> httpx.Response:
        async with fleet(cors_origins=(PAGE,)) as made, httpx.AsyncClient(base_url=made.url) as anybody:
            return await anybody.options(path, headers=preflight())

    answer = run_real(main())
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
    allowed = answer.headers["access-control-allow-headers"]
    assert allowed.startswith("Authorization, Content-Type")
    assert "x-stainless-os" in allowed
    assert answer.headers["access-control-max-age"] == "86400"
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_may_read_answers_and_the_headers_that_matter(stream: bool) -> None:
    answer = run_real(
        talk((PAGE, "http://localhost:3000"), "POST", "/v1/chat/completions", {"Origin": PAGE},
             json={**ASKED, "stream": stream})
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert answer.headers["x-request-id"]


def test_a_page_may_read_errors() -> None:
    headers = {"Origin": PAGE, "Authorization": "Bearer wrong"}
    answer = run_real(talk((PAGE,), "POST", "/v1/chat/completions", headers, json=ASKED))
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_page_from_elsewhere_gets_no_leave() -> None:
    other = "https://other.example"
    answer = run_real(talk((PAGE,), "OPTIONS", "/v1/models", preflight(other)))
    assert (answer.status_code, cors_headers(answer), answer.headers["vary"]) == (204, {}, "Origin")
    answer = run_real(talk((PAGE,), "GET", "/v1/models", {"Origin": other}))
    assert (answer.status_code, cors_headers(answer), answer.headers["vary"]) == (200, {}, "Origin")


def test_any_page_may_call_when_the_origin_is_a_star() -> None:
    answer = run_real(talk(("*",), "GET", "/v1/models", {"Origin": "https://anything.example"}))
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "vary" not in answer.headers


def test_a_preflight_with_a_broken_list_gets_the_usual_headers_only() -> None:
    answer = run_real(talk(("*",), "OPTIONS", "/v1/models", preflight(headers="a:b")))
    assert answer.headers["access-control-allow-headers"] == "Authorization, Content-Type, X-API-Key, X-Request-ID"


def test_a_request_without_an_origin_is_not_touched() -> None:
    answer = run_real(talk((PAGE,), "GET", "/v1/models", {}))
    assert (answer.status_code, cors_headers(answer)) == (200, {})


def test_an_options_request_that_is_no_preflight_reaches_the_app() -> None:
    async def main() -> None:
        async with listening(cors.around(Echo(), ("*",))) as made:
            sent = request("/", f"Origin: {PAGE}", "Connection: close", method="OPTIONS")
            assert statuses(await exchange(made.port, sent)) == [200]

    run_real(main())


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_the_health_only_app_says_ok_to_anything(method: str) -> None:
    async def main() -> None:
        async with listening(health_only.app) as made, httpx.AsyncClient() as client:
            for path in ("/", "/health", "/ready", "/anything?at=all", "/v1/chat/completions"):
                answer = await client.request(method, f"http://127.0.0.1:{made.port}{path}")
                assert (answer.status_code, answer.content) == (200, b"" if method == "HEAD" else b"ok\n")

    run_real(main())


def test_the_health_only_app_answers_before_a_body_and_the_connection_goes_on() -> None:
    async def main() -> None:
        async with listening(health_only.app) as made, httpx.AsyncClient() as client:
            for _ in range(2):
                answer = await client.post(f"http://127.0.0.1:{made.port}/health", content=b"x" * 10_000)
                assert (answer.status_code, answer.content) == (200, b"ok\n")

    run_real(main())
