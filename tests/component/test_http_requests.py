"""What the HTTP listener makes of requests that are right but unusual, and of wrong ones behind right ones."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from http_support import Echo, answer, bodies_of, listening, request
from raw_client import exchange, statuses
from real_loop import run_real

CLOSE = "Connection: close"


async def echoed(sent: bytes, **limits: Any) -> list[Any]:
    """What an echo heard of each request in these bytes."""
    async with listening(Echo(), idle_timeout_s=0.1, head_timeout_s=0.1, **limits) as made:
        return bodies_of(await exchange(made.port, sent))


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a?b=c", "/a", "b=c"),
        ("/a%20b%2Fc?%20", "/a b/c", "%20"),
        ("//a", "//a", ""),
        ("/?", "/", ""),
        ("http://host/a?b", "/a", "b"),
        ("https://host:1/a", "/a", ""),
        ("http://host", "/", ""),
        ("http://host?q", "/", "q"),
    ],
)
def test_targets_in_every_form_that_a_server_must_take(target: str, path: str, query: str) -> None:
    heard = run_real(echoed(request(target, CLOSE)))
    assert [(one["path"], one["query"]) for one in heard] == [(path, query)]


def test_options_for_the_whole_server() -> None:
    assert run_real(echoed(request("*", CLOSE, method="OPTIONS")))[0]["path"] == "*"


def test_white_space_around_a_headers_value_is_not_part_of_it() -> None:
    sent = b"POST / HTTP/1.1\r\nHost: x\r\nX-A: \t b  c \t \r\nConnection: close\r\nContent-Length: 2 \r\n\r\nab"
    [heard] = run_real(echoed(sent))
    assert ["x-a", "b  c"] in heard["headers"]
    assert heard["body"] == "ab"


def test_trailers_do_not_become_headers() -> None:
    """One might be an Authorization that the head had not."""
    sent = request("/", "Transfer-Encoding: chunked", CLOSE, method="POST")
    sent += b"2;ext=1\r\nab\r\n0\r\nAuthorization: Bearer x\r\nX-A: b\r\n\r\n"
    [heard] = run_real(echoed(sent))
    assert heard["body"] == "ab"
    assert {name for name, _ in heard["headers"]} == {"host", "transfer-encoding", "connection"}


@pytest.mark.parametrize(
    "framed",
    [
        ("Content-Length: 4", b"body"),
        ("Transfer-Encoding: chunked", b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_of_another_protocol_is_ignored(framed: tuple[str, bytes], protocol: str) -> None:
    """The request keeps its body, and the next one on the connection is a request."""
    header, body = framed
    offer = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    upgrading = request("/a", *offer, header, method="POST") + body
    heard = run_real(echoed(upgrading * 2 + request("/b", *offer) + request("/c", CLOSE)))
    assert [(one["path"], one["body"]) for one in heard] == [("/a", "body"), ("/a", "body"), ("/b", ""), ("/c", "")]


def test_an_offer_of_another_protocol_whose_body_comes_later() -> None:
    async def main() -> None:
        head = request("/a", "Connection: Upgrade, close", "Upgrade: h2c", "Content-Length: 4", method="POST")
        async with listening(Echo()) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            for piece in (head, b"bo", b"dy"):
                writer.write(piece)
                await exchange(made.port, request("/other", CLOSE))  # by now it was read
            assert [one["body"] for one in bodies_of(await reader.read())] == ["body"]
            writer.close()

    run_real(main())


def test_http_1_0_closes_unless_asked_not_to() -> None:
    async def main() -> None:
        async with listening(Echo(), idle_timeout_s=0.1) as made:
            assert statuses(await exchange(made.port, b"GET / HTTP/1.0\r\n\r\n" * 2)) == [200]
            kept = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            assert statuses(await exchange(made.port, kept)) == [200]

    run_real(main())


def test_leave_to_send_a_body_is_not_given_to_http_1_0() -> None:
    sent = request("/", "Expect: 100-continue", method="POST", body=b"ab", version="1.0")

    async def main() -> None:
        async with listening(Echo()) as made:
            assert (await exchange(made.port, sent)).startswith(b"HTTP/1.1 200 ")

    run_real(main())


def test_pipelined_requests_are_answered_in_their_order() -> None:
    sent = b"".join(request(f"/{number}", method="POST", body=b"x" * number) for number in range(1, 40))
    heard = run_real(echoed(sent + request("/last", CLOSE)))
    assert [one["path"] for one in heard] == [*(f"/{number}" for number in range(1, 40)), "/last"]
    assert [len(one["body"]) for one in heard] == [*range(1, 40), 0]


def test_too_many_pipelined_requests_are_refused_behind_the_answers_to_the_others() -> None:
    async def main() -> None:
        async with listening(Echo()) as made:
            said = statuses(await exchange(made.port, request() * 10_000))
            assert said == [200] * 65 + [400]
            assert made.refused == [400]

    run_real(main())


def test_a_request_behind_one_that_closes_the_connection_is_not_served() -> None:
    assert [one["path"] for one in run_real(echoed(request("/a", CLOSE) + request("/b")))] == ["/a"]


def test_a_refusal_waits_until_the_answers_before_it_are_whole() -> None:
    """Said at once it would stand in the middle of another answer, or be taken for one."""

    async def main() -> None:
        gate, begun = asyncio.Event(), asyncio.Event()

        async def slow(_: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            begun.set()
            await gate.wait()
            await send({"type": "http.response.body", "body": b"last"})

        async with listening(slow) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(request())
            await begun.wait()
            writer.write(b"\x00\x01\x02\r\n\r\n")
            await exchange(made.port, b"\x00")  # by now it was read
            gate.set()
            received = await reader.read()
            assert statuses(received) == [200, 400]
            assert received.index(b"last") < received.index(b"HTTP/1.1 400")
            writer.close()

    run_real(main())


def test_a_broken_request_behind_a_waiting_one_is_never_served() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def wait(_: Scope) -> None:
            await gate.wait()

        echo = Echo(wait)
        async with listening(echo) as made:
            broken = request("/broken", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n"
            receiving = asyncio.ensure_future(exchange(made.port, request("/waits") + broken))
            await exchange(made.port, b"\x00")
            gate.set()
            assert statuses(await receiving) == [200, 400]
        assert echo.paths == ["/waits"]

    run_real(main())


def test_an_app_that_reads_a_broken_body_hears_that_its_client_left() -> None:
    async def main() -> None:
        echo = Echo()
        async with listening(echo) as made:
            sent = request("/", "Transfer-Encoding: chunked", method="POST") + b"2\r\nab\r\nzz\r\n"
            assert statuses(await exchange(made.port, sent)) == [400]
        assert echo.left == 1

    run_real(main())


def test_an_answer_that_began_before_its_requests_body_broke_is_cut() -> None:
    """It cannot be followed by a refusal, and must not look whole."""

    async def main() -> None:
        begun = asyncio.Event()

        async def early(_: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            begun.set()
            while (await receive())["type"] != "http.disconnect":
                pass

        async with listening(early) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(request("/", "Transfer-Encoding: chunked", method="POST") + b"2\r\nab\r\n")
            await begun.wait()
            writer.write(b"zz\r\n")
            received = b""
            with suppress(ConnectionResetError):
                while piece := await reader.read(100):
                    received += piece
            assert b"HTTP/1.1 400" not in received
            assert not received.endswith(b"0\r\n\r\n")
            writer.close()

    run_real(main())


def test_a_small_body_that_nobody_reads_does_not_end_its_connection() -> None:
    async def main() -> None:
        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await answer(send, b"1")

        async with listening(app) as made:
            sent = request("/", method="POST", body=bytes(100_000)) + request("/", CLOSE)
            assert statuses(await exchange(made.port, sent)) == [200, 200]

    run_real(main())


def test_a_large_body_that_nobody_reads_ends_its_connection() -> None:
    """Its client could send for ever; it gets its answer first."""

    async def main() -> None:
        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await answer(send, b"1")

        async with listening(app, linger_s=0.1) as made:
            sent = request("/", method="POST", body=bytes(8 << 20)) + request("/")
            assert statuses(await exchange(made.port, sent)) == [200]

    run_real(main())


def test_a_body_over_the_listeners_own_bound_is_refused() -> None:
    async def main() -> None:
        echo = Echo()
        async with listening(echo, body_bytes=1000) as made:
            assert statuses(await exchange(made.port, request("/", method="POST", body=bytes(1001)))) == [413]
            whole = request("/", CLOSE, method="POST", body=bytes(1000))
            assert statuses(await exchange(made.port, whole)) == [200]
        assert echo.left == 1

    run_real(main())


def test_a_head_in_small_pieces_is_the_same_head() -> None:
    async def main() -> None:
        async with listening(Echo()) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            for byte in request("/a?b", "X-Empty:", "X-A: b", CLOSE, method="POST", body=b"body"):
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            [heard] = bodies_of(await reader.read())
            assert (heard["path"], heard["query"], heard["body"]) == ("/a", "b", "body")
            assert ["x-empty", ""] in heard["headers"]
            writer.close()

    run_real(main())


def test_every_answer_carries_the_security_headers() -> None:
    async def main() -> None:
        async with listening(Echo()) as made:
            for sent in (request("/", CLOSE), b"\x00"):
                received = (await exchange(made.port, sent)).lower()
                assert received.count(b"\r\nx-content-type-options: nosniff\r\n") == 1
                assert received.count(b"\r\nx-frame-options: deny\r\n") == 1
                assert received.count(b"\r\nreferrer-policy: no-referrer\r\n") == 1
                assert b"strict-transport-security" not in received
                assert received.count(b"\r\ndate: ") == 1

    run_real(main())


def test_a_bug_of_an_app_is_told_and_answered(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async def broken(_: Scope, receive: Receive, send: Send) -> None:
            raise RuntimeError("a bug")

        async def silent(_: Scope, receive: Receive, send: Send) -> None:
            pass

        for app in (broken, silent):
            async with listening(app) as made:
                assert statuses(await exchange(made.port, request())) == [500]

    run_real(main())
    said = capsys.readouterr().out
    assert "a bug" in said
    assert "without starting response" in said
