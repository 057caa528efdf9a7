"""Streams that say nothing more: left by their gateway, when nobody else noticed."""

from __future__ import annotations

import asyncio

from dataplane_support import live_timers, rig
from neurogate import virtual_time
from neurogate.channel import End
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.errors import StreamBrokenError
from neurogate.gateway.resilience_settings import ResilienceSettings
from neurogate.testing.workers import Script, answers
from neurogate.worker.vigil import WatchSettings

WATCHED = DispatchLimits(stall_s=60.0)


def test_a_stream_that_falls_silent_is_left_and_its_worker_is_told():
    async def main() -> None:
        async with rig(limits=WATCHED) as made:
            made.worker().script = Script(((0.0, b"a"), (30.0, b"b")))
            _, receiver = made.send()
            await receiver.last_word()

            assert receiver.chunks == [b"a", b"b"]
            assert isinstance(receiver.error, StreamBrokenError)
            assert "nothing came for" in receiver.error.message
            assert "NEUROGATE_STALL_S" in receiver.error.message
            assert receiver.ended_at is not None
            assert 90 <= receiver.ended_at <= 120
            assert made.worker().calls[0].cancelled
            assert made.member().breaker.consecutive_failures == 1

    virtual_time.run(main())


def test_slow_is_not_silent():
    async def main() -> None:
        async with rig(limits=WATCHED) as made:
            made.worker().script = answers(b"a", b"b", b"c", every_s=59.0)
            receiver = await made.ask()

            assert receiver.last_words == ["complete"]

    virtual_time.run(main())


def test_a_first_token_may_take_its_time():
    """How long a prompt may be computed is the worker's to say."""

    async def main() -> None:
        async with rig(limits=WATCHED) as made:
            made.worker().script = answers(b"a", first_s=250.0)
            receiver = await made.ask()

            assert receiver.last_words == ["complete"]

    virtual_time.run(main())


def test_unless_told_otherwise_no_worker_is_more_patient_than_the_gateway():
    """Tool calls, which an engine holds back, are what workers wait for longest."""

    async def main() -> None:
        longest_s = 5 * WatchSettings().stall_prefill_s
        async with rig(limits=DispatchLimits(stall_s=ResilienceSettings().stall_s)) as made:
            made.worker().script = answers(b"role", b"call", every_s=longest_s + 60.0)
            receiver = await made.ask(timeout_s=3600.0)

            assert receiver.last_words == ["complete"]

    virtual_time.run(main())


def test_nothing_is_looked_at_when_there_is_no_stream():
    async def main() -> None:
        async with rig(limits=WATCHED) as made:
            made.worker().script = answers(b"a")
            await made.ask()
            await asyncio.sleep(60)

            assert live_timers(asyncio.get_running_loop()) == []

    virtual_time.run(main())


def test_a_running_gateway_may_be_told_to_leave_it_to_the_workers():
    async def main() -> None:
        async with rig(limits=WATCHED) as made:
            made.worker().script = Script(((0.0, b"a"), (200.0, End(http_status=200))))
            _, receiver = made.send()
            await asyncio.sleep(1)
            made.dispatcher.configure(DispatchLimits())
            await receiver.last_word()

            assert receiver.last_words == ["complete"]
            assert live_timers(asyncio.get_running_loop()) == []

    virtual_time.run(main())
