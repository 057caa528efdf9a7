"""How long the clients of a key wait: learned from many, disproved by one, and soon forgotten."""

from __future__ import annotations

import math
import random

import pytest

from neurogate.edge.patience import Patience

KEY = "chat"


class Clients:
    """Clients of keys, one ending a tenth of a second after the other."""

    def __init__(self) -> None:
        self.patience = Patience()
        self.now = 1000.0
        self._rng = random.Random(4)

    def leave(self, count: int, *, waited_s: float, age_s: float, key: str = KEY, usual_s: float = 1.0) -> None:
        for _ in range(count):
            self.now += 0.1
            self.patience.gave_up(key, waited_s=waited_s, age_s=age_s, usual_s=usual_s, now=self.now)

    def cancel(self, count: int, *, waited_s: float = 2.0, usual_s: float = 1.0) -> None:
        """As people and editors do: at any time."""
        for _ in range(count):
            self.leave(1, waited_s=waited_s, age_s=waited_s + self._rng.uniform(0, 3 * waited_s), usual_s=usual_s)

    def get_answers(self, count: int, *, waited_s: float = 0.5, age_s: float = 1.5, key: str = KEY) -> None:
        for _ in range(count):
            self.now += 0.1
            self.patience.answered(key, waited_s=waited_s, age_s=age_s, now=self.now)

    def limit_s(self, key: str = KEY) -> float:
        return self.patience.limit_s(key, self.now)


def test_nothing_is_known_of_a_key_whose_clients_stay() -> None:
    clients = Clients()
    clients.get_answers(100)
    assert clients.limit_s() == math.inf


def test_a_few_who_leave_shorten_nothing() -> None:
    clients = Clients()
    for _ in range(100):
        clients.cancel(1, waited_s=20)
        clients.get_answers(2)
    assert clients.limit_s() == math.inf
    clients = Clients()
    clients.cancel(15, waited_s=20)
    assert clients.limit_s() == math.inf


def test_when_half_of_many_leave_others_of_that_key_may_wait_less_than_they_did() -> None:
    clients = Clients()
    for _ in range(16):
        clients.get_answers(1)
        clients.cancel(1, waited_s=20)
    assert clients.limit_s() == pytest.approx(14.0)
    assert clients.limit_s("other") == math.inf


def test_people_who_cancel_have_nobody_refused_who_would_wait_less_than_five_seconds() -> None:
    clients = Clients()
    for _ in range(100):
        clients.cancel(16, waited_s=2)
        clients.now += 2
    assert clients.limit_s() >= 5.0


def test_clients_with_a_timeout_are_told_what_they_would_not_wait_for_however_short_it_is() -> None:
    clients = Clients()
    clients.leave(16, waited_s=2.5, age_s=3.0)
    assert clients.limit_s() == pytest.approx(0.7 * 2.0)
    for _ in range(100):
        clients.now += 3
        clients.leave(4, waited_s=0.1, age_s=3.0, usual_s=0.1)
    assert clients.limit_s() >= 1.0


def test_people_who_cancel_change_nothing_of_what_is_known_of_a_timeout() -> None:
    clients = Clients()
    clients.leave(16, waited_s=2.5, age_s=3.0)
    clients.now += 10
    before = clients.limit_s()
    clients.cancel(4, waited_s=1.5)
    assert before < clients.limit_s() < 1.1 * before


def test_the_wait_is_never_shortened_below_what_requests_take() -> None:
    clients = Clients()
    for _ in range(10):
        clients.cancel(16, waited_s=2, usual_s=12.0)
        clients.now += 2
    assert clients.limit_s() == pytest.approx(12.0, rel=0.1)


def test_who_came_when_the_wait_was_longer_shortens_it_no_more() -> None:
    clients = Clients()
    clients.cancel(16, waited_s=20)
    before = clients.limit_s()
    clients.cancel(16, waited_s=19)
    assert clients.limit_s() > before


def test_it_takes_few_to_go_on_believing_it() -> None:
    clients = Clients()
    clients.cancel(16, waited_s=20)
    clients.now += 70
    assert clients.limit_s() > 20.0
    clients.get_answers(12)
    clients.cancel(4, waited_s=20)
    assert clients.limit_s() == pytest.approx(14.0)


def test_fewer_than_a_quarter_change_nothing() -> None:
    clients = Clients()
    clients.cancel(16, waited_s=20)
    for _ in range(20):
        clients.now += 1
        clients.get_answers(13)
        clients.cancel(3, waited_s=10)
    assert clients.limit_s() > 15.0


def test_one_who_waited_longer_than_those_who_left_and_was_answered_disproves_it_at_once() -> None:
    clients = Clients()
    clients.cancel(16, waited_s=20)
    clients.get_answers(1, waited_s=19.9, age_s=22)
    assert clients.limit_s() == pytest.approx(14.0, rel=0.02)
    clients.get_answers(1, waited_s=20.1, age_s=22)
    assert clients.limit_s() == math.inf


def test_one_who_stayed_longer_than_the_timeout_disproves_it() -> None:
    clients = Clients()
    clients.leave(16, waited_s=20, age_s=30)
    clients.get_answers(1, waited_s=1, age_s=32)
    assert clients.limit_s() < math.inf
    clients.get_answers(1, waited_s=1, age_s=34)
    assert clients.limit_s() == math.inf


def test_what_is_not_seen_again_is_believed_less_and_less_and_forgotten_in_two_minutes() -> None:
    clients = Clients()
    clients.cancel(16, waited_s=20)
    clients.now += 60
    assert clients.limit_s() == pytest.approx(14.0 * math.sqrt(2))
    clients.now += 61
    assert clients.limit_s() == math.inf


def test_what_took_long_to_learn_is_believed_for_longer() -> None:
    clients = Clients()
    for _ in range(16):
        clients.cancel(1, waited_s=200)
        clients.now += 20
    clients.now += 600
    assert clients.limit_s() < 300.0
    clients.now += 700
    assert clients.limit_s() == math.inf


def test_clients_with_a_timeout_that_came_before_it_was_known_leave_when_it_is_over() -> None:
    clients = Clients()
    clients.leave(16, waited_s=2.5, age_s=3.0)
    patience, now = clients.patience, clients.now
    assert patience.leaves_at(KEY, now - 1.0, now) == pytest.approx(now + 2.0)
    assert patience.leaves_at(KEY, now, now + 1.0) == math.inf, "those after it were told"
    assert patience.leaves_at("other", now - 1.0, now) == math.inf
    assert patience.leaves_at(KEY, now - 1.0, now + 121) == math.inf
    clients = Clients()
    clients.cancel(16, waited_s=20)
    assert clients.patience.leaves_at(KEY, clients.now - 1.0, clients.now) == math.inf, "they have none"


def test_after_a_rest_nothing_is_known() -> None:
    clients = Clients()
    clients.cancel(16, waited_s=20)
    clients.patience.rested()
    assert clients.limit_s() == math.inf


def test_keys_whose_clients_have_not_left_for_the_longest_are_forgotten() -> None:
    clients = Clients()
    clients.leave(16, waited_s=20, age_s=25, key="first")
    clients.leave(16, waited_s=20, age_s=25, key="second")
    for number in range(1022):
        clients.leave(1, waited_s=20, age_s=25, key=f"key-{number}", usual_s=0.0)
    assert clients.limit_s("second") < math.inf
    clients.leave(1, waited_s=20, age_s=25, key="second")
    clients.leave(1, waited_s=20, age_s=25, key="one more")
    assert (clients.limit_s("first"), clients.limit_s("second") < math.inf) == (math.inf, True)
