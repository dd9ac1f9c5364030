"""Small values in snapshots: read, written and brought back to RAM many at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.values import identical
from tests.support.wholeness import assert_whole

from memories import CorruptDataError, MemoryManager
from memories.engine.catalog import Instant
from memories.engine.hit_clock import SampledTick
from memories.model.events import Event, Failed, Moved
from memories.model.tiers import Cause, TierName
from memories.snapshot import capture, open_snapshot

MAKE: list[Callable[[int], Any]] = [
    lambda n: f"text {n} " * (n % 50),
    lambda n: bytes([n % 256]) * (n % 1_500),
    lambda n: {"n": n, "list": [None, n / 3, "x" * (n % 40)], "tuple": (n, b"y")},
    lambda n: np.arange(n % 130, dtype="f4").reshape(-1, 1),
    lambda n: {n, "set", 2.5},
    lambda n: n if n % 2 else float(n),
    lambda n: np.full(700 + n % 9, n),  # A member of its own.
]


def values(count: int) -> dict[str, Any]:
    """Return values of many kinds, almost all of them small; the keys are in no order."""
    keys = random.Random(1).sample(range(10**6), count)
    return {f"ключ/{n}" if n % 9 == 0 else f"key/{n}": MAKE[n % len(MAKE)](n) for n in keys}


def make(path: Path, **options: Any) -> MemoryManager:
    """Open a manager in which nothing moves by itself."""
    hot, warm, cold = options.pop("sizes", ("10 MB", "20 MB", "200 MB"))
    still: dict[str, Any] = {"migration": False, "prefetch": "off"}
    return MemoryManager(hot, warm, cold, storage_path=path, **still | options)


def assert_same(expected: dict[str, Any], manager: MemoryManager) -> None:
    """Fail unless the manager has just these values."""
    assert sorted(expected) == sorted(manager)
    for key, value in expected.items():
        assert identical(value, manager[key]), key


def test_what_comes_back_is_held_as_it_was(tmp_path: Path) -> None:
    """Its kind, its charge and its backing copy, in the order of its policy, and read as often."""
    stored = values(700)
    with make(tmp_path / "store") as manager:
        for key, value in stored.items():
            manager.store(key, value, "hot", **({"ttl": 1e6} if "7" in key else {}))
        entries = manager._hierarchy.catalog.entries
        before = {key: (type(one), one.stored_at) for key, one in entries.items()}
        sizes = {key: one.size for key, one in entries.items()}
        manager.create_snapshot(tmp_path / "snapshot")
    with make(tmp_path / "other") as manager:
        manager.restore_snapshot(tmp_path / "snapshot", wait=True)
        entries = manager._hierarchy.catalog.entries
        assert before == {key: (type(one), one.stored_at) for key, one in entries.items()}
        # A number that occurs twice in a value may have been one object.
        assert all(0 <= one.size - sizes[key] <= 64 for key, one in entries.items())
        used = sum(one.size for one in entries.values())
        assert used == manager._hierarchy.tiers[TierName.HOT].budget.used
        assert all(one.backed is TierName.COLD and one.link is not None for one in entries.values())
        for key in stored:
            manager.retrieve(key)
        assert len(stored) == manager.stats().memory_hits
        manager._hierarchy.evict_bytes(TierName.HOT, 1 << 30)
        assert "hot" not in map(manager.get_tier, stored)
        assert_same(stored, manager)


@pytest.mark.parametrize("options", [{}, {"verify": "lazy"}, {"wait": True}])
@pytest.mark.parametrize("portable", [False, True])
def test_every_small_value_comes_back_to_its_tier(
    tmp_path: Path, options: dict[str, Any], portable: bool
) -> None:
    """From all tiers, with large values in between; terms and places are as they were."""
    stored = values(2_500)
    with make(tmp_path / "store") as manager:
        for n, (key, value) in enumerate(stored.items()):
            tier = ("hot", "warm", "cold")[n % 3]
            metadata = {"n": n} if n % 10 == 0 else None
            manager.store(key, value, tier=tier, metadata=metadata)
        tiers = {key: manager.get_tier(key) for key in stored}
        manager.create_snapshot(tmp_path / "s", portable=portable)
        found = list(manager.find(n=10))
    with make(tmp_path / "other") as manager:
        manager.store("gone", 1, tier="cold")
        manager.restore_snapshot(tmp_path / "s", **options)
        assert_same(stored, manager)
        assert found == list(manager.find(n=10))
        if "wait" in options:
            assert tiers == {key: manager.get_tier(key) for key in stored}
            assert_whole(manager)
    with make(tmp_path / "other") as manager:
        assert_same(stored, manager)


def test_what_stood_for_each_key_is_found_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries and records of one instant, merged in batches, are those that a dict would give."""
    monkeypatch.setattr(capture, "_BATCH", 7)
    chance = random.Random(5)
    with make(tmp_path / "store") as manager:
        catalog = manager._hierarchy.catalog
        for turn in range(300):
            key = f"{chance.choice('abcż')}{chance.randrange(60)}"
            manager.store(key, turn, tier=chance.choice(["warm", "cold", "hot"]))
            if turn % 90 == 0:
                manager.flush()
        for prefix in ("", "a", "ż", "x"):
            with catalog.instant() as instant:
                found = [one for batch in capture.newest(instant, prefix) for one in batch]
                assert expected(instant, prefix) == [(one.key, one.version) for one in found]
                assert all(catalog.lookup(one.key) == one for one in found)


def expected(instant: Instant, prefix: str) -> list[tuple[str, int]]:
    """Return keys and versions by way of a dict."""
    newest: dict[str, int] = {}
    for one in (*instant.records.scan(), *instant.entries):
        newest[one.key] = max(one.version, newest.get(one.key, 0))
    return sorted((key, version) for key, version in newest.items() if key.startswith(prefix))


def test_a_damaged_small_value_is_left_where_it_is(tmp_path: Path) -> None:
    """The others of its batch come back to RAM, and the error names the key."""
    stored = {f"k{n:03}": f"value {n} " * 20 for n in range(300)}
    with make(tmp_path / "store") as manager:
        manager.store_many(stored, tier="warm")
        manager.create_snapshot(tmp_path / "s")
    with open_snapshot(tmp_path / "s") as snapshot:
        where = next(row.where for row in snapshot.rows() if row.key == "k123")
    data = bytearray((tmp_path / "s").read_bytes())
    data[where.offset + where.length - 70] ^= 1
    (tmp_path / "s").write_bytes(data)
    with make(tmp_path / "other") as manager:
        failed: list[Event] = []
        manager._hierarchy.events.subscribe(failed.append)
        manager.restore_snapshot(tmp_path / "s", verify="lazy", wait=True)
        manager.restore_snapshot(tmp_path / "s", verify="lazy", wait=True)
        assert {"k123"} == {one.key for one in failed if isinstance(one, Failed)}
        assert "cold" == manager.get_tier("k123")
        with pytest.raises(CorruptDataError, match="'k123'"):
            manager["k123"]
        for key in stored.keys() - {"k123"}:
            assert "warm" == manager.get_tier(key)
            assert stored[key] == manager[key]


def test_small_values_that_do_not_fit_stay_where_they_are(tmp_path: Path) -> None:
    """The machine may have less RAM: the budget is kept, and every value can be read."""
    stored = {f"k{n:03}": bytes(900) for n in range(400)}
    with make(tmp_path / "store") as manager:
        manager.store_many(stored, tier="warm")
        manager.create_snapshot(tmp_path / "s")
    with make(tmp_path / "other", sizes=(0, "100 kB", "20 MB")) as manager:
        manager.restore_snapshot(tmp_path / "s", wait=True)
        tiers = [manager.get_tier(key) for key in stored]
        assert 60 < tiers.count("warm") < 100
        assert manager.get_memory_usage()["warm"] <= 100
        assert stored == dict(manager)
        assert_whole(manager)


def test_each_value_that_comes_back_is_an_event(tmp_path: Path) -> None:
    """Observers get an event of every key, as where values move one by one."""
    stored = {f"k{n:03}": n for n in range(700)}
    with make(tmp_path / "store") as manager:
        manager.store_many(stored, tier="hot")
        manager.create_snapshot(tmp_path / "s")
    with make(tmp_path / "other") as manager:
        events: list[Event] = []
        manager._hierarchy.events.subscribe(events.append)
        manager.restore_snapshot(tmp_path / "s", wait=True)
        moves = [one for one in events if isinstance(one, Moved) and one.cause is Cause.RESTORED]
        assert sorted(stored) == sorted(one.key for one in moves)
        assert {("cold", "hot")} == {(one.source, one.target) for one in moves}


def test_a_caller_that_waits_gets_values_while_their_keys_are_locked(tmp_path: Path) -> None:
    """None is looked up and locked a second time, and what it replaces has left by then."""
    stored = values(1_500)
    with make(tmp_path / "store") as manager:
        for key, value in stored.items():
            manager.store(key, value, "hot")
        manager.create_snapshot(tmp_path / "s")
        for n, key in enumerate(stored):
            manager.store(key, "replaced", ("hot", "warm", "cold")[n % 3])
        held = set[str]()

        def look(event: Event) -> None:
            if isinstance(event, Moved) and event.key in manager._hierarchy.locks.held_keys():
                held.add(event.key)

        manager._hierarchy.events.subscribe(look, kinds=(Moved,))
        manager.restore_snapshot(tmp_path / "s", wait=True)
        assert len(held) > 0.8 * len(stored)
        assert {"hot"} == set(map(manager.get_tier, stored))
        assert_same(stored, manager)
        assert_whole(manager)


def test_most_of_what_comes_back_only_counts_its_hits(tmp_path: Path) -> None:
    """Nothing reads the samples of hits meanwhile, which then would hold every key."""
    stored = {f"k{n:05}": b"value" for n in range(12_000)}
    with make(tmp_path / "store") as manager:
        manager.store_many(stored, tier="warm")
        manager.create_snapshot(tmp_path / "s")
    with make(tmp_path / "other") as manager:
        manager.restore_snapshot(tmp_path / "s", wait=True)
        entries = manager._hierarchy.catalog.entries
        assert len(stored) == len(entries)
        latest = [entries[key] for key in sorted(stored)[-2_000:]]
        assert sum(isinstance(entry.tick, SampledTick) for entry in latest) < 1_000
