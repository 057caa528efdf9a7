"""Taking a request in: its headers, its id, its body within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.errors import BadRequestError, BodyTimeoutError, BusyError, TooLargeError
from neurogate.gateway.arrival import ClientGoneError
from neurogate.gateway.intake import (
    BodyBudget,
    Headers,
    RequestIds,
    announced_size,
    read_body,
    read_headers,
    switched_off,
    time_allowed_s,
)
from neurogate.testing.connections import FakeClient
from neurogate.virtual_time import run

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def read(client: FakeClient, *, limit: int = 100, timeout_s: float = 30) -> bytes:
    return await read_body(client.receive, limit=limit, timeout_s=timeout_s)


# Headers and ids


def test_the_headers_of_interest_are_read_in_one_pass() -> None:
    headers = read_headers(
        [
            (b"host", b"x"),
            (b"authorization", b"Bearer k"),
            (b"x-api-key", b"k"),
            (b"x-request-id", b"r"),
            (b"traceparent", TRACE),
            (b"content-length", b"5"),
        ]
    )
    assert headers == Headers(b"Bearer k", b"k", b"r", TRACE, b"5")
    assert read_headers([]) == Headers()


@pytest.mark.parametrize("offered", [b"abc", b"A-1_b.2", b"x" * 128])
def test_a_well_formed_request_id_is_kept(offered: bytes) -> None:
    assert RequestIds(lambda: 1).choose(offered) == offered.decode()


@pytest.mark.parametrize("offered", [b"", b"a b", b"x" * 129, b"a\n", b"\xff", b"a/b", b"<script>"])
def test_any_other_request_id_is_replaced(offered: bytes) -> None:
    assert RequestIds(lambda: 42).choose(offered) == "req-42"


def test_request_ids_never_repeat_even_when_the_clock_stands_or_goes_back() -> None:
    times = iter([100, 100, 100, 5, 200])
    ids = RequestIds(lambda: next(times))
    assert [ids.choose(b"") for _ in range(5)] == ["req-100", "req-101", "req-102", "req-103", "req-200"]


# Announced sizes and the memory for them


@pytest.mark.parametrize(("length", "size"), [(b"", 100), (b"0", 0), (b"7", 7), (b"100", 100), (b"007", 7)])
def test_a_body_has_the_size_it_is_announced_with(length: bytes, size: int) -> None:
    """One that is not announced may become as large as any."""
    assert announced_size(Headers(content_length=length), 100) == size


@pytest.mark.parametrize("length", [b"101", b"9" * 19, b"9" * 5000])
def test_a_size_over_the_limit_is_refused_before_anything_is_read(length: bytes) -> None:
    with pytest.raises(TooLargeError):
        announced_size(Headers(content_length=length), 100)


@pytest.mark.parametrize("length", [b"-1", b"ten", b"1.5", b" 1", b"1e9", b"\xff"])
def test_a_size_that_is_no_number_is_refused(length: bytes) -> None:
    with pytest.raises(BadRequestError, match="Content-Length"):
        announced_size(Headers(content_length=length), 100)


def test_the_bodies_of_all_requests_together_are_bounded() -> None:
    budget = BodyBudget(100)
    budget.take(60)
    budget.take(40)
    with pytest.raises(BusyError, match=r"NEUROGATE_MAX_BODIES_BYTES \(100\)"):
        budget.take(1)
    assert budget.held == 100
    budget.give(60)
    budget.take(50)
    assert budget.held == 90


# Bodies


def test_a_body_that_came_with_its_head_is_read_at_once() -> None:
    async def main() -> None:
        assert await read(FakeClient(body=b"hello")) == b"hello"
        assert await read(FakeClient(body=b"")) == b""

    run(main())


def test_a_chunked_body_is_put_together() -> None:
    async def main() -> None:
        client = FakeClient(body=[b"one ", b"two ", b"three"])
        assert await read(client) == b"one two three"
        assert client.receives == 3

    run(main())


def test_a_body_that_comes_slowly_is_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        client = FakeClient(body=b"one ", whole=False)
        loop.call_later(5, client.say, b"two ")
        loop.call_later(20, lambda: client.say(b"three", more=False))
        assert await read(client) == b"one two three"
        assert loop.time() == 20

    run(main())


def test_a_body_of_which_nothing_has_come_is_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        client = FakeClient(body=[])
        await client.receive()
        loop.call_later(5, lambda: client.say(b"late", more=False))
        assert await read(client) == b"late"

    run(main())


@pytest.mark.parametrize("sent", [[b"part"], [b"part", b"part"]])
def test_a_body_that_does_not_come_in_time_is_given_up(sent: list[bytes]) -> None:
    """The time is for the whole body: a byte now and then does not prolong it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        client = FakeClient(body=sent, whole=False)
        for second in range(1, 60):
            loop.call_later(second, client.say, b".")
        with pytest.raises(BodyTimeoutError, match="within 30 s") as refused:
            await read(client, limit=1000)
        assert (refused.value.status, loop.time()) == (408, 30)

    run(main())


def test_a_body_that_never_begins_is_given_up() -> None:
    async def main() -> None:
        client = FakeClient(body=[])
        await client.receive()
        with pytest.raises(BodyTimeoutError):
            await read(client, timeout_s=3)
        assert asyncio.get_running_loop().time() == 3

    run(main())


@pytest.mark.parametrize("body", [[b"x" * 101], [b"x" * 60, b"x" * 41], [b"x" * 60, b"x" * 60, b"never read"]])
def test_a_body_over_the_limit_is_refused(body: Iterable[bytes]) -> None:
    async def main() -> None:
        with pytest.raises(TooLargeError, match=r"larger than 100 bytes; .*NEUROGATE_MAX_BODY_BYTES") as refused:
            await read(FakeClient(body=body))
        assert refused.value.status == 413

    run(main())


def test_a_body_of_just_the_limit_passes() -> None:
    async def main() -> None:
        assert len(await read(FakeClient(body=b"x" * 100))) == 100
        assert len(await read(FakeClient(body=[b"x" * 50, b"x" * 50]))) == 100

    run(main())


@pytest.mark.parametrize("sent", [[], [b"part"]])
def test_a_client_that_leaves_before_its_body_is_whole_is_gone(sent: list[bytes]) -> None:
    async def main() -> None:
        client = FakeClient(body=sent, whole=False)
        if not sent:
            await client.receive()
        asyncio.get_running_loop().call_later(2, client.leave)
        with pytest.raises(ClientGoneError):
            await read(client)
        at_once = FakeClient(body=[])
        await at_once.receive()
        at_once.leave()
        with pytest.raises(ClientGoneError):
            await read(at_once)

    run(main())


def test_cancelling_ends_the_wait_for_a_body() -> None:
    async def main() -> None:
        client = FakeClient(body=[])
        await client.receive()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(read(client))
            await asyncio.sleep(1)
            task.cancel()
        assert task.cancelled()

    run(main())


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(1, 200))
def test_any_body_is_read_whole_or_refused(pieces: list[bytes], limit: int) -> None:
    async def main() -> None:
        whole = b"".join(pieces)
        if len(whole) > limit:
            with pytest.raises(TooLargeError):
                await read(FakeClient(body=pieces), limit=limit)
        else:
            assert await read(FakeClient(body=pieces), limit=limit) == whole

    run(main())


@pytest.mark.parametrize(
    ("told", "seconds"), [(b"", 300.0), (b"30", 30.0), (b"0.5", 0.5), (b"301", 300.0), (b"999999999", 300.0)]
)
def test_a_client_may_give_its_request_less_time_and_not_more(told: bytes, seconds: float):
    headers = read_headers([(b"x-neurogate-timeout", told)])

    assert time_allowed_s(headers, 300.0) == seconds


@pytest.mark.parametrize("told", [b"0", b"0.0", b"-1", b"1e9", b"soon", b"30s", b"inf", b"nan", b" 3", b"1" * 10])
def test_a_time_that_is_none_is_refused(told: bytes):
    with pytest.raises(BadRequestError, match="X-NeuroGate-Timeout"):
        time_allowed_s(read_headers([(b"x-neurogate-timeout", told)]), 300.0)


@pytest.mark.parametrize("value", [b"off", b"OFF", b" Off ", b"false", b"no", b"0"])
def test_a_header_may_switch_something_off_in_several_words(value: bytes) -> None:
    assert switched_off(value, "X-NeuroGate-Resume")


@pytest.mark.parametrize("value", [b"", b"on", b"TRUE", b"1"])
def test_and_leave_it_on(value: bytes) -> None:
    assert not switched_off(value, "X-NeuroGate-Resume")


def test_a_word_that_is_neither_is_refused() -> None:
    """Or a client would believe that it has opted out."""
    with pytest.raises(BadRequestError, match="X-NeuroGate-Resume: 'maybe' is not a choice: it takes on or off"):
        switched_off(b"maybe", "X-NeuroGate-Resume")
