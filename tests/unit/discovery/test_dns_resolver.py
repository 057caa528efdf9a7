"""Workers by DNS, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from discovery_support import followed
from neurogate.discovery.dns import DnsResolver, Record, worker_name
from neurogate.discovery.resolver import EMPTY_S
from neurogate.discovery.sources import DnsSource, parse
from neurogate.endpoint import Endpoint
from neurogate.testing.sources import FakeNames, RecordingSourceObserver
from neurogate.virtual_time import run

NAME = "workers.example"


class Made:
    """A resolver with what it asks and tells."""

    def __init__(
        self,
        text: str = f"dns:{NAME}:50051",
        *,
        ttl_s: float = 5.0,
        refresh_s: float = 5.0,
        known: tuple[Endpoint, ...] = (),
    ) -> None:
        self.names = FakeNames(ttl_s=ttl_s)
        self.observer = RecordingSourceObserver()
        source = parse(text)
        assert isinstance(source, DnsSource)
        self.resolver = DnsResolver(
            source,
            self.names,
            refresh_s=refresh_s,
            observer=self.observer,
            loop=asyncio.get_running_loop(),
            rng=random.Random(1),
            known=known,
        )

    def intervals(self, kind: str = "A") -> list[float]:
        times = [at for at, _, asked in self.names.asked if asked == kind]
        return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_every_address_is_a_worker_called_by_it():
    async def main() -> None:
        made = Made()
        made.names.put(NAME, "A", ["10.0.0.2", "10.0.0.1", "10.0.0.2"])
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
        assert seen.sets == [
            (Endpoint(worker_name("10.0.0.1"), "10.0.0.1:50051"), Endpoint(worker_name("10.0.0.2"), "10.0.0.2:50051"))
        ]
        assert made.observer.heard == [("found", "dns:workers.example:50051", 2)]

    run(main())


def test_a_name_made_of_an_address_does_not_tell_it_and_never_changes():
    """Clients see names; metrics and dashboards know a worker by its own."""
    assert worker_name("10.0.0.1") == "worker-c436f0655f"
    assert worker_name("fd00::5") == "worker-eee298bcc9"


def test_a_name_with_both_families_is_taken_by_ipv4_and_one_without_by_ipv6_in_brackets():
    async def main() -> None:
        made = Made()
        made.names.put(NAME, "A", ["10.0.0.1"])
        made.names.put(NAME, "AAAA", ["fd00::5"])
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            assert seen.last == {worker_name("10.0.0.1"): "10.0.0.1:50051"}
            made.names.put(NAME, "A", [])
            await asyncio.sleep(6)
            assert seen.last == {worker_name("fd00::5"): "[fd00::5]:50051"}

    run(main())


def test_ipv4_addresses_are_taken_whatever_becomes_of_the_question_for_ipv6_which_counts_where_there_are_none():
    """Name servers that fail, or keep silent, for AAAA alone are common."""

    async def main() -> None:
        made = Made()
        made.names.put(NAME, "A", ["10.0.0.1"])
        made.names.failing_kinds = {"AAAA"}
        async with followed(made.resolver) as seen:
            await asyncio.sleep(30)
            assert set(seen.last.values()) == {"10.0.0.1:50051"}
            assert made.observer.reasons == []
            made.names.put(NAME, "A", [])
            await asyncio.sleep(EMPTY_S * 2)
            assert set(made.observer.reasons) == {"AAAA: SERVFAIL"}
            made.names.failing_kinds = {"A"}
            made.names.put(NAME, "AAAA", ["fd00::5"])
            await asyncio.sleep(10)
            assert made.observer.reasons[-1] == "A: SERVFAIL"
            assert len(seen.sets) == 1, "who could not be asked has not said that there is nobody"

    run(main())


def test_who_comes_and_goes_is_seen_within_the_refresh_even_where_records_live_long():
    async def main() -> None:
        made = Made(ttl_s=3600)
        made.names.put(NAME, "A", ["10.0.0.1"])
        async with followed(made.resolver) as seen:
            await asyncio.sleep(20)
            made.names.put(NAME, "A", ["10.0.0.1", "10.0.0.2"])
            await asyncio.sleep(5)
            assert set(seen.last.values()) == {"10.0.0.1:50051", "10.0.0.2:50051"}
            made.names.put(NAME, "A", ["10.0.0.2"])
            await asyncio.sleep(5)
            assert set(seen.last.values()) == {"10.0.0.2:50051"}
        assert len(seen.sets) == 3, "the same set is no news"

    run(main())


@pytest.mark.parametrize(
    ("ttl_s", "refresh_s", "least_s", "most_s"),
    [(3, 30, 2.4, 3), (0, 30, 1, 1), (0.5, 30, 1, 1), (100, 30, 24, 30), (100, 5, 4, 5)],
)
def test_it_is_asked_again_before_the_records_are_too_old_but_not_more_than_once_a_second_and_with_jitter(
    ttl_s: float, refresh_s: float, least_s: float, most_s: float
):
    async def main() -> None:
        made = Made(ttl_s=ttl_s, refresh_s=refresh_s)
        made.names.put(NAME, "A", ["10.0.0.1"])
        async with followed(made.resolver):
            await asyncio.sleep(refresh_s * 10)
        intervals = made.intervals()
        assert least_s - 1e-6 <= min(intervals) <= max(intervals) <= most_s + 1e-6
        assert len({round(interval, 3) for interval in intervals}) > 1 or most_s == 1

    run(main())


def test_a_name_server_that_fails_costs_nobody_and_is_told():
    async def main() -> None:
        made = Made()
        made.names.put(NAME, "A", ["10.0.0.1"])
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            made.names.failing = "SERVFAIL"
            await asyncio.sleep(3600)
            assert len(seen.sets) == 1
            assert set(made.observer.reasons) == {"SERVFAIL"}
            assert max(made.intervals()) <= 5 + 1e-6
            made.names.failing = ""
            made.names.put(NAME, "A", ["10.0.0.9"])
            await asyncio.sleep(5)
            assert seen.last == {worker_name("10.0.0.9"): "10.0.0.9:50051"}

    run(main())


def test_a_name_server_that_never_answers_is_given_up_and_asked_again():
    async def main() -> None:
        made = Made()
        made.names.hangs = True
        async with followed(made.resolver) as seen:
            await asyncio.sleep(30)
            assert made.observer.reasons[0] == "no name server answered within 5 s"
            assert seen.sets == [], "there is no set before one is known"
            made.names.hangs = False
            made.names.put(NAME, "A", ["10.0.0.1"])
            await asyncio.sleep(15)
            assert seen.last == {worker_name("10.0.0.1"): "10.0.0.1:50051"}

    run(main())


def test_that_there_is_nobody_is_believed_at_once_at_first_and_later_after_a_minute():
    async def main() -> None:
        made = Made()
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            assert seen.sets == [()]
            made.names.put(NAME, "A", ["10.0.0.1"])
            await asyncio.sleep(6)
            made.names.put(NAME, "A", [])
            await asyncio.sleep(EMPTY_S - 10)
            made.names.put(NAME, "A", ["10.0.0.1"])
            await asyncio.sleep(6)
            assert len(seen.sets) == 2, "a gap was no news"
            made.names.put(NAME, "A", [])
            await asyncio.sleep(EMPTY_S - 10)
            assert len(seen.sets) == 2
            await asyncio.sleep(20)
            assert seen.sets[2:] == [()]

    run(main())


def test_whoever_takes_over_from_another_resolver_doubts_that_nobody_is_left_and_says_only_what_is_new():
    async def main() -> None:
        made = Made(known=(Endpoint("old", "10.0.0.1:50051"),))
        async with followed(made.resolver) as seen:
            await asyncio.sleep(EMPTY_S - 10)
            assert seen.sets == []
            await asyncio.sleep(20)
            assert seen.sets == [()]

    run(main())


def test_srv_records_tell_the_ports_and_workers_are_called_as_their_pods():
    async def main() -> None:
        made = Made(f"dns:_grpc._tcp.{NAME}")
        made.names.put(
            f"_grpc._tcp.{NAME}",
            "SRV",
            [Record("worker-1.workers.example.", 50052), Record("worker-0.workers.example.", 50051), Record(".", 1)],
        )
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            assert seen.last == {
                "worker-0": "worker-0.workers.example:50051",
                "worker-1": "worker-1.workers.example:50052",
            }
            assert {kind for _, _, kind in made.names.asked} == {"SRV"}

    run(main())


def test_targets_that_begin_alike_are_called_by_all_of_them():
    async def main() -> None:
        made = Made(f"dns:_grpc._tcp.{NAME}")
        made.names.put(f"_grpc._tcp.{NAME}", "SRV", [Record("w.a.", 1), Record("w.a.", 2), Record("x.a.", 1)])
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            assert seen.last == {"w.a-1": "w.a:1", "w.a-2": "w.a:2", "x": "x.a:1"}

    run(main())
