"""Whatever comes, leaves or is cancelled: turns never exceed the room, and everybody is served or told."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane_support import turns
from neurogate import virtual_time
from neurogate.edge.admission import Admission, Ticket
from neurogate.edge.caller import Priority
from neurogate.edge.settings import AdmissionSettings
from neurogate.errors import QueueTimeoutError

KEYS = ("a", "b", "c")
PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from(KEYS), st.sampled_from(PRIORITIES), st.sampled_from(("m", "n"))),
        st.tuples(st.just("finish")),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("sleep"), st.floats(0.1, 5)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, room=st.integers(1, 3))
def test_turns_and_room(steps: list[tuple[object, ...]], room: int):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        running = 0
        most = 0
        told: list[str] = []
        tickets: list[Ticket] = []
        tasks: list[asyncio.Task[None]] = []
        admission = Admission(
            AdmissionSettings(queue_timeout_s=3),
            has_room=lambda _, taken: running + taken < room,
            loop=loop,
        )

        async def visit(ticket: Ticket) -> None:
            nonlocal running, most
            try:
                if not await ticket.turn():
                    told.append("left")
                    return
            except QueueTimeoutError:
                told.append("late")
                return
            running += 1
            most = max(most, running)
            told.append("served")

        for step in steps:
            match step:
                case ("come", str(key), priority, str(model)):
                    ticket = admission.queue((model, ""), key_id=key, priority=priority, deadline=1e9)  # type: ignore[arg-type]
                    tickets.append(ticket)
                    tasks.append(loop.create_task(visit(ticket)))
                case ("finish",) if running:
                    running -= 1
                    admission.wake()
                case ("leave", int(index)) if tickets:
                    tickets[index % len(tickets)].leave()
                case ("cancel", int(index)) if tasks:
                    tasks[index % len(tasks)].cancel()
                    tickets[index % len(tasks)].leave()  # a task that never began
                case ("sleep", float(seconds)):
                    await asyncio.sleep(seconds)
            await turns(1)
        await asyncio.sleep(4)  # everybody who still waits is told that it took too long
        done = await asyncio.gather(*tasks, return_exceptions=True)

        cancelled = sum(isinstance(result, asyncio.CancelledError) for result in done)
        assert len(told) + cancelled == len(tickets)
        assert most <= room
        assert (admission.waiting, admission.taken) == (0, 0)

    virtual_time.run(main())
