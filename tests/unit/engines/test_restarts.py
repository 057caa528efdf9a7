"""When a dead engine is started again."""

from __future__ import annotations

import itertools
import signal

import pytest

from neurogate.engines.engine import EngineFatalError
from neurogate.engines.llamacpp.contract import EXIT_ENGINE_MISSING, EXIT_MODEL_UNUSABLE, EXIT_PORT_TAKEN
from neurogate.engines.llamacpp.restarts import Death, RestartPolicy


def died(status: int = -signal.SIGKILL, *, ready_s: float | None = None, saying: str = "words") -> Death:
    return Death(status, ready_s, saying)


def test_the_delay_doubles_from_half_a_second_to_half_a_minute() -> None:
    policy = RestartPolicy()

    delays = [policy.after(died(ready_s=1)) for _ in range(9)]

    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_minute_of_health_begins_the_delay_anew() -> None:
    policy = RestartPolicy()

    delays = [policy.after(died(ready_s=seconds)) for seconds in (1, 1, 59.9, 60, 1)]

    assert delays == [0.5, 1, 2, 0.5, 1]


@pytest.mark.parametrize("status", [EXIT_MODEL_UNUSABLE, EXIT_ENGINE_MISSING])
def test_a_first_start_that_can_never_work_is_fatal(status: int) -> None:
    with pytest.raises(EngineFatalError, match="cannot load /models/x"):
        RestartPolicy().after(died(status, saying="llama.cpp cannot load /models/x"))


@pytest.mark.parametrize("status", [EXIT_PORT_TAKEN, 1, -signal.SIGSEGV])
def test_the_third_death_before_it_was_ever_ready_is_fatal(status: int) -> None:
    policy = RestartPolicy()

    assert [policy.after(died(status)) for _ in range(2)] == [0.5, 1]
    with pytest.raises(EngineFatalError, match=r"died 3 times before it was ready.*words"):
        policy.after(died(status))


def test_a_program_that_dies_without_a_word_may_be_no_engine() -> None:
    policy = RestartPolicy()

    assert [policy.after(died(0, saying="")) for _ in range(2)] == [0.5, 1]
    with pytest.raises(EngineFatalError, match="it exited with status 0: it said nothing"):
        policy.after(died(0, saying=""))


@pytest.mark.parametrize("status", [EXIT_MODEL_UNUSABLE, -signal.SIGKILL])
def test_an_engine_that_worked_once_is_restarted_for_ever(status: int) -> None:
    policy = RestartPolicy()
    policy.after(died(ready_s=0.1))

    for _ in itertools.repeat(None, 20):
        assert policy.after(died(status)) <= 30


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (3, "it exited with status 3"),
        (-signal.SIGSEGV, "it was killed by SIGSEGV"),
        (-signal.SIGKILL, "it was killed by SIGKILL, which often means that memory ran out"),
        (-250, "it was killed by signal 250"),
    ],
)
def test_a_death_is_told_in_words(status: int, told: str) -> None:
    assert str(died(status)) == told
