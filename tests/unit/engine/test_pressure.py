"""Pressure from outside and from within: tiers give way, and no store fails for being early."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from memories import MemoryManager, MigrationSettings, sizing


def make_cgroup(folder: Path, *, limit: int, held: int) -> None:
    """Write what the kernel shows of a group that holds `held` of `limit` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{held}\n")
    (folder / "memory.stat").write_text("anon 0\ninactive_file 0\n")


def test_tiers_give_way_when_the_cgroup_gets_tight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the kernel to kill somebody is often the one."""
    group = tmp_path / "cgroup" / "job"
    (tmp_path / "self").write_text("0::/job\n")
    monkeypatch.setattr(sizing, "_CGROUP", tmp_path / "self")
    monkeypatch.setattr(sizing, "_CGROUP_ROOT", tmp_path / "cgroup")
    make_cgroup(group, limit=10**9, held=10**8)
    soon = MigrationSettings(interval_seconds=0.01)
    with MemoryManager("1 B", "50 MB", "1 GB", migration=soon) as manager:
        values = {f"k{number}": np.full(100_000, number) for number in range(20)}
        manager.store_many(values, "warm")
        assert {"warm"} == {manager.get_tier(key) for key in values}
        make_cgroup(group, limit=10**9, held=10**9)
        deadline = time.monotonic() + 20
        while manager.get_memory_usage()["warm"] > 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert manager.get_memory_usage()["warm"] < 10
        assert all(np.array_equal(value, manager[key]) for key, value in values.items())


def test_no_store_fails_because_nobody_made_room_ahead() -> None:
    """Without a migrator every store makes its own room, and eight at once share what there is."""
    with MemoryManager("100 kB", "100 kB", "100 MB", migration=False) as manager:
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
