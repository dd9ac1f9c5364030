"""The archive outlives the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import until

from memories import MemoryManager, StorageError
from memories.backends.bucket import BucketBackend

OLD, NEW = np.arange(100), np.arange(100_000)  # One travels with others, one alone.


def _restore(manager: MemoryManager, folder: Path, value: object) -> None:
    """Come to a value by way of a snapshot, after it was overwritten and archived again."""
    manager.store("k", value, "warm")
    manager.create_snapshot(folder / "snapshot.bin")
    manager.store("k", "between", "glacier")
    manager.restore_snapshot(folder / "snapshot.bin", wait=True)
    manager.migrate("k", "glacier")


OVERWRITES: dict[str, Callable[[MemoryManager, Path, object], object]] = {
    "store": lambda m, _, new: m.store("k", new, "glacier"),
    "modify": lambda m, _, new: m.modify("k", lambda old: new),
    "store_many": lambda m, _, new: m.store_many({"k": new}, "glacier"),
    "hot": lambda m, _, new: (m.store("k", new, "hot"), m.migrate("k", "glacier")),
    "warm": lambda m, _, new: (m.store("k", new, "warm"), m.migrate("k", "glacier")),
    "cold": lambda m, _, new: (m.store("k", new, "cold"), m.demote("k")),
    "auto": lambda m, _, new: (m.store("k", new), m.migrate("k", "glacier")),
    "volatile": lambda m, _, new: (m.store("k", new, volatile=True), m.migrate("k", "glacier")),
    "volatile, flushed": lambda m, _, new: (
        m.store("k", new, volatile=True),
        m.flush(),
        m.migrate("k", "glacier"),
    ),
    "promoted first": lambda m, _, new: (m.promote("k"), m.store("k", new, "glacier")),
    "deleted first": lambda m, _, new: (m.delete("k"), m.store("k", new, "glacier")),
    "snapshot": _restore,
}


@pytest.mark.parametrize("value", [OLD, NEW], ids=["small", "large"])
@pytest.mark.parametrize("way", OVERWRITES)
def test_an_archived_key_can_be_overwritten(tmp_path: Path, way: str, value: np.ndarray) -> None:
    """Whichever way, the new value is there: on a fresh machine, and after upkeep on its own."""
    url = tmp_path / "bucket"
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "own", glacier_url=url) as own:
        own.store("k", value + 1, "glacier")
        own.flush()
        OVERWRITES[way](own, tmp_path, value)
        assert "glacier" == own.get_tier("k")
        own.flush()
        bucket = own._services.backends[1]
        bucket.reclaim(0)  # type: ignore[attr-defined]
        assert [] == own.check()
        assert np.array_equal(value, own.retrieve("k"))
    for machine in ("fresh", "own", "fresh"):
        with MemoryManager(
            1, 1, 1, True, storage_path=tmp_path / machine, glacier_url=url
        ) as manager:
            assert np.array_equal(value, manager.retrieve("k"))


def test_a_fresh_machine_gets_every_archived_key_back(tmp_path: Path) -> None:
    """An empty storage_path and the same glacier_url are enough."""
    url = tmp_path / "bucket"
    values = {f"k/{index}": np.arange(index * 1000) for index in range(20)}
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "lost", glacier_url=url) as lost:
        for key, value in values.items():
            lost.store(key, value, "glacier", metadata={"n": len(value)})
        lost.store("cold", "stays on the lost machine", "cold")
        lost.delete("k/7")
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "fresh", glacier_url=url) as fresh:
        del values["k/7"]
        assert sorted(values) == list(fresh)
        assert {"glacier"} == {fresh.get_tier(key) for key in values}  # Reading may fetch ahead.
        for key, value in values.items():
            assert np.array_equal(value, fresh.retrieve(key))
        assert ["k/3"] == list(fresh.find(n=3000))
        fresh.store("k/3", "newer", "hot")
        fresh.delete("k/4")
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "fresh", glacier_url=url) as again:
        assert "newer" == again.retrieve("k/3")
        assert "k/4" not in again


def test_purging_unlinks_at_once(tmp_path: Path) -> None:
    """Without it objects stay for their grace time."""
    url = tmp_path / "bucket"
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=url) as manager:
        for kept in (True, False):
            noise = np.random.default_rng(0).bytes(3_000_000)
            manager.store("a", noise, "glacier")
            manager.flush()
            manager.clear(purge=not kept)
            size = sum(path.stat().st_size for path in url.rglob("*") if path.is_file())
            assert kept == (size > 3_000_000)
            assert "a" not in manager


def _meanwhile(
    patch: pytest.MonkeyPatch, step: str, work: Callable[[], object]
) -> Callable[[], object]:
    """Have `work` begin as the archive is about to take a `step`, which waits a little for it.

    Returns what waits for the end of the work.
    """
    thread, begun, take = Thread(target=work), Event(), getattr(BucketBackend, step)

    def taken(bucket: BucketBackend, *args: Any) -> Any:
        patch.undo()
        thread.start()
        begun.set()
        thread.join(0.3)  # It ends, or waits for the key's lock.
        return take(bucket, *args)

    patch.setattr(BucketBackend, step, taken)
    return lambda: (begun.wait(), thread.join())


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("way", ["warm", "cold", "restored"])
def test_a_check_waits_for_a_move_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, repair: bool
) -> None:
    """What is journaled and not yet committed in the archive is not lost, nor lost by a repair."""
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "store") as manager:
        manager.store("k", OLD, "glacier" if way == "restored" else way)
        manager.create_snapshot(tmp_path / "snapshot.bin")
        if way == "restored":
            manager.delete("k")
        found: list[object] = []
        join = _meanwhile(monkeypatch, "commit", lambda: found.append(manager.check(repair=repair)))
        if way == "restored":
            # It brings home in the background what was archived.
            manager.restore_snapshot(tmp_path / "snapshot.bin", verify="lazy")
        else:
            manager.migrate("k", "glacier")
        join()
        assert [[]] == found
        assert np.array_equal(OLD, manager.retrieve("k"))


def test_a_repair_leaves_what_was_archived_again(tmp_path: Path) -> None:
    """Between what a check finds and what it mends the key may have been stored anew."""
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path) as manager:
        manager.store("k", NEW, "glacier")
        assert manager._services.hierarchy.forget_archived("k")
        assert np.array_equal(NEW, manager.retrieve("k"))


def test_a_repair_leaves_what_has_another_copy(tmp_path: Path) -> None:
    """In RAM, or in a record that has replaced the one that was looked at."""
    with MemoryManager(
        1, 1, 1, True, storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        hierarchy = manager._services.hierarchy
        manager.store("k", OLD, "glacier")
        record = hierarchy.catalog.record("k")
        assert record is not None
        manager.store("k", NEW, "cold")
        assert hierarchy.is_in_archive(record)
        manager.store("ram", OLD, "hot")
        assert hierarchy.forget_archived("ram")
        assert not hierarchy.forget_archived("absent")
        assert np.array_equal(NEW, manager.retrieve("k"))


CHANGES: dict[str, Callable[[MemoryManager], object]] = {
    "store": lambda m: m.store("k", NEW, "glacier"),
    "delete": lambda m: m.delete("k"),
    "terms": lambda m: m.set_terms("k", metadata={"changed": 1}),
}


@pytest.mark.parametrize("way", CHANGES)
def test_a_change_that_the_archive_does_not_finish_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The journal has it. The next opening repeats it in the archive, for other machines too."""

    def fail(*_: object) -> None:
        raise StorageError("the disk of the archive fails")

    def state(manager: MemoryManager) -> object:
        if "k" not in manager:
            return None
        return manager.retrieve("k").tolist(), manager.info("k").metadata

    options: dict[str, Any] = {
        "glacier_url": tmp_path / "bucket", "migration": False, "prefetch": "off",
    }  # fmt: skip
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "own", **options) as own:
        own.store("k", OLD, "glacier")
        own.flush()
        before = state(own)
        with monkeypatch.context() as patch:
            patch.setattr(BucketBackend, "commit", fail)
            CHANGES[way](own)
        done = state(own)
        assert before != done
    for machine in ("own", "fresh"):
        with MemoryManager(1, 1, 1, True, storage_path=tmp_path / machine, **options) as manager:
            assert done == state(manager)
            assert [] == manager.check()


def test_what_another_machine_changed_is_changed_here(tmp_path: Path) -> None:
    """It took over the archive; its removals count here, and so do its terms."""
    options: dict[str, Any] = {
        "glacier_url": tmp_path / "bucket", "migration": False, "prefetch": "off",
    }  # fmt: skip
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "own", **options) as own:
        own.store_many({"removed": OLD, "changed": OLD, "stays": OLD}, "glacier")
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "other", **options) as other:
        other.delete("removed")
        other.set_terms("changed", metadata={"by": "other"})
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "own", **options) as own:
        assert ["changed", "stays"] == list(own)
        assert {"by": "other"} == own.info("changed").metadata
        assert [] == own.check()


@pytest.mark.parametrize("value", [OLD, NEW], ids=["small", "large"])
def test_a_reader_checks_what_its_writer_has_staged(tmp_path: Path, value: np.ndarray) -> None:
    """A value that has not reached the bucket, or reached it since the reader looked, is there."""
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path) as manager:
        manager.store("before", value, "glacier")
        with MemoryManager(1, 1, 1, True, storage_path=tmp_path, read_only=True) as reader:
            manager.store("staged", value, "glacier")
            until(lambda: "staged" in reader)  # A reader is a tenth of a second behind.
            assert [] == reader.check()
            manager.flush()
            assert [] == reader.check()


@pytest.mark.parametrize("step", ["prepare", "commit"])
@pytest.mark.parametrize("value", [OLD, NEW], ids=["small", "large"])
def test_purging_waits_for_a_store_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, value: np.ndarray
) -> None:
    """The key is gone from the journal as well: not there at first, and lost one night later."""
    url = tmp_path / "bucket"
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=url) as manager:
        join = _meanwhile(monkeypatch, step, lambda: manager.clear(purge=True))
        manager.store("k", value, "glacier")
        join()
        assert [] == manager.check()
        assert {} == dict(manager)
        manager.store("k", value, "glacier")
        manager.flush()
        assert [] == manager.check()
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "fresh", glacier_url=url) as fresh:
        assert np.array_equal(value, fresh.retrieve("k"))
