"""Promise 3: one complete copy at the place the catalog names, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from memories import MemoryManager, StorageError
from memories.model.record import Record


def break_writes(manager: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk refuse everything, as a full or failing one does."""

    def refuse(record: Record, frame: Sequence[memoryview], *sizes: int) -> Record:
        raise StorageError(f"{record.key!r} cannot be written: no space left on device")

    for way in ("write", "write_if_room"):
        monkeypatch.setattr(manager._hierarchy.catalog.journal, way, refuse)


def test_a_failed_move_leaves_the_value_where_it_was(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copy, commit, and only then release the old copy."""
    manager.store("a", np.arange(1000), "warm")
    used = manager.stats().tiers["warm"].used_bytes  # type: ignore[index]
    break_writes(manager, monkeypatch)
    with pytest.raises(OSError, match="no space left"):
        manager.migrate("a", "cold")
    assert "warm" == manager.get_tier("a")
    assert np.array_equal(np.arange(1000), manager.retrieve("a"))
    assert used == manager.stats().tiers["warm"].used_bytes  # type: ignore[index]
    monkeypatch.undo()
    manager.migrate("a", "cold")
    assert "cold" == manager.get_tier("a")


def test_a_failed_store_leaves_the_old_value_and_no_charge(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old value or the new one, never a third, and never neither."""
    manager.store("a", "old", "cold")
    break_writes(manager, monkeypatch)
    for tier in ("hot", "warm", "cold"):
        with pytest.raises(StorageError):
            manager.store("a", "new", tier)
        assert "old" == manager.retrieve("a")
    stats = manager.stats()
    assert 0 == stats.tiers["hot"].used_bytes  # type: ignore[index]
    assert 0 == stats.tiers["warm"].used_bytes  # type: ignore[index]


def test_a_failed_volatile_overwrite_leaves_the_old_value(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone could not be written, so the old version must still be the one that counts."""

    def refuse(key: str, version: int) -> None:
        raise StorageError(f"{key!r} cannot be removed at {version}: input/output error")

    manager.store("cold", "old", "cold")
    manager.store("warm", "old", "cold")
    manager.migrate("warm", "warm")
    used = manager.stats().tiers["warm"].used_bytes  # type: ignore[index]
    monkeypatch.setattr(manager._hierarchy.catalog.journal, "remove", refuse)
    for key in ("cold", "warm"):
        with pytest.raises(StorageError):
            manager.store(key, "new", "warm", volatile=True)
        assert "old" == manager.retrieve(key)
    monkeypatch.undo()
    assert used == manager.stats().tiers["warm"].used_bytes  # type: ignore[index]
    manager.migrate("warm", "cold")
    assert "old" == manager.retrieve("warm")
    assert 2 == len(manager)


def test_an_older_copy_never_comes_back(manager: MemoryManager) -> None:
    """Overwrites and deletes reach every tier that holds a copy."""
    for low in ("cold", "glacier"):
        for high in ("hot", "warm", "cold"):
            manager.store("a", "first", low)
            manager.migrate("a", high)
            manager.store("a", "second", high)
            for tier in ("cold", "glacier", "warm"):
                manager.migrate("a", tier)
                assert "second" == manager.retrieve("a")
            manager.delete("a")
            with pytest.raises(KeyError):
                manager.retrieve("a")


def test_promotion_keeps_the_copy_below(manager: MemoryManager) -> None:
    """Coming down again is free, and a crash in between loses nothing."""
    manager.store("a", np.arange(1000), "cold")
    manager.migrate("a", "warm")
    assert manager.explain("a").durable
    assert manager.stats().tiers["cold"].used_bytes > 0  # type: ignore[index]
    stored = manager.stats().stored
    manager.migrate("a", "cold")
    assert stored == manager.stats().stored
    assert "cold" == manager.get_tier("a")
