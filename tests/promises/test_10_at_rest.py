"""Promise 10: a key at rest costs no RAM, and opening a store reads none of its keys."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

from memories import MemoryManager

FEW, MANY = 500, 6_000
BYTES_PER_KEY = 8.0  # What a dict takes for the hash and the two pointers alone is 24 and more.


def bytes_to_open(path: Path) -> int:
    """Return what Python has allocated for a manager that was opened on `path` and read one key."""
    gc.collect()
    tracemalloc.start()
    try:
        with MemoryManager("1 MB", "1 MB", "1 GB", storage_path=path, migration=False) as manager:
            assert 1 == manager.retrieve("key/1")
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def filled(path: Path, keys: int) -> Path:
    """Return a closed store with so many keys in cold."""
    with MemoryManager("1 MB", "1 MB", "1 GB", storage_path=path, migration=False) as manager:
        manager.store_many({f"key/{number}": number for number in range(keys)}, "cold")
    return path


def test_an_open_store_takes_the_same_memory_for_few_keys_and_for_many(tmp_path: Path) -> None:
    """A store of a hundred million keys must open on a laptop."""
    few, many = filled(tmp_path / "few", FEW), filled(tmp_path / "many", MANY)
    bytes_to_open(few)  # Warms up what is loaded once.
    grown = bytes_to_open(many) - bytes_to_open(few)
    assert grown < BYTES_PER_KEY * (MANY - FEW)
