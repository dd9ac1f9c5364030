"""Memory that has left the tiers in RAM goes back to the system, and not too often."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from memories.engine.heap_trim import TRIM_BYTES, HeapTrim, trim_heap
from memories.model.events import Moved, Removed
from memories.model.tiers import Cause, TierName

HOT, WARM, COLD, GLACIER = TierName


def moved(source: TierName, target: TierName, size: int) -> Moved:
    """Return an event."""
    return Moved("a", 0.0, source, target, size, Cause.CAPACITY, 0.0)


def test_it_trims_after_much_has_left_ram_for_room() -> None:
    """Only then: moves in RAM and on the disk, and what a caller removes, free nothing of it."""
    now, trimmed = 10.0, 0

    def trim() -> None:
        nonlocal now, trimmed
        trimmed += 1
        now += 0.05

    heap = HeapTrim(lambda: now, trim)
    most = TRIM_BYTES - 1
    for event in (
        moved(HOT, WARM, TRIM_BYTES),
        moved(COLD, GLACIER, TRIM_BYTES),
        moved(COLD, WARM, TRIM_BYTES),
        Removed("a", 0.0, WARM, TRIM_BYTES, Cause.REMOVED),
        Removed("a", 0.0, COLD, TRIM_BYTES, Cause.CAPACITY),
        moved(WARM, COLD, most),
    ):
        heap.observe(event)
    assert 0 == trimmed
    heap.observe(Removed("a", 0.0, HOT, 1, Cause.CAPACITY))
    assert 1 == trimmed
    heap.observe_batch([moved(WARM, COLD, most), moved(HOT, GLACIER, most)])
    assert 1 == trimmed, "it takes a twentieth of the time"
    now += 1.0
    heap.observe(moved(WARM, COLD, 1))
    assert 2 == trimmed


PROGRAM = """
import sys
import time
import numpy as np
from memories import MemoryManager
from memories.foundation.resident import resident_bytes
from memories.model.tiers import TierName

with MemoryManager("0 B", "1 GB", "2 GB", storage_path=sys.argv[1], migration=False) as manager:
    for number in range(2500):
        manager.store(f"{number}", np.random.default_rng(number).bytes(60_000), "warm")
    manager.store("last", np.random.default_rng(1).bytes(60_000), "warm", pin=True)
    full = resident_bytes()
    manager._hierarchy.drain(TierName.WARM, 600_000)
    # What was freed soon after a trim is given back with the next value that leaves: as a host that
    # waits for memory evicts, one at a time.
    while manager.evict_one("warm") and resident_bytes() > full - 60e6:
        time.sleep(0.5)
    print(full, resident_bytes(), manager.get_memory_usage()["warm"])
"""


def output(program: str, *arguments: str) -> str:
    """Return what a program prints whose allocator has the limits that it has by itself.

    A nanny of dask leaves others in the environment of the process that started it.
    """
    chosen = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, env=chosen, capture_output=True, text=True, timeout=240, check=True
    ).stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other C library keeps so much")
def test_the_process_shrinks_with_its_tiers(tmp_path: Path) -> None:
    """A worker that is paused for its memory would else stay paused for ever."""
    assert isinstance(trim_heap(), bool)
    full, empty, warm = map(float, output(PROGRAM, str(tmp_path / "store")).split())
    assert warm < 1
    assert full - empty > 60e6, (full, empty)


BLOCKS = """
import resource
from memories import MemoryManager
manager = MemoryManager(1, 1, 1, migration=False, prefetch="off")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    blocks = [b"x" * 300_000 for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
manager.cleanup()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_the_memory_of_values_is_kept_for_the_next_ones() -> None:
    """They have 293 pages together, which the system would clear 100 times."""
    assert int(output(BLOCKS)) < 100 * 293 / 4
