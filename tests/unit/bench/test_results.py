"""What a bench's run says is true to its samples: ratios within a round, goals, flags, and named regressions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture(autouse=True)
def bench_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The bench's modules can be imported, and are forgotten afterwards: their names are short."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def sample(round_: int, peer: str, gateway_us: float, **more: Any) -> dict[str, Any]:
    plain = {"bad": 0, "reduced": False, "connections": 400, "rate": 20_000.0, "engine_share": 0.1, "load_share": 0.1}
    return {
        "round": round_,
        "workload": "stream-64-50-x400",
        "peer": peer,
        "gateway_us": gateway_us,
        "together_us": gateway_us,
        "stolen_share": 0.0,
        "others_share": 0.0,
        **plain,
        **more,
    }


def results(samples: list[dict[str, Any]]) -> dict[str, Any]:
    from dataclasses import asdict

    from workloads import MANY

    return {
        "taken": {"at": "now", "seconds": 1.0, "rounds": 3, "commit": "abc", "busy_before": 0.0},
        "machine": {"cpu": "a cpu", "cores": 2, "kernel": "6", "python": "3"},
        "peers": {peer: {"version": "1"} for peer in ("direct", "neurogate", "nginx", "envoy")},
        "workloads": {MANY.name: asdict(MANY)},
        "picks": None,
        "left_out": [],
        "samples": samples,
    }


def three_rounds(own: float, other: float = 10.0, speeds: tuple[float, ...] = (1.0, 1.5, 2.0)) -> dict[str, Any]:
    """A machine whose speed drifts from round to round, for both alike."""
    samples = []
    for round_, speed in enumerate(speeds):
        samples += [sample(round_, "neurogate", own * speed), sample(round_, "nginx", other * speed)]
    return results(samples)


def test_a_ratio_is_taken_within_a_round_so_drift_is_not_in_it() -> None:
    from report.book import Book

    ratio = Book(three_rounds(8.0)).ratio("stream-64-50-x400", "neurogate", "gateway_us", "nginx")
    assert ratio is not None
    assert ratio.plain() == pytest.approx({"min": 0.8, "median": 0.8, "max": 0.8, "rounds": 3})


def test_a_round_in_which_one_was_not_measured_gives_no_ratio() -> None:
    from report.book import Book

    found = results([sample(0, "neurogate", 8), sample(1, "nginx", 10), sample(1, "neurogate", 9)])
    ratio = Book(found).ratio("stream-64-50-x400", "neurogate", "gateway_us", "nginx")
    assert ratio is not None
    assert (ratio.median, ratio.rounds) == (0.9, 1)


def test_what_is_added_to_the_baselines_median_is_compared() -> None:
    from report.book import Book

    found = results(
        [
            sample(0, peer, 1.0, first_token_p50_us=time)
            for peer, time in (("direct", 100), ("neurogate", 150), ("nginx", 200))
        ]
    )
    ratio = Book(found).added_ratio("stream-64-50-x400", "neurogate", "first_token_p50_us", "nginx")
    assert ratio is not None
    assert ratio.median == 0.5


def test_a_failed_sample_counts_for_nothing_and_is_told() -> None:
    from report import table

    found = results(
        [
            sample(0, "nginx", 10.0),
            {"round": 0, "workload": "stream-64-50-x400", "peer": "neurogate", "error": "its worker ended with 1"},
        ]
    )
    text = table.markdown(found, [])
    assert "Not measured: neurogate, stream-64-50-x400: its worker ended with 1" in text
    assert "| nginx | ≤ 1 | not measured | |" in text


def test_the_table_says_by_how_much_a_goal_is_missed() -> None:
    from report import table

    text = table.markdown(three_rounds(12.0), [])
    assert "| nginx | ≤ 1 | 1.2 (1.2 to 1.2) | **missed by 20%** |" in text
    assert "| nginx | ≤ 1 | 0.8 (0.8 to 0.8) | met |" in table.markdown(three_rounds(8.0), [])


@pytest.mark.parametrize(
    ("more", "flag"),
    [
        ({"reduced": True, "connections": 8}, "asked for 8 at once only"),
        ({"bad": 3}, "3 bad answers"),
        ({"rate": 15_000.0}, "75% of the tokens"),
    ],
)
def test_figures_that_are_not_comparable_are_marked(more: dict[str, Any], flag: str) -> None:
    from report.book import Book

    assert Book(results([sample(0, "nginx", 1.0, **more)])).flags("stream-64-50-x400", "nginx") == [flag]


def test_a_regression_is_named_and_noise_is_not() -> None:
    from report import comparison

    before = three_rounds(8.0)
    worse = three_rounds(10.0)
    assert comparison.regressions(worse, before) == [
        "REGRESSION: gateway CPU, stream-64-50-x400: 0.8 (0.8 to 0.8) of nginx's was, 1 (1 to 1) is",
        "REGRESSION: gateway and worker CPU, stream-64-50-x400: 0.8 (0.8 to 0.8) of nginx's was, 1 (1 to 1) is",
    ]
    noisy = deepcopy(before)
    for each in noisy["samples"]:
        if each["peer"] == "neurogate" and each["round"] != 1:
            each["gateway_us"] *= 1.3
            each["together_us"] *= 1.3
    assert comparison.regressions(noisy, before) == []
    assert comparison.lines(before, worse)[0].startswith("better: gateway CPU")
    assert comparison.lines(before, None) == ["There is no earlier run."]


def test_another_machine_is_told_of() -> None:
    from report import comparison

    other = three_rounds(8.0)
    other["machine"] = {**other["machine"], "cpu": "another"}
    assert comparison.lines(three_rounds(8.0), other)[0].startswith("It was another machine")


def test_plots_are_well_formed_and_have_every_gateway() -> None:
    from xml.etree import ElementTree as ET

    from report import plots

    drawn = dict(plots.plots(three_rounds(8.0) | {"picks": {"sizes": [10, 100], "us": {"a": [{"median": 1}] * 2}}}))
    assert set(drawn) == {"cpu-per-token.svg", "picks.svg"}
    words = {text.text for text in ET.fromstring(drawn["cpu-per-token.svg"]).iter() if text.text}
    assert {"neurogate", "nginx"} <= words


def test_a_workload_asks_for_no_more_than_a_peer_can_do() -> None:
    from peers.peer import Capacity
    from workloads import MANY, OPEN

    reduced = MANY.within(Capacity(connections=8, rate=20))
    assert (reduced.connections, reduced.tokens) == (8, MANY.tokens)
    assert OPEN.within(Capacity(connections=8, rate=20)).rate == 20
    assert OPEN.within(None) is OPEN


def test_a_request_tells_the_engine_in_its_prompt_what_to_say() -> None:
    from workloads import LARGE, MANY

    head, _, body = MANY.request({"authorization": "Bearer k"}).partition(b"\r\n\r\n")
    assert b"authorization: Bearer k" in head
    assert b"content-length: %d" % len(body) in head
    assert b"rate=50 tokens=64 " in body
    assert len(LARGE.request({})) > 100_000


def test_the_cpu_time_of_a_process_is_found() -> None:
    """Some, and not more than there was time for."""
    from usage import cpu_of, family, forget_peaks, memory_of, seconds_between

    script = "import sys\nfor _ in sys.stdin:\n    sum(range(2_000_000)); print('done', flush=True)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = cpu_of(family([process.pid]))
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
        spent = seconds_between(before, cpu_of(family([process.pid])))
        forget_peaks([process.pid])
        memory = memory_of([process.pid])
        process.stdin.close()
    assert 0.005 < spent < 60
    assert 1 < memory.pss_mib <= memory.rss_mib <= memory.peak_mib + 1
    assert cpu_of([process.pid]).threads == {}
    assert memory_of([process.pid]).rss_mib == 0


def test_a_run_beside_other_work_says_that_it_is_not_worth_keeping() -> None:
    from report import comparison

    noisy = results([sample(0, "nginx", 1.0, others_share=1.0), sample(1, "nginx", 1.0, others_share=0.9)])
    assert comparison.lines(noisy, None)[0].startswith("NOISE: other work used 0.95 of a core")
    assert comparison.lines(three_rounds(8.0), None) == ["There is no earlier run."]
