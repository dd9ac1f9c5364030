"""Promise 6: durability belongs to the version. Every process here is really killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from memories import MemoryManager, MigrationSettings, TierFullError
from memories.model.record import Record

START = """
import os, signal, sys
import numpy as np
from memories import MemoryManager, MigrationSettings
from memories.model.record import Record
manager = MemoryManager(1, 1, 1, True, storage_path=sys.argv[1], migration=False, prefetch="off")
"""
KILL = "\nos.kill(os.getpid(), signal.SIGKILL)\n"


def run(script: str, store: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a program against a store and return how it ended."""
    return subprocess.run(
        [sys.executable, "-c", START + script, str(store)], capture_output=True, timeout=60
    )


def killed(script: str, store: Path) -> None:
    """Run a program that kills itself at its end."""
    ended = run(script + KILL, store)
    assert -9 == ended.returncode, ended.stderr.decode()


def open_again(store: Path) -> MemoryManager:
    """Open what a dead process left behind."""
    return MemoryManager(1, 1, 1, True, storage_path=store, migration=False, prefetch="off")


def test_cold_and_glacier_survive_a_kill_and_hot_and_warm_do_not(tmp_path: Path) -> None:
    """What was acknowledged as durable is there, the rest is absent."""
    killed(
        """
for tier in ("hot", "warm", "cold", "glacier"):
    manager.store(tier, np.arange(300_000), tier)
    manager.store(tier + "/small", {"tier": tier}, tier)
""",
        tmp_path,
    )
    with open_again(tmp_path) as manager:
        assert ["cold", "cold/small", "glacier", "glacier/small"] == list(manager)
        assert np.array_equal(np.arange(300_000), manager.retrieve("glacier"))
        assert {"tier": "cold"} == manager.retrieve("cold/small")


def test_a_durable_key_stays_durable(tmp_path: Path) -> None:
    """Promotion keeps the copy, an overwrite in RAM is written through, a delete is final."""
    killed(
        """
manager.store("promoted", 1, "cold"); manager.migrate("promoted", "hot")
manager.store("overwritten", "old", "cold"); manager.store("overwritten", "new", "hot")
manager.store("archived", "old", "glacier"); manager.store("archived", "new", "warm")
manager.store("deleted", 1, "cold"); manager.migrate("deleted", "warm"); manager.delete("deleted")
manager.store("demoted", 1, "hot"); manager.migrate("demoted", "cold")
manager.store("flushed", 1, "warm"); manager.flush()
""",
        tmp_path,
    )
    with open_again(tmp_path) as manager:
        assert ["archived", "demoted", "flushed", "overwritten", "promoted"] == list(manager)
        assert "new" == manager.retrieve("overwritten")
        assert "new" == manager.retrieve("archived")


def test_a_volatile_overwrite_is_absent_after_a_kill_never_old(tmp_path: Path) -> None:
    """volatile=True buys speed with the key, not with its past."""
    killed(
        """
manager.store("a", "old", "cold"); manager.store("a", "new", "warm", volatile=True)
manager.store("b", "old", "cold"); manager.migrate("b", "hot")
manager.store("b", "new", "hot", volatile=True)
assert manager["a"] == manager["b"] == "new"
""",
        tmp_path,
    )
    with open_again(tmp_path) as manager:
        assert [] == list(manager)


def test_write_through_makes_every_store_durable(tmp_path: Path) -> None:
    """The caller who wants it for everything says it once."""
    script = START.replace("migration=False", "migration=False, write_through=True")
    ended = subprocess.run(
        [sys.executable, "-c", script + 'manager.store("a", 1, "hot")' + KILL, str(tmp_path)],
        capture_output=True,
        timeout=60,
    )
    assert -9 == ended.returncode, ended.stderr.decode()
    with open_again(tmp_path) as manager:
        assert 1 == manager.retrieve("a")


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_private_store_leaves_nothing_behind(tmp_path: Path, end: str) -> None:
    """Without a storage_path nothing stays on disk; after a kill the next start sweeps it."""
    script = f"""
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from memories import MemoryManager, MigrationSettings
from memories.model.record import Record
MemoryManager(1, 1, 1).store("a", b"x" * 3_000_000, "cold")
{end}
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    script = script.replace(end, "sys.exit()").replace("MemoryManager(1, 1, 1).", "m.")
    script = script.replace("m.store", "m = MemoryManager(1, 1, 1); m.store")
    last = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, timeout=60
    )
    assert (0, b"") == (last.returncode, last.stderr)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000, files


def test_a_flush_misses_nothing_that_moves_meanwhile(tmp_path: Path) -> None:
    """A value that changes its tier while others are written must be written too."""
    with MemoryManager(
        1, 1, 1, storage_path=tmp_path, migration=MigrationSettings(interval_seconds=3600)
    ) as manager:
        for index in range(300):
            manager.store(str(index), index, "hot")
        journal = manager._hierarchy.catalog.journal
        write = journal.write

        def write_and_move(record: Record, frame: Sequence[memoryview]) -> Record:
            for key in ("298", "299"):
                if manager.get_tier(key) == "hot" and record.key != key:
                    mover = threading.Thread(target=manager.migrate, args=(key, "warm"))
                    mover.start()
                    mover.join()
            return write(record, frame)

        journal.write = write_and_move  # type: ignore[method-assign]
    with open_again(tmp_path) as again:
        assert 300 == len(again)
        assert 299 == again.retrieve("299")


@pytest.mark.parametrize("too_large", [1, 2])
def test_a_flush_goes_on_past_what_cannot_be_written(tmp_path: Path, too_large: int) -> None:
    """One value that nothing below takes kept five others from the disk."""
    manager = MemoryManager(
        "90 MB", "1 MB", "20 MB", storage_path=tmp_path, migration=False, prefetch="off"
    )
    for number in range(too_large):
        manager.store(f"a/{number}", np.random.default_rng(number).bytes(30_000_000), "hot")
    for number in range(5):
        manager.store(f"b/{number}", number, "hot")
    with pytest.raises(TierFullError) as caught:
        manager.flush()
    for number in range(too_large):
        assert f"'a/{number}'" in str(caught.value)
    log = manager._hierarchy.catalog.journal._writer.log  # type: ignore[union-attr]
    assert log.end == log.synced, "what was written is not synced"
    with MemoryManager(1, 1, 1, storage_path=tmp_path, read_only=True) as reader:
        assert [f"b/{number}" for number in range(5)] == list(reader)
    manager.cleanup(flush=False)
