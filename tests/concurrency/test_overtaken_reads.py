"""What happens when a key moves or goes between a look-up and what follows from it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memories import CorruptDataError, MemoryManager, StorageError
from memories.engine.hierarchy import READ_ATTEMPTS
from memories.errors import KeyNotFoundError
from memories.model.record import Record

VALUE = os.urandom(3_000_000)  # Large enough for a file of its own, which goes when the key moves.


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(
        "1 B", "10 MB", "50 MB", True, storage_path=tmp_path / "store", migration=False,
        prefetch="off",
    ) as made:  # fmt: skip
        made.store("key", VALUE, "cold")
        yield made


class Sync:
    """Holds a reader in front of its read of cold until another thread has done `meanwhile`."""

    def __init__(self, manager: MemoryManager, patch: pytest.MonkeyPatch, meanwhile: Any) -> None:
        journal = manager._hierarchy.catalog.journal
        read, self.reads = journal.read, 0

        def held(found: Record) -> Any:
            self.reads += 1
            if self.reads == 1:
                other = threading.Thread(target=meanwhile)
                other.start()
                other.join(30)
                assert not other.is_alive(), "nothing that changes a key waits for its readers"
            return read(found)

        patch.setattr(journal, "read", held)


def test_a_read_that_a_move_overtook_finds_where_the_value_went(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is there all the time: KeyError, or a fault of the disk, would be a lie."""

    def meanwhile() -> None:
        manager.migrate("key", "glacier")
        manager._hierarchy.catalog.journal.make_room(40_000_000)

    sync = Sync(manager, monkeypatch, meanwhile)
    assert VALUE == manager["key"]
    assert sync.reads >= 1
    assert "glacier" == manager.get_tier("key")


def test_a_read_that_a_volatile_store_overtook_finds_the_key(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version is named before the old one is buried, so the key is never absent."""
    journal, looked = manager._hierarchy.catalog.journal, 0
    lookup = journal.lookup

    def held(key: str) -> Record | None:
        nonlocal looked
        looked += 1
        if looked == 1:
            other = threading.Thread(
                target=lambda: manager.store("key", b"newer", "warm", volatile=True)
            )
            other.start()
            other.join(30)
        return lookup(key)

    monkeypatch.setattr(journal, "lookup", held)
    assert b"newer" == manager["key"]


def test_a_read_that_a_delete_overtook_gives_the_old_value_or_says_absent(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either order is true; a damaged or half deleted value is not."""
    Sync(manager, monkeypatch, lambda: manager.delete("key"))
    try:
        assert VALUE == manager["key"]
    except KeyError:
        pass
    assert "key" not in manager


def test_a_read_that_a_store_overtook_gives_one_of_the_two(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader without a lock may be late, and never mixes two versions."""
    newer = os.urandom(3_000_000)
    Sync(manager, monkeypatch, lambda: manager.store("key", newer, "cold"))
    assert manager["key"] in (VALUE, newer)
    assert newer == manager["key"]


@pytest.mark.parametrize("fault", [StorageError, CorruptDataError, KeyNotFoundError])
def test_a_fault_of_a_value_that_did_not_move_is_raised_at_once(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    """Looking again is for what was overtaken, and must not hide or delay a real fault."""
    reads = 0

    def read(found: Record) -> Any:
        nonlocal reads
        reads += 1
        raise fault("the medium failed")

    monkeypatch.setattr(manager._hierarchy.catalog.journal, "read", read)
    with pytest.raises(fault):
        manager["key"]
    assert 1 == reads


def test_a_read_is_overtaken_so_often_and_no_more(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that looked again for ever would hang behind a medium that fails."""
    reads = 0

    def read(found: Record) -> Any:
        nonlocal reads
        reads += 1
        manager.store("key", os.urandom(10_000), "cold")
        raise StorageError("gone")

    monkeypatch.setattr(manager._hierarchy.catalog.journal, "read", read)
    with pytest.raises(StorageError):
        manager["key"]
    assert READ_ATTEMPTS == reads


def test_a_key_that_went_while_its_prefix_was_deleted_is_not_counted(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads that clear up at once must not make each other fail."""
    for number in range(5):
        manager.store(f"p/{number}", number, "cold")
    catalog = manager._hierarchy.catalog
    listed = catalog.keys

    def overtaken(prefix: str = "") -> Iterator[str]:
        keys = list(listed(prefix))
        manager.delete("p/3")
        return iter(keys)

    monkeypatch.setattr(catalog, "keys", overtaken)
    assert 4 == manager.delete_prefix("p/")
