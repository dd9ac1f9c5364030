"""What leaves cold for room goes as it is; what is moved to the archive is compressed anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memories import MemoryManager
from memories.model.record import Record


def field(seed: int) -> np.ndarray:
    """Return a smooth field that differences shrink well."""
    steps = np.random.default_rng(seed).integers(-3, 4, 400_000)
    return np.cumsum(steps).astype(np.int32)


def stored(manager: MemoryManager, key: str) -> int:
    """Return the bytes that a durable value takes."""
    record = manager._services.hierarchy.lookup(key)
    assert isinstance(record, Record)
    return record.stored


def test_no_thread_waits_for_compression_while_room_is_made(tmp_path: Path) -> None:
    """A store into a full hierarchy would take ten times as long."""
    with MemoryManager(
        "1 MB", "1 MB", "8 MB", True, storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        manager.store("first", field(0), tier="cold")
        lying = stored(manager, "first")
        for index in range(30):
            manager.store(f"next{index}", field(index + 1), tier="cold")
        assert "glacier" == manager.get_tier("first")
        assert lying == stored(manager, "first")
        manager.store("asked", field(0), tier="cold")
        manager.migrate("asked", "glacier")
        assert stored(manager, "asked") < 0.9 * lying
        assert np.array_equal(field(0), manager["first"])
        assert np.array_equal(field(0), manager["asked"])
