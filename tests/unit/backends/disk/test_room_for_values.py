"""How many bytes of values fit into a full store: as it is foretold, and as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memories import MemoryManager
from memories.backends.disk.size_limits import room_for_values


@pytest.mark.parametrize(("capacity", "size"), [(8_000_000, 20_000), (2_500_000, 4000)])
def test_a_full_store_holds_what_was_foretold(tmp_path: Path, capacity: int, size: int) -> None:
    """Otherwise the simulator would give the disk more room than a manager has."""
    with MemoryManager(
        "1 B",
        "1 B",
        f"{capacity} B",
        storage_path=tmp_path,
        on_full="evict",
        migration=False,
        prefetch="off",
    ) as manager:
        for number in range(int(1.2 * capacity / size)):
            manager.store(f"{number}", os.urandom(size), "cold")
        held = sum(record.stored for record in manager._hierarchy.catalog.journal.scan())
    assert 0.93 < room_for_values(capacity, [size + 120]) / held < 1.07


def test_values_in_an_archive_leave_less_room() -> None:
    """Their records lie in the log, too."""
    alone = room_for_values(10**8, [30_000])
    assert 0.85 * 10**8 < alone < 0.95 * 10**8
    assert 0.9 * alone < room_for_values(10**8, [30_000], elsewhere=5_000) < 0.98 * alone
    assert 0 == room_for_values(40_000, [30_000])
