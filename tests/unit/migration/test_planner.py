"""What should move: state in, moves out."""

from __future__ import annotations

from typing import Any

from memories.migration.planner import Move, Planner, TierState
from memories.model.entry import Entry, SharedEntry, common_of
from memories.model.record import Terms
from memories.model.tiers import Cause, TierName

NOW = 1000.0


def entry(
    key: str, tier: TierName, *, idle: float, hits: int = 0, arrived: int = 0, size: int = 10
) -> Entry:
    """Return an entry that was read `idle` seconds ago; it came after `arrived` of its `hits`."""
    made = SharedEntry(
        key=key,
        version=1,
        payload=None,
        size=size,
        stored_at=0.0,
        common=common_of(tier, lambda: 0, Terms(), arrived_hits=arrived),
        stamp=int((NOW - idle) * 1000),
    )
    made.hits = hits
    return made


def states(**changes: Any) -> dict[TierName, TierState]:
    """Return two roomy tiers, or others."""
    figures: dict[str, Any] = {
        "effective": 1000, "headroom": 1000, "exchange": 60, "time_of": lambda stamp: stamp / 1000
    }  # fmt: skip
    figures |= changes
    return {name: TierState(**figures) for name in (TierName.HOT, TierName.WARM)}


def plan(*entries: Entry, planner: Planner | None = None, **changes: Any) -> list[tuple[str, str]]:
    """Return what is planned, as keys and targets."""
    planner = planner or Planner(promote=True, demote_idle=True)
    moves = planner.plan(entries, states(**changes), now=NOW, looked_at=NOW - 1)
    return [(move.entry.key, str(move.target)) for move in moves]


def test_a_value_never_read_leaves_hot_within_five_seconds() -> None:
    """The promise of the migration example."""
    assert [("a", "warm")] == plan(entry("a", TierName.HOT, idle=5.0))
    assert [] == plan(entry("a", TierName.HOT, idle=1.0))


def test_a_value_read_twice_stays_hot_for_thirty_seconds() -> None:
    """Whatever was learnt: room is made by pressure, not by a guess."""
    assert [] == plan(entry("a", TierName.HOT, idle=29.9, hits=2))
    assert [("a", "warm")] == plan(entry("a", TierName.HOT, idle=4000.0, hits=2))


def test_what_must_stay_stays() -> None:
    """Pins and terms bind the planner too."""
    pinned = entry("pinned", TierName.HOT, idle=100)
    pinned.terms = Terms(pinned=True)
    bound = entry("bound", TierName.HOT, idle=100)
    bound.terms = Terms(max_tier=TierName.HOT)
    cold_only = entry("warm", TierName.WARM, idle=0.1, hits=5)
    cold_only.terms = Terms(min_tier=TierName.WARM)
    assert [] == plan(pinned, bound, cold_only)


def test_a_read_in_warm_promotes_where_there_is_room() -> None:
    """Only reads since the value came there count, and only since the last look."""
    assert [("a", "hot")] == plan(entry("a", TierName.WARM, idle=0.5, hits=1))
    assert [] == plan(entry("a", TierName.WARM, idle=2.0, hits=1))
    assert [] == plan(entry("a", TierName.WARM, idle=0.5, hits=3, arrived=3))


def test_without_room_a_second_touch_exchanges_a_bounded_share() -> None:
    """A scan must not turn the hot tier over; a hot value must get in all the same."""
    planner = Planner(promote=True, demote_idle=True)
    read = [entry(str(i), TierName.WARM, idle=0.5, hits=1) for i in range(20)]
    assert [] == plan(*read, planner=planner, headroom=0)
    assert [(str(i), "hot") for i in range(6)] == plan(*read, planner=planner, headroom=0)


def test_a_regretted_demotion_is_learnt_from() -> None:
    """The key that was missed stays longer the next time."""
    planner = Planner(promote=True, demote_idle=True)
    value = entry("a", TierName.HOT, idle=13.0, hits=1)
    (move,) = planner.plan([value], states(), now=NOW, looked_at=NOW - 1)
    assert Move(value, TierName.WARM, Cause.IDLE) == move
    planner.record_demotion(value, NOW - 13.0)
    before = planner.limits.limit(1, "a")
    demoted = entry("a", TierName.WARM, idle=0.5, hits=2, arrived=1)
    assert (1, 0) == planner.outcome()
    assert [("a", "hot")] == plan(demoted, planner=planner)
    assert planner.limits.limit(1, "a") > before
    assert (1, 1) == planner.outcome()
    assert 100 == planner.outcome().regretted_percent


def test_a_read_after_a_long_time_is_no_regret() -> None:
    """The room was better used meanwhile: the demotion was right."""
    planner = Planner(promote=True, demote_idle=True)
    value = entry("a", TierName.HOT, idle=500.0, hits=1)
    planner.record_demotion(value, NOW - 500.0)
    plan(entry("a", TierName.WARM, idle=0.5, hits=2, arrived=1), planner=planner)
    assert (1, 0) == planner.outcome()
