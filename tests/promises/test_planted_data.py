"""Forged values in every place that is read: an error of ours, soon, and the process goes on.

Each is a frame whose checksums all hold, put byte for byte into cold, the archive, a snapshot or a
node. What the forgeries are is tried one by one in `unit/codecs/test_proportion.py`.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.unit.codecs.test_proportion import BOMBS

from memories import CorruptDataError, MemoriesError, MemoryManager, TierFullError, codecs
from memories.backends.disk import DiskBackend
from memories.engine.payload import Payload
from memories.foundation import host_limits
from memories.frames import reader, writer
from memories.model.record import Record, Terms
from memories.model.tiers import TierName

KEY = "k"
SECONDS = 30.0
KILOBYTES = 800_000
NAMES = (
    "objects of a range", "rows of lists", "nulls for polars", "zstd for polars",
    "zstd for pyarrow", "a long frequency",
)  # fmt: skip
READS: tuple[Callable[[MemoryManager], Any], ...] = (
    lambda manager: manager.retrieve(KEY),
    lambda manager: manager.retrieve(KEY, copy=True),
    lambda manager: manager.retrieve_many([KEY]),
    lambda manager: manager.modify(KEY, lambda value: value),
)


def planted(name: str) -> memoryview:
    """Return a frame as an attacker would write it."""
    return memoryview(writer.pack(BOMBS[name](), key=KEY, version=1).join())


def plant(manager: MemoryManager, frame: memoryview, tier: str) -> None:
    """Put a frame into a tier."""
    payload = Payload.of_frame(frame, key=KEY)
    manager._hierarchy.put(KEY, payload, tier=TierName(tier), terms=Terms())


def assert_refused(manager: MemoryManager, reads: Any = READS) -> None:
    """Each read raises an error of ours, and takes neither minutes nor gigabytes."""
    started = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in reads:
        with pytest.raises(CorruptDataError):
            read(manager)
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES


@pytest.mark.parametrize("tier", ["cold", "glacier"])
@pytest.mark.parametrize("name", NAMES)
def test_a_forged_value_in_a_tier_is_refused(make: Make, name: str, tier: str) -> None:
    """On every way to read it, and wherever it is moved to."""
    manager = make()
    plant(manager, planted(name), tier)
    assert_refused(manager)
    for target in ("cold", "warm", "hot"):
        with contextlib.suppress(MemoriesError):
            manager.migrate(KEY, target)
    assert_refused(manager)
    manager.store("plain", [1, 2], "cold")
    assert [1, 2] == manager["plain"]


@pytest.mark.parametrize("name", NAMES)
def test_a_forged_value_in_a_snapshot_is_refused(make: Make, tmp_path: Path, name: str) -> None:
    """In a file that was adopted, and in one that is read where it lies."""
    manager = make()
    plant(manager, planted(name), "cold")
    manager.store("large", np.arange(500_000), "cold")
    manager.create_snapshot(tmp_path / "snapshot")
    other = make(storage_path=tmp_path / "other")
    other.restore_snapshot(tmp_path / "snapshot")
    assert_refused(other)
    assert 499_999 == other["large"][-1]


def test_zeros_that_the_machine_has_no_room_for_are_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred kilobytes may be gigabytes of zeros, honestly; they must not end the process."""
    manager = make(compression={"cold": "zstd:9"})
    zeros = np.zeros(20_000_000, np.uint8)
    parts = codecs.encode(zeros)
    frame = writer.pack(parts, key=KEY, version=1, compression="zstd:9").join()
    assert len(frame) < 100_000
    plant(manager, memoryview(frame), "cold")
    assert 20_000_000 == len(manager.retrieve(KEY))
    monkeypatch.setattr(reader, "_SURE_NBYTES", 1_000_000)
    monkeypatch.setattr(reader, "host_room", lambda: 10_000_000)
    with pytest.raises(TierFullError, match="to spare"):
        manager.retrieve(KEY, copy=True)
    assert 1000 == len(manager.retrieve(KEY, region=slice(0, 1000)))
    assert host_limits.host_room() > 0


def test_a_version_that_no_store_reaches_is_named(make: Make, tmp_path: Path) -> None:
    """What is stored after it would get numbers that cannot be read back."""
    make().cleanup()
    with DiskBackend(tmp_path / "store" / "cold") as backend:
        wild = Record(key="a", version=2**62, tier=TierName.COLD, size=1, stored_at=1.0)
        backend.write(wild, [memoryview(b"a")])
    with pytest.raises(CorruptDataError, match="forged"):
        make()
