"""Pressure from outside and from within: tiers give way, and no store fails for being early."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import until

from memories import MemoryManager, MigrationSettings
from memories.foundation import host_limits
from memories.model.tiers import TierName


def make_cgroup(folder: Path, *, limit: int, held: int) -> None:
    """Write what the kernel shows of a group that holds `held` of `limit` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{held}\n")
    (folder / "memory.stat").write_text("anon 0\ninactive_file 0\n")


def test_tiers_give_way_when_the_cgroup_gets_tight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for the kernel to kill one is often the victim."""
    group = tmp_path / "cgroup" / "job"
    (tmp_path / "self").write_text("0::/job\n")
    monkeypatch.setattr(host_limits, "_CGROUP", tmp_path / "self")
    monkeypatch.setattr(host_limits, "_CGROUP_ROOT", tmp_path / "cgroup")
    make_cgroup(group, limit=10**9, held=10**8)
    soon = MigrationSettings(interval_seconds=0.01)
    with MemoryManager("1 B", "50 MB", "1 GB", migration=soon, prefetch="off") as manager:
        values = {f"k{number}": np.full(100_000, number) for number in range(20)}
        manager.store_many(values, "warm")
        assert {"warm"} == {manager.get_tier(key) for key in values}
        make_cgroup(group, limit=10**9, held=10**9)
        until(lambda: manager.get_memory_usage()["warm"] < 10)
        assert all(np.array_equal(value, manager[key]) for key, value in values.items())


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return this process's cgroup, in a tree of plain files."""
    (tmp_path / "self").write_text("4:memory:/elsewhere\n0::/slice/job\n")
    monkeypatch.setattr(host_limits, "_CGROUP", tmp_path / "self")
    monkeypatch.setattr(host_limits, "_CGROUP_ROOT", tmp_path / "cgroup")
    folder = tmp_path / "cgroup" / "slice" / "job"
    make_cgroup(folder, limit=10**6, held=10**5)
    return folder


def test_room_is_halved_while_tasks_of_the_group_stall_for_memory(group: Path) -> None:
    """The counts look fine until the kernel reclaims without end; stalls are seen before."""
    assert 0.0 == host_limits.stalled_percent(group)
    assert 9 * 10**5 == host_limits.host_room()
    full = "full avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"
    for folder in (group, group.parent):  # A limit further up stalls this process as well.
        pressure = folder / "memory.pressure"
        pressure.write_text(f"some avg10=3.50 avg60=90.00 avg300=90.00 total=9\n{full}")
        assert 3.5 == host_limits.stalled_percent(folder)
        assert 9 * 10**5 == host_limits.host_room()
        pressure.write_text(f"some avg10=45.20 avg60=0.00 avg300=0.00 total=9\n{full}")
        assert 45.2 == host_limits.stalled_percent(folder)
        assert 45 * 10**4 == host_limits.host_room()
        pressure.write_text("")
        assert 9 * 10**5 == host_limits.host_room()


def test_room_ends_where_the_kernel_begins_to_throttle(group: Path) -> None:
    """A group over its `memory.high` is slowed down long before a process is killed."""
    (group / "memory.high").write_text("300000\n")
    assert 2 * 10**5 == host_limits.host_room()
    (group / "memory.high").write_text("max\n")
    assert 9 * 10**5 == host_limits.host_room()


def test_no_store_fails_because_no_room_was_made_ahead() -> None:
    """Without a migrator every store makes its own room, and eight at once share what there is."""
    with MemoryManager("100 kB", "100 kB", "100 MB", migration=False, prefetch="off") as manager:
        errors: list[BaseException] = []

        def write(name: str) -> None:
            try:
                for number in range(60):
                    manager.store(f"{name}/{number}", np.full(2000, number))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(str(at),)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a store hangs"
        assert [] == errors
        assert 480 == len(manager)
        used = manager.stats().tiers
        assert all(tier.used_bytes <= tier.effective_bytes for tier in used.values())


def test_expired_keys_that_others_hold_do_not_call_maintenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them did: a store beside many locked keys did the work of maintenance 40 times."""
    with MemoryManager(
        "1 B", "1 B", "1 MB", storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        hierarchy = manager._hierarchy
        for number in range(40):
            manager.store(f"brief{number}", bytes(20_000), tier="cold", ttl=0.05)
        time.sleep(0.1)
        calls: list[bool] = []
        catch_up = hierarchy.catalog.journal.catch_up
        monkeypatch.setattr(
            hierarchy.catalog.journal, "catch_up", lambda: calls.append(True) or catch_up()
        )
        monkeypatch.setattr(hierarchy.mover, "expire", lambda found, shown=False: False)
        tier = hierarchy.tiers[TierName.COLD]
        assert not hierarchy.mover._reserve_expired(tier, 10**6)
        assert [] == calls
