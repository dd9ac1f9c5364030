"""Victims of the cold tier: the coldest of a sample, as far as touches are remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.waiting import until

from memories import MemoryManager, MigrationSettings
from memories.backends.bucket import BucketBackend
from memories.engine.cold_victims import POOL, SAMPLE, ColdVictims
from memories.engine.recency import RecencyTracker
from memories.model.record import Record
from memories.model.tiers import Cause, TierName

KEYS = [f"k{number:03}" for number in range(100)]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(
        "1 B", "1 MB", "20 MB", True, storage_path=tmp_path / "store",
        migration=MigrationSettings(interval_seconds=3600), prefetch="off",
    ) as made:  # fmt: skip
        yield made


def fill(manager: MemoryManager, keys: list[str] = KEYS) -> None:
    for key in keys:
        manager.store(key, os.urandom(1000), "cold")


def victims(manager: MemoryManager, recency: RecencyTracker | None = None) -> ColdVictims:
    """Return those of the cold tier, or others over the same journal with a memory of their own."""
    tier = manager._hierarchy.tiers[TierName.COLD]
    if recency is None:
        assert isinstance(tier.victims, ColdVictims)
        return tier.victims
    journal = manager._hierarchy.catalog.journal
    return ColdVictims(
        journal, TierName.COLD, lambda record: not record.terms.pinned, recency,
        saved=lambda size: 1.0, entries={}, sinks=lambda record: True,
    )  # fmt: skip


def offered(source: ColdVictims, count: int) -> list[str]:
    found = [source.offer() for _ in range(count)]
    return [record.key for record in found if record is not None]


def test_who_was_stored_or_read_last_leaves_last(manager: MemoryManager) -> None:
    """A sweep in key order sends away what was read a moment ago, and the archive answers next."""
    fill(manager, KEYS[50:])
    fill(manager, KEYS[:50])
    for key in KEYS[50:60]:
        manager[key]
    manager._hierarchy.events.flush()
    assert KEYS[60:] == offered(victims(manager), 40)


def test_a_scan_leaves_before_what_was_read(manager: MemoryManager) -> None:
    """New unread values must not push out those that are read."""
    fill(manager, KEYS[:20])
    for key in 3 * KEYS[:20]:
        manager[key]
    manager._hierarchy.events.flush()
    fill(manager, KEYS[20:40])
    assert KEYS[20:24] == offered(victims(manager), 4)


def test_among_the_forgotten_the_oldest_version_leaves_first(manager: MemoryManager) -> None:
    """Memory is bounded; what it does not reach still has an order that costs no RAM."""
    fill(manager, KEYS[::-1])
    assert KEYS[::-1][:10] == offered(victims(manager, RecencyTracker()), 10)


def test_every_record_is_offered_in_the_end(manager: MemoryManager) -> None:
    """A tier that counts as full while a value could leave would refuse a store needlessly."""
    fill(manager)
    source = victims(manager, RecencyTracker())
    assert KEYS == sorted(offered(source, 200)), "each once, while a sweep has it in hand"
    assert source.offer() is None
    record = manager._hierarchy.catalog.record(KEYS[7])
    assert isinstance(record, Record)
    source.add(record, accessed=False)
    assert [KEYS[7]] == offered(source, 2), "it was given back"


def test_more_records_than_a_sample_are_gone_through_in_turn(manager: MemoryManager) -> None:
    """The hand goes on where it stood, and comes round again."""
    keys = [f"n{number:04}" for number in range(3 * (SAMPLE + POOL))]
    manager.store_many(dict.fromkeys(keys, b"value"), "cold")
    source = victims(manager, RecencyTracker())
    gone = set()
    for _ in keys:
        record = source.offer()
        assert record is not None
        gone.add(record.key)
        manager.delete(record.key)
    assert set(keys) == gone


def test_what_changed_since_it_was_seen_is_not_offered(manager: MemoryManager) -> None:
    """The pool is older than the moment: a key may be pinned, replaced, gone, or in the archive."""
    fill(manager, KEYS[:6])
    source = victims(manager, RecencyTracker())
    first = source.offer()
    assert first is not None
    manager.pin(KEYS[1])
    manager.delete(KEYS[2])
    manager.store(KEYS[3], b"new", "cold")
    manager.migrate(KEYS[4], "glacier")
    assert [KEYS[5]] == offered(source, 1)


def test_an_archive_read_once_leaves_the_disk_as_it_is(manager: MemoryManager) -> None:
    """A scan of the whole tier would pay for each byte twice, and lose the values in use."""
    fill(manager)
    budget = manager._hierarchy.tiers[TierName.COLD].budget
    manager.store(KEYS[0], os.urandom(400_000), "glacier", min_tier="cold")
    # Half of it would fit below the watermark, above which the tier would make room by itself.
    above = int((1 - MigrationSettings().high_watermark) * budget.configured)
    manager.store("ballast", os.urandom(budget.headroom - above - 200_000), "cold")

    def tier_after_a_read() -> str:
        manager[KEYS[0]]
        assert manager._services.migrator is not None
        manager._services.migrator.tick()
        return manager.get_tier(KEYS[0])

    assert "glacier" == tier_after_a_read()
    until(lambda: "cold" == tier_after_a_read())  # Once the archive does not work on it itself.


def test_what_lies_in_ram_comes_down_from_there(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy in the archive takes seconds and money to fetch."""
    value = os.urandom(1000)
    manager.store("key", value, "glacier")
    hierarchy = manager._hierarchy
    record = hierarchy.catalog.record("key")
    assert isinstance(record, Record)
    hierarchy.try_move(record, TierName.WARM, Cause.HIT)
    assert "warm" == manager.get_tier("key")

    def read(self: BucketBackend, record: Record) -> memoryview:
        raise AssertionError(f"{record.key} was fetched from the archive")

    monkeypatch.setattr(BucketBackend, "read", read)
    manager.migrate("key", "cold")
    assert "cold" == manager.get_tier("key")
    assert value == manager["key"]


@pytest.mark.parametrize("explicit", [True, False])
def test_backing_copies_leave_first(manager: MemoryManager, explicit: bool) -> None:
    """RAM answers their reads, so glacier costs nothing; the others would be fetched from there."""
    fill(manager)
    raised = KEYS[70:80]
    if explicit:
        for key in raised:
            manager.promote(key)
    else:
        manager.prefetch(raised)
    until(lambda: {"warm"} == {manager.get_tier(key) for key in raised})
    assert set(raised) == set(offered(victims(manager), 10))


def test_nothing_leaves_for_files_that_are_about_to_be_unlinked(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside load the thread that unlinks them is late, and a cache lost what it had room for."""
    journal = manager._hierarchy.catalog.journal
    manager.store("first", 1, "cold")
    writer, maintenance = journal._writer, journal._maintenance
    assert writer is not None and maintenance is not None
    maintenance.stop()
    for number in range(11):
        manager.store(f"old{number}", os.urandom(1_600_000), "cold")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "unlink_obsolete", lambda: None)
        manager.delete_many([f"old{number}" for number in range(6)])
        writer.sync()
    assert writer.obsolete.held() > 9_000_000
    for number in range(6):
        manager.store(f"new{number}", os.urandom(1_600_000), "cold")
    assert {"cold"} == {manager.get_tier(key) for key in manager}
    assert 12 == len(manager)


def test_a_victim_leaves_room_though_its_file_is_unlinked_late(tmp_path: Path) -> None:
    """Otherwise one victim leaves after the other, until that thread has its turn."""
    with MemoryManager(
        "1 MB",
        "1 MB",
        "20 MB",
        storage_path=tmp_path,
        migration=False,
        prefetch="off",
        on_full="evict",
    ) as manager:
        journal = manager._hierarchy.catalog.journal
        manager.store("first", 1, "cold")
        assert journal._maintenance is not None
        journal._maintenance.stop()
        for number in range(30):
            manager.store(f"key{number}", os.urandom(1_600_000), "cold")
        assert 12 <= len(manager) <= 13
