"""Whatever workers do, come and go: ejections keep their bounds, and nobody is out for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.resilience.outliers import PEERS_MIN, OutlierSettings, Record, Sample, judge

NAMES = tuple(f"w{index}" for index in range(12))

samples = st.builds(
    Sample,
    failures=st.none() | st.floats(0, 1),
    ttft_s=st.none() | st.sampled_from((0.05, 0.5, 3.0, 40.0)),
    tokens_per_s=st.none() | st.sampled_from((0.5, 5.0, 60.0)),
)
looks = st.lists(
    st.tuples(
        st.floats(0.1, 400.0),
        st.dictionaries(st.sampled_from(NAMES), samples, max_size=12),
        st.sets(st.sampled_from(NAMES)),
        st.sets(st.sampled_from(NAMES), max_size=3),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(looks=looks, share=st.floats(0, 1), base_s=st.floats(1, 60), count=st.integers(1, 12))
def test_bounds_are_never_passed(
    looks: list[tuple[float, dict[str, Sample], set[str], set[str]]], share: float, base_s: float, count: int
):
    bounds = OutlierSettings(max_ejected=share, base_s=base_s, requests_min=1)
    everybody = {name: Record() for name in NAMES[:count]}
    now = 0.0
    for after_s, found, unpickable, away in looks:
        now += after_s
        records = {name: record for name, record in everybody.items() if name not in away}
        out_before = {name for name, record in records.items() if record.out_until is not None}
        usable = [name for name in records if name not in unpickable and name not in out_before]

        changes = judge(records, fresh=found, known=found, usable=usable, settings=bounds, now=now)

        out = {name for name, record in records.items() if record.out_until is not None}
        assert out == (out_before - {*changes.returned}) | {*changes.ejected}
        assert {*changes.ejected} <= {*found} & {*records}
        assert len(out) <= (max(1, int(share * len(records))) if len(records) >= PEERS_MIN and share else 0)
        left = ({*usable} | {*changes.returned}) - out
        assert left or not (usable or out_before)
        for name in out:
            until = records[name].out_until
            assert until is not None
            assert now < until <= now + 10 * base_s
