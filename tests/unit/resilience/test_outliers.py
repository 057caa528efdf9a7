"""Who is much worse than its peers, for how long it is out, and how many may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neurogate.resilience.outliers import Changes, OutlierSettings, Record, Sample, Tally, judge, worse

SETTINGS = OutlierSettings()
FINE = Sample(failures=0.0, ttft_s=1.0, tokens_per_s=40.0)


class Peers:
    """A group of workers who all had fresh samples."""

    def __init__(self, count: int, settings: OutlierSettings = SETTINGS) -> None:
        self.settings = settings
        self.records = {f"w{index}": Record() for index in range(count)}

    def look(self, now: float, usable: list[str] | None = None, **worse_ones: Sample) -> Changes:
        out = {name for name, record in self.records.items() if record.out_until is not None}
        samples = {name: worse_ones.get(name, FINE) for name in self.records if name not in out}
        return judge(
            self.records,
            fresh=samples,
            known=samples,
            usable=list(samples) if usable is None else usable,
            settings=self.settings,
            now=now,
        )


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (FINE, ""),
        (replace(FINE, ttft_s=4.9), ""),
        (replace(FINE, ttft_s=5.1), "first tokens after 5.10 s, its peers' after 1.00 s"),
        (replace(FINE, failures=0.5), ""),
        (replace(FINE, failures=0.51), "51% of its requests failed, of its peers' 0%"),
        (replace(FINE, tokens_per_s=8.1), ""),
        (replace(FINE, tokens_per_s=7.9), "7.9 tokens/s a stream, its peers 40.0"),
        (Sample(), ""),
    ],
)
def test_worse_is_worse_by_a_factor(sample: Sample, why: str):
    assert worse(sample, [FINE, FINE, FINE], SETTINGS) == why


def test_five_times_almost_nothing_is_nothing():
    quick = Sample(ttft_s=0.05)

    assert worse(Sample(ttft_s=2.0), [quick, quick], SETTINGS) == ""
    assert worse(Sample(ttft_s=2.1), [quick, quick], SETTINGS)


def test_in_a_fleet_where_all_fail_nobody_is_an_outlier():
    failing = Sample(failures=0.9)

    assert worse(Sample(failures=1.0), [failing, failing, failing], SETTINGS) == ""


@pytest.mark.parametrize("peers", [[], [FINE], [FINE, Sample()]])
def test_with_fewer_than_two_to_compare_with_nobody_is_judged(peers: list[Sample]):
    assert worse(Sample(ttft_s=100.0, failures=1.0, tokens_per_s=0.1), peers, SETTINGS) == ""


def test_an_outlier_is_out_for_a_time_and_comes_back_by_itself():
    peers = Peers(4)

    assert list(peers.look(0.0, w1=Sample(ttft_s=60.0)).ejected) == ["w1"]
    assert peers.look(29.9) == Changes()
    assert peers.look(30.0) == Changes(returned=("w1",))


def test_it_is_out_longer_each_time_up_to_a_bound_and_good_samples_take_that_back():
    peers = Peers(4)
    now = 0.0
    times = []
    for _ in range(12):
        peers.look(now, w1=Sample(ttft_s=60.0))
        until = peers.records["w1"].out_until
        assert until is not None
        times.append(until - now)
        now = until
        peers.look(now)
        now += 10
    assert times == [30.0 * min(time, 10) for time in range(1, 13)]

    for _ in range(9):
        peers.look(now)
    peers.look(now, w1=Sample(ttft_s=60.0))
    assert peers.records["w1"].out_until == now + 60.0


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 0), (3, 1), (4, 1), (6, 1), (7, 2), (10, 3)])
def test_no_more_than_a_share_of_the_peers_is_out(count: int, most: int):
    peers = Peers(count)
    slow = {f"w{index}": replace(FINE, ttft_s=60.0) for index in range(count // 2)}

    found = peers.look(0.0, **slow)

    assert len(found.ejected) == min(most, len(slow))


def test_the_last_one_that_could_be_picked_stays():
    peers = Peers(4, replace(SETTINGS, max_ejected=1.0))

    assert peers.look(0.0, usable=["w1"], w1=Sample(ttft_s=60.0)) == Changes()
    assert list(peers.look(0.0, usable=["w1", "w2"], w1=Sample(ttft_s=60.0)).ejected) == ["w1"]
    assert peers.look(1.0, usable=[]) == Changes(returned=("w1",))


def test_where_peers_went_some_of_those_that_are_out_come_back():
    peers = Peers(10)
    peers.look(0.0, w1=Sample(ttft_s=60.0))
    peers.look(1.0, w2=Sample(ttft_s=60.0))
    peers.look(2.0, w3=Sample(ttft_s=60.0))
    for name in ("w5", "w6", "w7", "w8", "w9"):
        del peers.records[name]

    assert peers.look(3.0) == Changes(returned=("w1", "w2"))


@pytest.mark.parametrize("change", [{"enabled": False}, {"max_ejected": 0.0}])
def test_turned_off_everybody_comes_back(change: dict[str, object]):
    peers = Peers(4)
    peers.look(0.0, w1=Sample(ttft_s=60.0))
    peers.settings = replace(SETTINGS, **change)  # type: ignore[arg-type]

    assert peers.look(1.0, w2=Sample(ttft_s=60.0)) == Changes(returned=("w1",))


def test_a_tally_gives_a_sample_once_it_has_enough_and_begins_anew():
    tally = Tally(0.0)
    for _ in range(4):
        tally.ended(failed=False)
    assert tally.take(5, 1.0) is None
    tally.ended(failed=True)
    for after_s in (1.0, 2.0, 3.0, 4.0, 50.0):
        tally.first_token(after_s)
    tally.streamed(20, 2.0)
    tally.streamed(20, 0.0)

    assert tally.take(5, 2.0) == Sample(failures=0.2, ttft_s=3.0)
    assert tally.take(1, 3.0) is None
    assert tally.began_at == 2.0


def test_a_tally_has_a_bound():
    tally = Tally(0.0)
    for _ in range(1000):
        tally.first_token(1.0)
        tally.streamed(20, 2.0)

    assert len(tally._ttfts) == len(tally._rates) == 256
    assert tally.take(1, 1.0) == Sample(ttft_s=1.0, tokens_per_s=10.0)
