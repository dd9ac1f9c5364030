"""Sources that vanish, managers that are closed, tiers that are full: one clear error each."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")
fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from zarr.errors import NodeNotFoundError  # noqa: E402
from zarr.storage import LocalStore  # noqa: E402

from memories import ClosedError, MemoryManager, TierFullError  # noqa: E402
from memories.errors import InvalidOptionError, InvalidOptionTypeError  # noqa: E402
from memories.fsspec import MemoriesFileSystem  # noqa: E402
from memories.integrations.zarr.lost_arrays import LOOKED_EVERY, descriptions  # noqa: E402
from memories.zarr import CachedStore, MemoriesStore, cache_decoded  # noqa: E402

SIZES = ("1 MB", "16 MB", "16 MB")
VALUES = np.arange(64 * 64, dtype="int32").reshape(64, 64) + 1


@pytest.fixture
def source(tmp_path: Path) -> LocalStore:
    """A group with an array whose last chunks are absent, and a file beside it."""
    store = LocalStore(tmp_path / "cube")
    group = zarr.create_group(store)
    array = group.create_array("t2m", shape=(80, 64), dtype="int32", chunks=(16, 16), fill_value=7)
    array[:64] = VALUES
    (tmp_path / "file").write_bytes(b"0123456789" * 100)
    return store


def opened(store: Any) -> Any:
    return zarr.open_group(store, mode="r")["t2m"]


def test_a_source_that_vanishes_is_not_a_cube_of_fill_values(
    source: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unmounted directory has no chunks; zarr alone would read the fill value everywhere."""
    looked_every = "memories.integrations.zarr.lost_arrays.LOOKED_EVERY"
    monkeypatch.setattr(looked_every, 3600.0)
    with MemoryManager(*SIZES) as manager:
        store = CachedStore(source, manager, max_age=0, absent_seconds=0, prefetch=False)
        array = opened(store)
        assert np.array_equal(VALUES, array[:64])
        assert (array[64:] == 7).all()  # Absent, but the array is there.
        checks = store.reads()["t2m"].checks
        monkeypatch.setattr(looked_every, 0.0)
        shutil.move(tmp_path / "cube", tmp_path / "away")
        for part in (slice(0, 16), slice(64, 80)):
            with pytest.raises(NodeNotFoundError, match=r"t2m/zarr\.json' is gone from file"):
                array[part]
            shutil.move(tmp_path / "away", tmp_path / "cube")
            assert np.array_equal(VALUES, opened(store)[:64])
            shutil.move(tmp_path / "cube", tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            opened(store)
    assert 0 < checks <= 24  # Of those that were kept, and one for all that are absent.


def test_an_array_that_was_never_described_here_is_not_asked_for(source: LocalStore) -> None:
    """A store of zarr may be asked for any key; what is absent is absent."""
    with MemoryManager(*SIZES) as manager:
        store = CachedStore(source, manager)
        assert asyncio.run(store.get("other/c/0/0")) is None
        assert store.reads()["other"].checks == 0
    assert LOOKED_EVERY <= 1.0
    assert ["a/b/zarr.json", "a/b/.zarray"] == [*descriptions("a/b")][:2]
    assert [".zarray", ".zmetadata"] == [*descriptions("a/b")][-2:]


def test_a_removed_file_is_a_file_not_found(source: LocalStore, tmp_path: Path) -> None:
    """When its age is over; an open file of it, too."""
    with MemoryManager(*SIZES) as manager:
        fs = MemoriesFileSystem(
            fs=fsspec.filesystem("file"), manager=manager, max_age=0, block_size=100
        )
        path = str(tmp_path / "file")
        assert b"0123" == fs.cat_file(path, 0, 4)
        with fs.open(path) as file:
            Path(path).unlink()
            file.seek(500)
            with pytest.raises(FileNotFoundError):
                file.read(10)
        with pytest.raises(FileNotFoundError):
            fs.cat_file(path, 0, 4)


def _calls(source: LocalStore, manager: MemoryManager, path: str) -> dict[str, Callable[[], Any]]:
    """Return reads and writes of all adapters, which have all read something."""
    cached, mine = CachedStore(source, manager), MemoriesStore(manager, "mine")
    fs = MemoriesFileSystem(fs=fsspec.filesystem("file"), manager=manager)
    plain = MemoriesFileSystem(manager, "files")
    zarr.create_array(mine, name="x", data=VALUES, chunks=(16, 16))
    plain.pipe_file("a", b"1")
    arrays = [opened(cached), cache_decoded(opened(cached)), cache_decoded(opened(source), manager)]
    for array in arrays * 2:
        assert np.array_equal(VALUES, array[:64])
    writable = zarr.open_group(cached)["t2m"]
    file = fs.open(path)
    assert b"0123" == file.read(4)

    def write_cached() -> None:
        writable[:1] = 0

    return {
        "cached": lambda: arrays[0][:],
        "decoded, cached": lambda: arrays[1][:],
        "decoded, local": lambda: arrays[2][:],
        "open": lambda: opened(cached),
        "write cached": write_cached,
        "mine": lambda: zarr.open_array(mine, path="x")[:],
        "write mine": lambda: zarr.create_array(mine, name="y", data=VALUES),
        "file": lambda: fs.cat_file(path),
        "open file": file.read,
        "write file": lambda: fs.pipe_file(path, b"new"),
        "remove file": lambda: fs.rm_file(path),
        "plain file": lambda: plain.cat_file("a"),
        "write plain file": lambda: plain.pipe_file("b", b"1"),
    }


def test_a_manager_that_is_closed_under_an_adapter(source: LocalStore, tmp_path: Path) -> None:
    """A write that could not drop what is kept on the disk would leave it there, to be served."""
    path = tmp_path / "file"
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as manager:
        calls = _calls(source, manager, str(path))
    for name, call in calls.items():
        with pytest.raises(ClosedError, match="make a new MemoryManager"):
            call()
            pytest.fail(f"{name} does not say that the manager is closed")
    assert b"0123456789" * 100 == path.read_bytes()
    assert np.array_equal(VALUES, opened(source)[:64])


def test_full_tiers_refuse_what_has_no_other_copy(source: LocalStore, tmp_path: Path) -> None:
    """`MemoriesStore` and `memories://` hold the only copy; a cache beside them reads on."""
    random = np.random.default_rng(1)
    with MemoryManager("0 B", "100 kB", "400 kB", storage_path=tmp_path / "store") as manager:
        cached = CachedStore(source, manager)
        store, fs = MemoriesStore(manager, "mine", tier="cold"), MemoriesFileSystem(manager, "f")
        large = random.integers(0, 1 << 30, (512, 512), "int32")
        array = zarr.create_array(
            store, name="x", shape=large.shape, dtype="int32", chunks=(64, 64)
        )
        with pytest.raises(TierFullError, match="no room for 'mine/x/c/"):
            array[:] = large
        found = array[:]
        assert np.array_equal(found[found != 0], large[found != 0])  # Each chunk whole, or absent.
        with pytest.raises(TierFullError, match="'f/a' needs"), fs.open("a", "wb") as file:
            file.write(random.bytes(900_000))
        with contextlib.suppress(FileNotFoundError):
            raise AssertionError(f"a part of it was kept: {fs.info('a')}")
        for _ in range(2):
            assert np.array_equal(VALUES, opened(cached)[:64])


@pytest.mark.parametrize("host", [MemoriesStore, MemoriesFileSystem])
def test_arguments_of_a_wrong_type_are_errors_of_ours(host: Callable[..., Any]) -> None:
    """Where they are given, and not when a value is read."""
    options: dict[str, Any] = {"skip_instance_cache": True} if host is MemoriesFileSystem else {}
    for wrong in ("a path", 3, object()):
        with pytest.raises(InvalidOptionTypeError, match="must be a MemoryManager"):
            host(wrong, **options)
    with MemoryManager(*SIZES) as manager:
        for tier in ("hott", 3, None):
            with pytest.raises(InvalidOptionError, match="tier="):
                host(manager, tier=tier, **options)
        host(manager, tier="cold", **options)
        with pytest.raises(InvalidOptionError, match="read_only"):
            MemoriesStore(manager, read_only="no")  # type: ignore[arg-type]
