"""What is brought up to date a worker at a time is what would be made of the whole fleet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neurogate.dataplane.member import Member
from neurogate.dataplane.roster import Roster
from neurogate.dataplane.snapshot import Snapshot, has_loaded
from neurogate.endpoint import Endpoint, ServedModel, WorkerReport
from neurogate.resilience.breaker import BreakerSettings, EndpointBreaker

WORKERS = 6
MODELS = ("", "a", "b", "nobody's")
APIS = ("", "/x", "/y")

models = st.lists(st.builds(ServedModel, name=st.sampled_from(["a", "b"]), loaded=st.booleans()), max_size=3)
reports = st.builds(
    WorkerReport,
    ready=st.sampled_from([True, True, True, False]),
    draining=st.sampled_from([False, False, False, True]),
    models=models.map(tuple),
    apis=st.frozensets(st.sampled_from(APIS[1:])),
    slots_total=st.integers(0, 2),
)
changes = st.tuples(
    st.integers(0, WORKERS - 1),
    st.one_of(
        reports,
        st.sampled_from(["come", "go", "up", "down", "cordon", "aside", "back", "fail", "reset"]),
    ),
)


class Fleet:
    """Workers that change, and the roster that hears who did."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.changed: dict[Member, None] = {}
        self.roster = Roster()
        self.generation = 0
        self.come = 0

    def change(self, number: int, change: WorkerReport | str) -> None:
        if change == "come" and number not in self.members:
            breaker = EndpointBreaker(
                BreakerSettings(fail_max=1), now=lambda: 0.0, on_transition=lambda _: None, dispensable=lambda: True
            )
            self.members[number] = Member(Endpoint(f"worker-{number}", "a:1"), breaker)
            self.come += 1
            self.members[number].rank = self.come
        member = self.members.get(number)
        if member is None:
            return
        self.changed[member] = None
        match change:
            case WorkerReport():
                member.take_report(change, 0.0)
                member.linked = True
            case "go":
                del self.members[number]
            case "up" | "down":
                member.linked = change == "up"
            case "cordon":
                member.cordoned = not member.cordoned
            case "aside" | "back":
                member.aside = change == "aside"
            case "fail":
                member.breaker.record_failure()
            case "reset":
                member.breaker.reset()

    def snapshot(self) -> Snapshot:
        self.generation += 1
        changed, self.changed = self.changed, {}
        return self.roster.snapshot(self.generation, changed, is_known=set(self.members.values()).__contains__)


def told(snapshot: Snapshot) -> dict[str, object]:
    """All that a snapshot says."""
    lanes = {
        (model, api): (
            snapshot.candidates(model, api),
            snapshot.admitting(model, api),
            snapshot.suspended(model, api),
        )
        for model in MODELS
        for api in APIS
    }
    return {
        "lanes": lanes,
        "members": snapshot.members,
        "models": snapshot.models,
        "heard_of_all": snapshot.heard_of_all,
        "unproved": set(snapshot.unproved),
    }


@given(st.lists(st.lists(changes, max_size=4), max_size=12))
def test_a_snapshot_after_changes_is_the_one_made_from_everybody_and_those_before_stay_as_they_were(
    steps: list[list[tuple[int, WorkerReport | str]]],
) -> None:
    fleet = Fleet()
    for number in range(WORKERS):
        fleet.change(number, "come")
    kept = []
    for step in steps:
        for number, change in step:
            fleet.change(number, change)
        snapshot = fleet.snapshot()
        members = sorted(fleet.members.values(), key=lambda member: member.rank)

        assert told(snapshot) == told(Roster().snapshot(0, members, is_known=lambda _: True))
        kept.append((snapshot, told(snapshot)))
    for snapshot, was in kept:
        assert told(snapshot) == was


@given(st.lists(changes, max_size=30))
def test_lanes_hold_who_belongs_in_them_in_fleet_order(steps: list[tuple[int, WorkerReport | str]]) -> None:
    fleet = Fleet()
    for number in range(WORKERS):
        fleet.change(number, "come")
    for number, change in steps:
        fleet.change(number, change)
    snapshot = fleet.snapshot()
    members = sorted(fleet.members.values(), key=lambda member: member.rank)

    assert snapshot.members == tuple(members)
    for model in MODELS:
        for api in APIS:
            able = [member for member in members if member.usable and member.serves(model) and member.can_do(api)]
            picked = [member for member in able if not member.aside and member.breaker.may_admit]
            loaded = [member for member in picked if has_loaded(member, model)]
            others = [member for member in picked if member not in loaded] if loaded else []

            assert snapshot.admitting(model, api) == tuple(picked)
            assert snapshot.suspended(model, api) == tuple(member for member in able if member not in picked)
            assert snapshot.candidates(model, api) == (tuple(loaded or picked), tuple(others))
    assert set(snapshot.unproved) == {
        member for member in members if member.usable and member.breaker.state != "closed"
    }
    assert snapshot.models == {served.name for member in members for served in member.report.models}
    assert snapshot.heard_of_all == all(member.report.detail != "not connected yet" for member in members)
