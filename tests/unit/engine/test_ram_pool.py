"""Hot and warm as one pool: one policy, and ranks that change in place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.wholeness import assert_whole

from memories import MemoryManager, MigrationSettings, policies
from memories.engine.ram_pool import RamPool
from memories.engine.victims import PolicyVictims
from memories.model.events import Event, Moved, Stored
from memories.model.tiers import Cause, TierName
from memories.simulate.simulator import replay
from memories.simulate.traces import Trace

LATE = MigrationSettings(interval_seconds=60.0)  # The background does nothing.
SIZE = 20_000
CHARGED = SIZE + 33 + 224  # With what `bytes` and an entry take beside the content.


def made(hot: str = "200 kB", warm: str = "400 kB", **options: Any) -> MemoryManager:
    given_: dict[str, Any] = {"migration": LATE, "prefetch": "off"}
    return MemoryManager(hot, warm, "100 MB", **given_ | options)


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with made() as manager:
        yield manager
        assert_whole(manager)


def tiers_of(manager: MemoryManager) -> dict[str, str]:
    return {key: manager.get_tier(key) for key in manager}


def test_both_have_one_policy_of_their_joint_size(manager: MemoryManager) -> None:
    """What leaves RAM must be worth less than everything that stays in either of them."""
    tiers = manager._hierarchy.tiers.volatile
    victims = tiers[TierName.HOT].victims
    assert tiers[TierName.WARM].victims is victims
    assert isinstance(victims, PolicyVictims)
    assert 600_000 == victims.policy.capacity
    assert isinstance(tiers[TierName.HOT].pool, RamPool)


def test_two_policies_by_name_stay_two_tiers() -> None:
    """A user who chooses a policy for each gets what was chosen."""
    with made(eviction_policy={"hot": "lru", "warm": "gdsf"}) as manager:
        tiers = manager._hierarchy.tiers.volatile
        assert tiers[TierName.HOT].pool is None
        assert tiers[TierName.HOT].victims is not tiers[TierName.WARM].victims


def test_a_change_of_rank_keeps_the_entry_and_its_place(manager: MemoryManager) -> None:
    """Nothing is copied, and the policy does not take it for a new access."""
    manager.store("a", np.arange(1000.0), "hot")
    entries = manager._hierarchy.catalog.entries
    manager._hierarchy.settlement.settle()
    entry, payload, link = entries["a"], entries["a"].payload, entries["a"].link
    for target in ("warm", "hot", "warm"):
        manager.migrate("a", target)
        assert target == manager.get_tier("a")
        assert entries["a"] is entry
        assert entry.payload is payload
        assert entry.link is link
    tiers = manager.stats().tiers
    assert 0 == tiers[TierName.HOT].used_bytes
    assert entry.size == tiers[TierName.WARM].used_bytes


@pytest.mark.parametrize("before", ["hot", "warm"])
def test_a_store_is_counted_in_the_tier_that_it_came_to(before: str) -> None:
    """A rank may change before the store is reported: counts and events follow both."""
    seen = list[Event]()
    with made() as manager:
        hierarchy = manager._hierarchy
        hierarchy.events.subscribe(seen.append)
        manager.store("a", bytes(SIZE), before)
        assert hierarchy.settlement.changes, "the store was reported at once"
        entry = hierarchy.catalog.entries["a"]
        source = hierarchy.tiers.volatile[entry.tier]
        assert source.pool is not None
        target = source.pool.other(source)
        with hierarchy.locks.lock("a"):
            assert target.budget.reserve(entry.size)
            hierarchy.mover._ranks.change(entry, target)
        assert_whole(manager)
        assert {target.name: 1} == +hierarchy.catalog.counts
        assert [source.name] == [event.tier for event in seen if isinstance(event, Stored)]


def test_a_value_with_a_time_to_live_changes_its_rank_too(manager: MemoryManager) -> None:
    """Its hits are counted by the tier that it lies in."""
    manager.store("a", b"x", "hot", ttl=100)
    manager.migrate("a", "warm")
    assert b"x" == manager["a"]
    tiers = manager.stats().tiers
    assert (0, 1) == (tiers[TierName.HOT].hits, tiers[TierName.WARM].hits)


def test_hits_are_counted_exactly_by_tier(manager: MemoryManager) -> None:
    """Stamps of one tier skip numbers for the other, and no hit is made up or lost by that."""
    manager.store("a", b"x" * 5, "hot")
    manager.store("b", b"x" * 5, "warm")
    pool = manager._hierarchy.tiers.volatile[TierName.HOT].pool
    assert pool is not None
    for _ in range(100):
        manager["a"]
        pool.align()
    for _ in range(7):
        manager["b"]
    pool.align()
    tiers = manager.stats().tiers
    assert (100, 7) == (tiers[TierName.HOT].hits, tiers[TierName.WARM].hits)


def test_a_store_into_a_full_hot_tier_displaces_nothing_while_warm_has_room(
    manager: MemoryManager,
) -> None:
    """What was read longest ago gets the lower rank."""
    moves: list[Event] = []
    manager._hierarchy.events.subscribe(moves.append, kinds=(Moved,))
    for number in range(20):
        manager.store(f"{number:02}", bytes(SIZE), "hot")
    found = tiers_of(manager)
    assert {"hot", "warm"} == set(found.values())
    assert "hot" == found["19"]
    assert "warm" == found["00"]
    assert {Cause.CAPACITY} == {move.cause for move in moves if isinstance(move, Moved)}


def test_a_full_pool_evicts_from_either() -> None:
    """A store into warm may push out what lies in hot, if that is worth less."""
    with made(eviction_policy="lru") as manager:
        for number in range(9):
            manager.store(f"hot{number}", bytes(SIZE), "hot")
        for number in range(25):
            manager.store(f"warm{number}", bytes(SIZE), "warm")
        found = tiers_of(manager)
        assert "cold" == found["hot0"]
        assert {"hot", "warm"} == {found[f"warm{number}"] for number in range(25)}
        assert_whole(manager)


def test_a_store_takes_the_place_of_what_left(manager: MemoryManager) -> None:
    """In either tier, unless one was named: nothing else has to change its rank for that."""
    count = 600_000 // CHARGED - 1
    for number in range(count):
        manager.store(f"k{number}", bytes(SIZE))
    assert {"hot", "warm"} == set(tiers_of(manager).values())
    moves: list[Moved] = []

    def observe(event: Event) -> None:
        assert isinstance(event, Moved)
        moves.append(event)

    manager._hierarchy.events.flush()
    manager._hierarchy.events.subscribe(observe, kinds=(Moved,))
    taken = set[str]()
    for number in range(count, 3 * count):
        manager.store(f"k{number}", bytes(SIZE))
        taken.add(manager.get_tier(f"k{number}"))
    manager._hierarchy.events.flush()
    assert {"hot", "warm"} == taken
    assert {TierName.COLD} == {move.target for move in moves}
    manager.store("named", bytes(SIZE), "warm")
    assert "warm" == manager.get_tier("named")


def test_a_value_that_a_read_brings_up_takes_the_place_of_what_left(
    manager: MemoryManager,
) -> None:
    """As a store does: of the values that stay none changes its rank."""
    keys = [f"k{number}" for number in range(60)]
    for key in keys:
        manager.store(key, np.arange(SIZE // 8, dtype="i8"), "cold")
    moves: list[Moved] = []

    def observe(event: Event) -> None:
        assert isinstance(event, Moved)
        moves.append(event)

    for key in keys[:30]:
        manager.retrieve(key)
    manager._hierarchy.events.flush()
    manager._hierarchy.events.subscribe(observe, kinds=(Moved,))
    for key in keys[30:]:
        manager.retrieve(key)
        manager.retrieve(key)
    manager._hierarchy.events.flush()
    came = [move.target for move in moves if move.source is TierName.COLD]
    assert came, "some of them came up"
    assert not [move for move in moves if not (move.source.durable or move.target.durable)]
    assert all(manager.get_tier(key) in ("hot", "warm", "cold") for key in keys)


@pytest.mark.parametrize(
    "terms", [{"min_tier": "warm", "max_tier": "warm"}, {"max_tier": "hot"}, {"pin": True}]
)
def test_terms_bind(manager: MemoryManager, terms: dict[str, Any]) -> None:
    """A change of rank is a move like any other."""
    kept = "warm" if "min_tier" in terms else "hot"
    manager.store("kept", bytes(SIZE), kept, **terms)
    for number in range(60):
        manager.store(f"{number}", bytes(SIZE), ("hot", "warm")[number % 2])
        assert kept == manager.get_tier("kept")


@pytest.mark.parametrize("policy", ["lru", "gdsf", "sieve", "mq"])
def test_ram_holds_what_one_tier_of_their_size_would_hold(tmp_path: Path, policy: str) -> None:
    """A user who lets us place the data must not get less from 200 + 400 kB than from 600."""
    chance = random.Random(7)
    keys = [f"{int(chance.paretovariate(0.7))}" for _ in range(3000)]
    trace = Trace([0.0] * len(keys), keys, [CHARGED] * len(keys))
    expected = replay(trace, policies.make(policy, 600_000))
    with made(eviction_policy=policy, storage_path=tmp_path) as manager:
        seen, hits = set[str](), 0
        for key in keys:
            if key in seen:
                hits += manager.get_tier(key) in ("hot", "warm")
                manager.retrieve(key)
            else:
                seen.add(key)
                manager.store(key, bytes(SIZE))
        share = hits / (len(keys) - len(seen))
        assert abs(1 - expected.re_access_miss_ratio - share) < 0.01
        assert_whole(manager)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["store", "read", "move", "pin", "delete", "tick"]),
        st.integers(0, 11),
        st.sampled_from(["hot", "warm", "cold", "auto"]),
        st.integers(1, 60_000),
    ),
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_nothing_is_lost_and_no_budget_exceeded(
    steps: list[tuple[str, int, Any, int]],
) -> None:
    """Every key has its value, pins hold, and what is charged is what is there."""
    kept: dict[str, bytes] = {}
    pinned: dict[str, str] = {}
    with made("70 kB", "110 kB") as manager:
        migrator = manager._services.migrator
        assert migrator is not None
        for what, number, tier, size in steps:
            key = f"k{number}"
            if what == "store" and key not in pinned:
                kept[key] = number.to_bytes() * size
                manager.store(key, kept[key], tier)
            elif what == "tick":
                migrator.tick()
            elif key not in kept:
                continue
            elif what == "read":
                assert kept[key] == manager[key]
            elif what == "move" and key not in pinned and tier != "auto":
                manager.migrate(key, tier)
                assert tier == manager.get_tier(key)
            elif what == "pin" and len(pinned) < 1:
                manager.pin(key)
                pinned[key] = manager.get_tier(key)
            elif what == "delete":
                del manager[key]
                del kept[key]
                pinned.pop(key, None)
            for stats in manager.stats().tiers.values():
                assert stats.used_bytes <= stats.effective_bytes
            for key, tier in pinned.items():
                assert tier == manager.get_tier(key)
        assert kept == dict(manager)
        assert_whole(manager)
