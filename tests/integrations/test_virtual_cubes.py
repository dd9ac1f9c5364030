"""Cubes that lie in other files: kerchunk's references and icechunk, read through the tiers."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")
xr = pytest.importorskip("xarray", reason="xarray is not installed")

from memories import MemoryManager  # noqa: E402
from memories.zarr import CachedStore  # noqa: E402

VALUES = np.random.default_rng(3).normal(280, 10, (6, 40, 50)).astype("f4")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager("1 MB", "64 MB", "64 MB", storage_path=tmp_path / "store") as one:
        yield one


def cube() -> Any:
    """Return a small cube with coordinates and units."""
    return xr.Dataset(
        {"t2m": (("time", "y", "x"), VALUES, {"units": "K"})}, coords={"time": np.arange(6)}
    )


def references(folder: Path) -> dict[str, Any]:
    """Return what kerchunk says of a NetCDF file: where each chunk lies in it."""
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    hdf = pytest.importorskip("kerchunk.hdf", reason="kerchunk is not installed")
    path = folder / "cube.nc"
    encoding = {"t2m": {"chunksizes": (2, 20, 25), "zlib": True}}
    cube().to_netcdf(path, engine="h5netcdf", encoding=encoding)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, Any] = hdf.SingleHdf5ToZarr(str(path), inline_threshold=0).translate()
    return found


def test_the_file_behind_references_is_read_through_blocks(
    tmp_path: Path, manager: MemoryManager
) -> None:
    """Chunks of many small reads lie in few blocks, which a second look does not ask for."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    pytest.importorskip("kerchunk", reason="kerchunk is not installed")
    import memories.fsspec  # noqa: F401

    found = references(tmp_path)
    local = fsspec.filesystem("memories", target_protocol="file", manager=manager, block_size=65536)
    behind = fsspec.filesystem(
        "reference", fo=found, fs={"file": local, None: local}, asynchronous=False
    )
    names = [name for name in found["refs"] if name.startswith("t2m/") and name[-1].isdigit()]
    assert 3 * 2 * 2 == len(names)
    plain = fsspec.filesystem("reference", fo=found, remote_protocol="file")
    expected = {name: plain.cat_file(name) for name in names}
    assert expected == {name: behind.cat_file(name) for name in names}
    kept = {key for key in manager if manager.info(key).size}
    (tmp_path / "cube.nc").rename(tmp_path / "away.nc")
    assert kept
    assert expected == {name: behind.cat_file(name) for name in names}


def test_references_are_read_through_a_cached_store(tmp_path: Path, manager: MemoryManager) -> None:
    """As zarr sees them: equal to the file, and the second time without it."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    found = references(tmp_path)
    behind = fsspec.filesystem(
        "reference", fo=found, remote_protocol="file", remote_options={"asynchronous": True},
        asynchronous=True,
    )  # fmt: skip
    source = zarr.storage.FsspecStore(behind, read_only=True, path="")
    store = CachedStore(source, manager, prefix="references", max_age=None)
    for away in (False, True):
        if away:
            (tmp_path / "cube.nc").rename(tmp_path / "away.nc")
        with xr.open_zarr(store, consolidated=False, zarr_format=2) as dataset:
            assert np.array_equal(VALUES, dataset["t2m"].values)
            assert "K" == dataset["t2m"].attrs["units"]


def test_icechunk_is_read_through_a_cached_store(tmp_path: Path, manager: MemoryManager) -> None:
    """A snapshot of a repository: equal, and its chunks are asked for once."""
    icechunk = pytest.importorskip("icechunk", reason="icechunk is not installed")
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(tmp_path / "ice"))
    )
    session = repository.writable_session("main")
    cube().to_zarr(session.store, consolidated=False, encoding={"t2m": {"chunks": (2, 20, 25)}})
    session.commit("a cube")
    source = repository.readonly_session("main").store
    store = CachedStore(source, manager, prefix="ice", max_age=None)
    for _ in range(2):
        with xr.open_zarr(store, consolidated=False) as dataset:
            assert np.array_equal(VALUES, dataset["t2m"].values)
    reads = store.reads()["t2m"]
    assert 3 * 2 * 2 <= reads.requests <= 3 * 2 * 2 + 1  # The chunks, and the description.
    assert asyncio.run(store.exists("t2m/zarr.json"))


def test_a_commit_of_icechunk_is_seen_by_the_next_session(
    tmp_path: Path, manager: MemoryManager
) -> None:
    """Each snapshot is another source: what was kept of the last one is not served for it."""
    icechunk = pytest.importorskip("icechunk", reason="icechunk is not installed")
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(tmp_path / "ice"))
    )
    for number in range(2):
        session = repository.writable_session("main")
        (cube() + number).to_zarr(session.store, consolidated=False, mode="w")
        snapshot = session.commit(f"number {number}")
        source = repository.readonly_session(snapshot_id=snapshot).store
        store = CachedStore(source, manager, prefix=f"ice/{snapshot}", max_age=None)
        with xr.open_zarr(store, consolidated=False) as dataset:
            assert np.array_equal(VALUES + number, dataset["t2m"].values)
