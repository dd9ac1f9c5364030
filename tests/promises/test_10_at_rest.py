"""Promise 10: a key at rest costs no RAM, and opening a store reads none of its keys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memories import MemoryManager

FEW, MANY = 500, 6_000
BYTES_PER_KEY = 8.0  # What a dict takes for the hash and the two pointers alone is 24 and more.

# A process of its own: threads and caches of other tests allocate memory, too. The first opening
# loads what is loaded once; of the others the least counts, because threads allocate at any time.
MEASURE = """
import gc, sys, tracemalloc
from memories import MemoryManager

def bytes_to_open(path):
    gc.collect()
    tracemalloc.start()
    with MemoryManager("1 MB", "1 MB", "1 GB", storage_path=path, migration=False) as manager:
        assert 1 == manager.retrieve("key/1")
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken

bytes_to_open(sys.argv[1])
print(*(min(bytes_to_open(path) for _ in range(3)) for path in sys.argv[1:]))
"""


def filled(path: Path, keys: int) -> Path:
    """Return a closed store with so many keys in cold."""
    with MemoryManager("1 MB", "1 MB", "1 GB", storage_path=path, migration=False) as manager:
        manager.store_many({f"key/{number}": number for number in range(keys)}, "cold")
    return path


def test_an_open_store_takes_the_same_memory_for_few_keys_and_for_many(tmp_path: Path) -> None:
    """A store of a hundred million keys must open on a laptop."""
    stores = [filled(tmp_path / "few", FEW), filled(tmp_path / "many", MANY)]
    command = [sys.executable, "-c", MEASURE, *map(str, stores)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    few, many = map(int, done.stdout.split())
    assert many - few < BYTES_PER_KEY * (MANY - FEW)
