"""Snapshots of a whole manager: what was there at one moment is there again, elsewhere too."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import until

from memories import (
    CorruptDataError,
    InvalidOptionError,
    MemoryManager,
    StorageError,
    TierFullError,
    codecs,
)
from memories.backends.disk import background_import, import_file
from memories.engine.payload import Payload
from memories.frames.writer import pack
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.snapshot import Item, create, open_snapshot
from memories.snapshot.capture import newest

SHARED_MEMORY = Path("/dev/shm")
ARRAY = np.arange(300_000.0).reshape(300, 1000)
VALUES: dict[str, tuple[Any, str]] = {
    "hot/array": (ARRAY, "hot"),
    "hot/text": ("a text", "hot"),
    "warm/tree": ({"weights": [ARRAY[:2], None], "step": 7}, "warm"),
    "warm/empty": (np.empty((0, 3), ">i2"), "warm"),
    "cold/array": (np.asfortranarray(ARRAY[:50]), "cold"),
    "cold/number": (2**70, "cold"),
    "glacier/array": (ARRAY[5:9].astype("f4"), "glacier"),
    "a.npy": (b"\x93NUMPY no array", "warm"),
    "../żółw 🐢": ((1, "two"), "cold"),
}


def make(path: Path, **options: Any) -> MemoryManager:
    """Open a manager without background moves, so that values lie where they were put."""
    options = {"glacier_memory_enabled": True, "migration": False, "prefetch": "off", **options}
    return MemoryManager(0.5, 0.5, 5, storage_path=path, **options)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with make(tmp_path / "store", glacier_url=tmp_path / "archive") as manager:
        yield manager


def fill(manager: MemoryManager) -> None:
    """Store one value of each kind in each tier."""
    for key, (value, tier) in VALUES.items():
        manager.store(key, value, tier=tier, metadata={"from": tier})


def assert_equal(expected: Any, actual: Any) -> None:
    """Compare values of any type, arrays bit for bit."""
    assert type(expected) is type(actual)
    if isinstance(expected, np.ndarray):
        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape)
        np.testing.assert_array_equal(expected, actual)
    elif isinstance(expected, dict):
        assert list(expected) == list(actual)
        for key in expected:
            assert_equal(expected[key], actual[key])
    elif isinstance(expected, list | tuple):
        for left, right in zip(expected, actual, strict=True):
            assert_equal(left, right)
    else:
        assert expected == actual


def assert_all_there(manager: MemoryManager) -> None:
    """Every value of `VALUES` and nothing else."""
    assert sorted(VALUES) == sorted(manager)
    for key, (value, _) in VALUES.items():
        assert_equal(value, manager[key])


def tiers_of(manager: MemoryManager) -> dict[str, str]:
    return {key: str(manager.get_tier(key)) for key in manager}


def test_everything_comes_back_where_it_was(manager: MemoryManager, tmp_path: Path) -> None:
    """The whole promise: every key of every tier, its value, its tier, its terms."""
    fill(manager)
    before = tiers_of(manager)
    manager.create_snapshot(tmp_path / "s")
    manager.clear()
    with pytest.raises(KeyError):
        manager["hot/array"]
    manager.restore_snapshot(tmp_path / "s", wait=True)
    assert before == tiers_of(manager)
    assert_all_there(manager)
    cold = {key for key, (_, tier) in VALUES.items() if tier == "cold"}
    assert cold == set(manager.find(**{"from": "cold"}))


def test_it_opens_on_another_machine(manager: MemoryManager, tmp_path: Path) -> None:
    """Another storage path, no glacier, no room in RAM: all values are there, as far up as fits."""
    fill(manager)
    manager.create_snapshot(tmp_path / "s")
    small = MemoryManager(
        "1MB", "3MB", 1, storage_path=tmp_path / "other", migration=False, prefetch="off"
    )
    with small as other:
        other.restore_snapshot(tmp_path / "s", wait=True)
        assert_all_there(other)
    with small.__class__(storage_path=tmp_path / "other") as reopened:
        assert_all_there(reopened)


@pytest.mark.parametrize("verify", ["full", "lazy"])
def test_the_file_may_go_right_after_the_restore(
    manager: MemoryManager, tmp_path: Path, verify: Any
) -> None:
    """The store keeps the bytes, whatever happens to the name."""
    fill(manager)
    manager.create_snapshot(tmp_path / "s")
    with make(tmp_path / "other", glacier_memory_enabled=False) as other:
        other.restore_snapshot(tmp_path / "s", verify=verify)
        manager.create_snapshot(tmp_path / "s", prefix="hot")
        (tmp_path / "s").unlink()
        assert_all_there(other)
    with make(tmp_path / "other", glacier_memory_enabled=False) as other:
        assert_all_there(other)


@pytest.mark.parametrize("verify", ["full", "lazy"])
def test_a_file_on_another_file_system_is_copied(
    manager: MemoryManager, tmp_path: Path, verify: Any
) -> None:
    """No link leads across file systems; the file may go all the same."""
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    fill(manager)
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as far:
        manager.create_snapshot(Path(far, "s"))
        manager.clear()
        manager.restore_snapshot(Path(far, "s"), verify=verify)
    assert_all_there(manager)


@pytest.mark.parametrize(
    ("verify", "linked", "knows"),
    [("full", True, True), ("full", False, False), ("lazy", True, False)],
)
def test_no_read_verifies_again_what_the_restore_has_verified_in_place(
    manager: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    verify: Any, linked: bool, knows: bool,
) -> None:  # fmt: skip
    """The bytes of a copy are other ones, and a lazy restore has verified none."""
    noise = np.random.default_rng(1).bytes(1 << 20)
    manager.store("large", noise, tier="cold")
    manager.create_snapshot(tmp_path / "s")
    if not linked:
        monkeypatch.setattr(background_import, "share", lambda *_: False)
    with make(tmp_path / "other") as other:
        other.restore_snapshot(tmp_path / "s", verify=verify, wait=True)
        hierarchy = other._hierarchy
        record = hierarchy.catalog.record("large")
        assert record is not None
        assert hierarchy.verified.knows(record) is knows
        assert other.retrieve("large") == noise


def test_restoring_again_gives_the_same(manager: MemoryManager, tmp_path: Path) -> None:
    """A restore does not depend on what was there, itself included."""
    fill(manager)
    manager.create_snapshot(tmp_path / "s")
    for n in range(3):
        manager.store("hot/array", n)
        manager.store(f"new{n}", n, tier="cold")
        manager.delete("cold/array")
        manager.restore_snapshot(tmp_path / "s", wait=True)
        assert_all_there(manager)
    manager.create_snapshot(tmp_path / "again")
    manager.restore_snapshot(tmp_path / "again", wait=True)
    assert_all_there(manager)


def test_merge_overwrites_and_keeps_what_else_is_there(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """Two of three ways to meet keys that exist."""
    for key, value in (("both", "old"), ("saved", 1)):
        manager.store(key, value, tier="warm")
    manager.create_snapshot(tmp_path / "s")
    manager.delete("saved")
    manager.store("both", "new", tier="cold")
    manager.store("mine", 2)
    manager.restore_snapshot(tmp_path / "s", mode="keep")
    assert {"both": "new", "saved": 1, "mine": 2} == dict(manager)
    manager.restore_snapshot(tmp_path / "s", mode="merge")
    assert {"both": "old", "saved": 1, "mine": 2} == dict(manager)
    manager.restore_snapshot(tmp_path / "s")
    assert {"both": "old", "saved": 1} == dict(manager)


def test_what_was_replaced_does_not_come_back(manager: MemoryManager, tmp_path: Path) -> None:
    """Neither after the restore nor after a reopen may an older copy surface."""
    manager.store("k", "saved", tier="cold")
    manager.create_snapshot(tmp_path / "s")
    manager.store("k", "later", tier="warm")
    manager.store("gone", "later", tier="cold")
    manager.restore_snapshot(tmp_path / "s")
    manager.delete("k")
    assert {} == dict(manager)
    manager.cleanup()
    with make(tmp_path / "store") as reopened:
        assert {} == dict(reopened)


def test_only_what_was_asked_for_is_saved(manager: MemoryManager, tmp_path: Path) -> None:
    """`tiers=` and `prefix=` narrow a snapshot."""
    fill(manager)
    manager.create_snapshot(tmp_path / "s", tiers=["cold", "warm"])
    keys = {row.key for row in open_snapshot(tmp_path / "s").rows()}
    assert {key for key, (_, tier) in VALUES.items() if tier in ("cold", "warm")} == keys
    manager.create_snapshot(tmp_path / "s", prefix="hot/")
    assert {"hot/array", "hot/text"} == {row.key for row in open_snapshot(tmp_path / "s").rows()}
    manager.create_snapshot(tmp_path / "s", include_glacier=False)
    assert "glacier/array" not in {row.key for row in open_snapshot(tmp_path / "s").rows()}


def test_numpy_reads_the_arrays_of_a_manager(manager: MemoryManager, tmp_path: Path) -> None:
    """Data are never locked in; `portable` gives those that are compressed at rest too."""
    fill(manager)
    manager.store("matrix_1", ARRAY)
    manager.create_snapshot(tmp_path / "s")
    with np.load(tmp_path / "s") as loaded:
        np.testing.assert_array_equal(ARRAY, loaded["matrix_1"])
        assert "cold/array" not in loaded.files
    manager.create_snapshot(tmp_path / "s", portable=True)
    with np.load(tmp_path / "s") as loaded:
        np.testing.assert_array_equal(ARRAY[:50], loaded["cold/array"])
        np.testing.assert_array_equal(ARRAY[5:9], loaded["glacier/array"])
    manager.restore_snapshot(tmp_path / "s")
    manager.delete("matrix_1")
    assert_all_there(manager)


def test_expired_values_are_not_saved(manager: MemoryManager, tmp_path: Path) -> None:
    """A value that had become unreadable must not come back with a restore."""
    manager.store("soon", 1, ttl=0.05)
    manager.store("late", 2, ttl=100)
    time.sleep(0.06)
    manager.create_snapshot(tmp_path / "s")
    assert ["late"] == [row.key for row in open_snapshot(tmp_path / "s").rows()]


@pytest.mark.parametrize("verify", ["full", "lazy"])
@pytest.mark.parametrize("mode", ["replace", "merge", "keep"])
def test_a_bad_file_changes_nothing(
    manager: MemoryManager, tmp_path: Path, mode: Any, verify: Any
) -> None:
    """Truncated or with a damaged manifest, it is refused before the first change."""
    fill(manager)
    manager.create_snapshot(tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    manifest = data.index(b"memsnap\n")
    bads = [data[:-1], data[:5_000], b"", data[: manifest + 80] + b"!" + data[manifest + 81 :]]
    if verify == "full":
        bads.append(data[:3_000] + b"!" + data[3_001:])
    for bad in bads:
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(CorruptDataError, match="bad"):
            manager.restore_snapshot(tmp_path / "bad", mode=mode, verify=verify)
        assert_all_there(manager)


def test_lazy_restore_meets_damage_at_the_value_that_has_it(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """One bad block must not take the other values with it, and never be handed out."""
    manager.store("a", ARRAY)
    manager.store("b", ARRAY + 1)
    manager.create_snapshot(tmp_path / "s")
    row = next(row for row in open_snapshot(tmp_path / "s").rows() if row.key == "b")
    data = bytearray((tmp_path / "s").read_bytes())
    data[row.where.offset + row.where.length // 2] ^= 1
    (tmp_path / "s").write_bytes(data)
    manager.restore_snapshot(tmp_path / "s", verify="lazy", wait=True)
    np.testing.assert_array_equal(ARRAY, manager["a"])
    with pytest.raises(CorruptDataError, match="'b'"):
        manager["b"]
    manager.store("b", 1)
    assert 1 == manager["b"]


def test_a_damaged_value_is_not_saved_as_a_sound_one(tmp_path: Path) -> None:
    """The snapshot's own checksums would vouch for it."""
    with make(tmp_path / "store", compression={"cold": "none"}) as manager:
        manager.store("k", ARRAY, tier="cold")
        manager.flush()
        (file,) = (tmp_path / "store" / "cold" / "values").iterdir()
        data = bytearray(file.read_bytes())
        data[-5_000] ^= 1
        file.write_bytes(data)
        with pytest.raises(CorruptDataError, match="'k'"):
            manager.create_snapshot(tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_what_fits_nowhere_is_refused_before_anything_changes(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """A restore that gives up half-way would be worse than none."""
    manager.store("big", np.random.default_rng(0).bytes(9_000_000))
    manager.create_snapshot(tmp_path / "s")
    tiny = MemoryManager(
        "2MB", "2MB", "4MB", storage_path=tmp_path / "tiny", migration=False, prefetch="off"
    )
    with tiny as other:
        other.store("mine", 1)
        with pytest.raises(TierFullError, match="nothing was changed"):
            other.restore_snapshot(tmp_path / "s")
        assert {"mine": 1} == dict(other)


def test_a_cold_tier_too_small_for_the_file_takes_value_by_value(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """What does not fit on disk may fit in RAM."""
    manager.store("a", np.random.default_rng(0).bytes(5_000_000), tier="warm")
    manager.store("b", np.random.default_rng(1).bytes(3_000_000), tier="cold")
    manager.create_snapshot(tmp_path / "s")
    expected = dict(manager)
    with MemoryManager("1MB", "7MB", "5MB", migration=False, prefetch="off") as other:
        other.store("mine", 1)
        other.restore_snapshot(tmp_path / "s", wait=True)
        assert expected == dict(other)


@pytest.mark.parametrize("options", [{"mode": "upsert"}, {"verify": "no"}])
def test_options_that_mean_nothing_are_refused(
    manager: MemoryManager, tmp_path: Path, options: Any
) -> None:
    """And name what would have been meant."""
    manager.create_snapshot(tmp_path / "s")
    with pytest.raises(InvalidOptionError):
        manager.restore_snapshot(tmp_path / "s", **options)
    for bad in ({"tiers": ["lukewarm"]}, {"include_glacier": "no"}, {"base": tmp_path / "s"}):
        with pytest.raises(InvalidOptionError):
            manager.create_snapshot(tmp_path / "s", **bad)


def test_progress_reaches_its_total(manager: MemoryManager, tmp_path: Path) -> None:
    """Long work must be seen to come to its end."""
    for n in range(20):
        manager.store(f"k{n}", ARRAY + n)
    calls: list[tuple[int, int]] = []
    manager.create_snapshot(tmp_path / "s", progress=lambda *call: calls.append(call))
    manager.restore_snapshot(tmp_path / "s", progress=lambda *call: calls.append(call))
    assert calls == sorted(calls, key=lambda call: call[0]) or len(calls) > 20
    done, total = calls[-1]
    assert done == total == (tmp_path / "s").stat().st_size


def test_a_file_replaced_while_it_is_verified_is_not_adopted(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """What was verified and what is taken in must be one file."""
    manager.store("k", 1)
    manager.create_snapshot(tmp_path / "s")
    manager.create_snapshot(tmp_path / "other", prefix="nothing")

    def swap(done: int, total: int) -> None:
        (tmp_path / "other").replace(tmp_path / "s") if (tmp_path / "other").exists() else None

    with pytest.raises(StorageError, match="replaced"):
        manager.restore_snapshot(tmp_path / "s", progress=swap)
    assert {"k": 1} == dict(manager)


class CountedLock:
    """A lock that counts the calls its holder makes, into Python and into C."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self._lock.release()

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        self.calls += event in ("call", "c_call")


def test_taking_an_instant_blocks_writers_for_the_same_work_however_many_keys(
    manager: MemoryManager,
) -> None:
    """A millisecond for 10,000 keys is promised: what waits for the lock waits for one copy of a
    list and of a table, made in C, and for no step that is taken key by key.
    """
    catalog, calls = manager._hierarchy.catalog, []
    for count in (10, 1_000):
        for n in range(count):
            manager.store(f"k{n}", n, tier="warm")
            manager.store(f"c{n}", n, tier="cold")
        held, catalog.lock = catalog.lock, CountedLock()
        with catalog.instant() as instant:
            calls.append(catalog.lock.calls)
        catalog.lock = held
        assert count == len(instant.entries)
    few, many = calls
    assert 0 < few < 60
    assert few == many


# Elsewhere

READ_BACK = """
import sys
import numpy as np
from memories import MemoryManager
with MemoryManager(0.1, 0.1, 1) as manager:
    manager.restore_snapshot(sys.argv[1], wait=True)
    print(sorted(manager), manager["hot/array"].sum(), manager["warm/tree"]["step"])
"""


def other_pythons() -> list[Path]:
    """Return the interpreters of other versions on this machine that could run the package."""
    names = [f"python3.{minor}" for minor in range(11, 20) if minor != sys.version_info.minor]
    on_path = [Path(found) for name in names if (found := shutil.which(name))]
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    built = [path for name in names for path in homes.glob(f"*/bin/{name}")]
    return on_path + built


def runs_the_package(python: Path) -> bool:
    """Return whether this interpreter has what the package needs."""
    program = "import numpy, msgspec, xxhash, memories"
    tried = subprocess.run([python, "-c", program], capture_output=True, check=False, timeout=60)
    return tried.returncode == 0


def read_back(python: str | Path, path: Path) -> str:
    done = subprocess.run(
        [python, "-c", READ_BACK, str(path)], capture_output=True, text=True, timeout=120
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_a_fresh_interpreter_restores_it(manager: MemoryManager, tmp_path: Path) -> None:
    """Nothing that this process knows is needed."""
    fill(manager)
    manager.create_snapshot(tmp_path / "s")
    expected = f"{sorted(VALUES)} {ARRAY.sum()} 7\n"
    assert expected == read_back(sys.executable, tmp_path / "s")


def test_another_version_of_python_restores_it(manager: MemoryManager, tmp_path: Path) -> None:
    """A snapshot outlives the interpreter that wrote it."""
    fill(manager)
    manager.create_snapshot(tmp_path / "s")
    python = next(filter(runs_the_package, other_pythons()), None)
    if python is None:
        pytest.skip("no other Python here has the packages that this one needs")
    assert f"{sorted(VALUES)} {ARRAY.sum()} 7\n" == read_back(python, tmp_path / "s")


# Incremental snapshots


def test_an_incremental_snapshot_holds_only_what_changed(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """Monday's full one, then a small one each day; each restores by itself with its chain."""
    fill(manager)
    manager.create_snapshot(tmp_path / "monday")
    manager.store("hot/text", "tuesday")
    manager.delete("cold/number")
    manager.create_snapshot(tmp_path / "tuesday", base=tmp_path / "monday")
    tuesday = {key: manager[key] for key in manager}
    manager.store("new", ARRAY * 2)
    manager.create_snapshot(tmp_path / "wednesday", base=tmp_path / "tuesday")
    assert (tmp_path / "tuesday").stat().st_size < 5_000
    assert (tmp_path / "wednesday").stat().st_size < ARRAY.nbytes + 5_000
    manager.clear()
    manager.restore_snapshot(tmp_path / "wednesday", wait=True)
    assert_equal(ARRAY * 2, manager["new"])
    manager.delete("new")
    assert_equal(tuesday, {key: manager[key] for key in manager})
    manager.restore_snapshot(tmp_path / "tuesday", wait=True)
    assert_equal(tuesday, {key: manager[key] for key in manager})


def test_a_missing_link_of_a_chain_is_named(manager: MemoryManager, tmp_path: Path) -> None:
    """And nothing is changed; the file may be given by hand from wherever it went."""
    manager.store("k", ARRAY)
    manager.create_snapshot(tmp_path / "base")
    manager.create_snapshot(tmp_path / "s", base=tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "moved")
    manager.store("k", 2)
    with pytest.raises(StorageError, match="'base'"):
        manager.restore_snapshot(tmp_path / "s")
    assert 2 == manager["k"]
    manager.restore_snapshot(tmp_path / "s", bases=[tmp_path / "moved"])
    np.testing.assert_array_equal(ARRAY, manager["k"])
    manager.create_snapshot(tmp_path / "base")
    with pytest.raises(StorageError, match="another snapshot"):
        manager.restore_snapshot(tmp_path / "s")


def test_a_link_that_leads_to_no_value_is_refused(
    manager: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged increment must not make us read what is no frame."""
    from memories.snapshot import incremental_chain
    from memories.snapshot.manifest import Linked

    manager.store("k", ARRAY)
    manager.create_snapshot(tmp_path / "base")
    with monkeypatch.context() as patch:
        patch.setattr("memories.snapshot.api.link_to", lambda row: Linked(0, 128, 4096))
        manager.create_snapshot(tmp_path / "s", base=tmp_path / "base")
    with pytest.raises(CorruptDataError, match="does not contain"):
        incremental_chain.IncrementalChain(tmp_path / "s")


def test_numbers_given_twice_do_not_look_unchanged(tmp_path: Path) -> None:
    """After a crash a version number of a volatile value is given again, to another value."""
    for value in ("first", "second"):
        with make(tmp_path / value) as manager:
            manager.store("k", value * 5_000)
            base = tmp_path / "base" if value == "second" else None
            manager.create_snapshot(tmp_path / ("s" if base else "base"), base=base)
    with make(tmp_path / "third") as manager:
        manager.restore_snapshot(tmp_path / "s")
        assert "second" * 5_000 == manager["k"]


# References into glacier


def test_referenced_objects_are_kept_and_checked(manager: MemoryManager, tmp_path: Path) -> None:
    """A snapshot by reference is small, and protects what it refers to."""
    manager.store("k", ARRAY, tier="glacier")
    manager.create_snapshot(tmp_path / "s", include_glacier="reference")
    assert (tmp_path / "s").stat().st_size < 2_000
    manager.clear(purge=True)
    manager._hierarchy.tiers["glacier"].backend.reclaim(grace_seconds=0)
    manager.restore_snapshot(tmp_path / "s")
    assert "glacier" == manager.get_tier("k")
    np.testing.assert_array_equal(ARRAY, manager["k"])


def test_a_reference_to_what_is_gone_changes_nothing(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """Checked by the restore before it changes anything."""
    manager.store("k", ARRAY, tier="glacier")
    manager.create_snapshot(tmp_path / "s", include_glacier="reference")
    with make(tmp_path / "other", glacier_url=tmp_path / "elsewhere") as other:
        other.store("mine", 1)
        with pytest.raises(CorruptDataError):
            other.restore_snapshot(tmp_path / "s")
        assert {"mine": 1} == dict(other)
    none = make(tmp_path / "none", glacier_memory_enabled=False)
    with none, pytest.raises(InvalidOptionError, match="glacier"):
        none.restore_snapshot(tmp_path / "s")


def test_an_object_that_was_lost_in_the_bucket_is_noticed_before_anything_changes(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """What the map of this machine believes is not enough: the object itself must be there."""
    manager.store("k", ARRAY, tier="glacier")
    manager.create_snapshot(tmp_path / "s", include_glacier="reference")
    manager.store("mine", 1)
    for path in next((tmp_path / "archive").rglob("objects")).iterdir():
        path.unlink()
    with pytest.raises(CorruptDataError, match="no longer contains"):
        manager.restore_snapshot(tmp_path / "s")
    assert ["k", "mine"] == sorted(manager)


def test_what_a_lost_snapshot_keeps_can_be_let_go(manager: MemoryManager, tmp_path: Path) -> None:
    """Else its objects would be paid for until the end of time."""
    manager.store("k", ARRAY, tier="glacier")
    manager.create_snapshot(tmp_path / "s", include_glacier="reference")
    with open_snapshot(tmp_path / "s") as found:
        identity = found.root.id.hex()
    assert {identity: 1} == manager.snapshots_in_archive()
    (tmp_path / "s").unlink()
    (kept,) = next((tmp_path / "archive").rglob("objects")).iterdir()
    manager.clear(purge=True)
    bucket = manager._hierarchy.tiers[TierName.GLACIER].backend
    bucket.reclaim(grace_seconds=0)
    assert kept.exists()
    with pytest.raises(InvalidOptionError, match=identity):
        manager.release_snapshot("another")
    assert 1 == manager.release_snapshot(identity)
    assert {} == manager.snapshots_in_archive()
    with pytest.raises(InvalidOptionError, match="no snapshot refers to it"):
        manager.release_snapshot(identity)
    bucket.reclaim(grace_seconds=0)
    assert not kept.exists()


# One instant


def test_the_newest_of_two_versions_counts(manager: MemoryManager) -> None:
    """While a key moves or is overwritten it has an entry and a record for a moment."""
    catalog = manager._hierarchy.catalog
    for key in "abc":
        manager.store(key, "old", tier="warm")
    entries = dict(catalog.entries)
    for key in "bc":
        manager.store(key, "new", tier="cold")
    manager.migrate("c", "warm")
    with catalog.instant() as instant:
        racing = instant._replace(entries=[entries["b"], catalog.entries["c"], entries["a"]])
        batches = newest(racing, "")
        found = [(one.key, one.tier, one.version) for batch in batches for one in batch]
    versions = {key: catalog.lookup(key).version for key in "abc"}
    assert [("a", "warm", versions["a"]), ("b", "cold", versions["b"]),
            ("c", "warm", versions["c"])] == found  # fmt: skip


def hammer(manager: MemoryManager, stop: threading.Event, tiers: tuple[str, str]) -> None:
    """Store a pair of values over and over, the second after the first."""
    n = 0
    while not stop.is_set():
        n += 1
        manager.store("first", n, tier=tiers[0])
        manager.store("second", n, tier=tiers[1])
        manager.store(f"noise{n % 50}", bytes(n % 9_000), tier=tiers[n % 2])
        if n % 7 == 0:
            manager.delete(f"noise{n % 50}")
        if n % 5 == 0:
            manager.migrate("first", "cold")


@pytest.mark.parametrize("tiers", [("warm", "warm"), ("warm", "cold"), ("cold", "hot")])
def test_a_snapshot_is_one_instant(
    manager: MemoryManager, tmp_path: Path, tiers: tuple[str, str]
) -> None:
    """Writers go on; a pair is seen as it was at some moment, never newer in its second half."""
    manager.store_many({f"ballast{n}": ARRAY + n for n in range(4)})
    manager.store("first", 0, tier=tiers[0])
    manager.store("second", 0, tier=tiers[1])
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            hammer(manager, stop, tiers)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for n in range(12):
            manager.create_snapshot(tmp_path / f"s{n}")
            before = manager["second"]
            until(lambda before=before: manager["second"] > before or errors)  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
    assert [] == errors
    seen = []
    for n in range(12):
        manager.restore_snapshot(tmp_path / f"s{n}", verify="lazy")
        first, second = manager["first"], manager["second"]
        assert second in (first, first - 1)
        seen.append(second)
    assert seen == sorted(set(seen))


def test_writers_and_readers_go_on_during_a_restore(manager: MemoryManager, tmp_path: Path) -> None:
    """A key stored while a restore runs has its new value or the restored one, and stays usable."""
    keys = [f"k{n:03}" for n in range(200)]
    manager.store_many(dict.fromkeys(keys, "saved"), tier="warm")
    manager.create_snapshot(tmp_path / "s")
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                for key in keys:
                    manager.store(key, "new", tier="warm")
                    assert manager.get(key, "saved") in ("new", "saved")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            manager.restore_snapshot(tmp_path / "s", mode="merge")
    finally:
        stop.set()
        thread.join()
    assert [] == errors
    manager.restore_snapshot(tmp_path / "s", wait=True)
    assert dict.fromkeys(keys, "saved") == dict(manager)
    for key in keys:
        manager.delete(key)
    assert {} == dict(manager)


# What comes home


def test_a_large_value_comes_home_as_the_mapping_that_it_is(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """Copying gigabytes would cost what adopting the file has saved; no process can write to it."""
    manager.store("large", ARRAY, tier="warm")
    manager.store("small", ARRAY[:2], tier="warm")
    manager.create_snapshot(tmp_path / "s")
    manager.restore_snapshot(tmp_path / "s", wait=True)
    assert {"large": "warm", "small": "warm"} == tiers_of(manager)
    entries = manager._hierarchy.catalog.entries
    kinds = {
        key: type(next(iter(Payload.of_entry(entry).owners()))) for key, entry in entries.items()
    }
    assert mmap.mmap is kinds["large"]
    assert mmap.mmap is not kinds["small"]
    view = manager["large"]
    with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
        view.flags.writeable = True
    manager.delete("large")
    assert_equal(ARRAY, view)


def test_a_mapped_value_that_left_is_let_go_of_alone(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """One value that is still read must not keep the charge of all others of its file."""
    for n in range(3):
        manager.store(f"k{n}", ARRAY + n, tier="warm")
    manager.create_snapshot(tmp_path / "s")
    manager.restore_snapshot(tmp_path / "s", wait=True)
    view = manager["k0"]
    before = manager._hierarchy.tiers[TierName.WARM].budget.used
    for n in range(3):
        manager.delete(f"k{n}")
    gc.collect()
    left = manager._hierarchy.tiers[TierName.WARM].budget.used
    assert before - left >= 2 * ARRAY.nbytes
    assert left >= ARRAY.nbytes
    del view
    gc.collect()
    assert manager._hierarchy.tiers[TierName.WARM].budget.used < ARRAY.nbytes


def test_a_copy_of_a_verified_file_is_verified_again(
    manager: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read and written anew may have been damaged on its way."""
    manager.store("k", ARRAY, tier="warm")
    manager.create_snapshot(tmp_path / "s")
    data = bytearray((tmp_path / "s").read_bytes())
    data[data.index(ARRAY[5:8].tobytes())] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    monkeypatch.setattr(import_file, "_reflink", lambda *_: False)
    monkeypatch.setattr(import_file, "_link", lambda *_: False)
    whole, damaged = import_file._copy, (tmp_path / "damaged").open("rb")
    monkeypatch.setattr(import_file, "_copy", lambda given, *rest: whole(damaged.fileno(), *rest))
    with damaged:
        manager.restore_snapshot(tmp_path / "s", wait=True)
    with pytest.raises(CorruptDataError, match="'k'"):
        manager["k"]


def test_a_value_that_unpacks_to_more_than_was_declared_takes_no_memory(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """A bomb: a few kilobytes of a frame, said to be ten bytes, that would fill the RAM."""
    parts = codecs.encode(np.zeros(80_000_000, "u1"))
    frame = pack(parts, key="bomb", version=1, compression="zstd:5")
    assert frame.nbytes < 2_000_000
    record = Record(
        key="bomb", version=1, tier=TierName.WARM, size=10, stored_at=1.0, kind="ndarray"
    )
    create(tmp_path / "s", [Item(record, frame.segments)], sequence=1)
    with MemoryManager("1MB", "40MB", 1, migration=False, prefetch="off") as small:
        tracemalloc.start()
        try:
            small.restore_snapshot(tmp_path / "s", wait=True)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
        assert "cold" == small.get_tier("bomb")


def test_a_lazy_restore_that_waits_verifies_what_it_brings_home(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """Only what a full verification has read may skip its checksums."""
    manager.store("k", ARRAY, tier="warm")
    manager.create_snapshot(tmp_path / "s")
    data = bytearray((tmp_path / "s").read_bytes())
    at = data.index(ARRAY[5:8].tobytes())
    data[at] ^= 1
    (tmp_path / "s").write_bytes(data)
    manager.restore_snapshot(tmp_path / "s", verify="lazy", wait=True)
    with pytest.raises(CorruptDataError, match="'k'"):
        manager["k"]
