"""Datasets over the tiers have the values that xarray reads without them, with few requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray", reason="xarray is not installed")
zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: E402, F401
from tests.support.buckets.proxy import MisbehavingProxy  # noqa: E402
from tests.support.buckets.seaweed import SeaweedServer  # noqa: E402
from zarr.storage import LocalStore, MemoryStore  # noqa: E402

import memories.xarray  # noqa: E402
from memories import InvalidOptionError, MemoryManager  # noqa: E402
from memories.zarr import CachedStore, MemoriesStore  # noqa: E402

SIZES = ("1 MB", "32 MB", "64 MB")
# Of zarr and xarray about their own formats.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as one:
        yield one


@pytest.fixture(scope="module")
def cube() -> Any:
    """A small cube with times, missing values and packed numbers."""
    random = np.random.default_rng(1)
    values = random.normal(280, 10, (24, 60, 80)).astype("float32")
    values[3, 5:9, 7] = np.nan
    return xr.Dataset(
        {
            "t2m": (("time", "y", "x"), values, {"units": "K"}),
            "mask": (("y", "x"), random.integers(0, 2, (60, 80)).astype("int8")),
        },
        coords={
            "time": np.datetime64("2026-01-01", "ns") + np.arange(24) * np.timedelta64(1, "h"),
            "y": np.linspace(60, 40, 60),
            "x": np.linspace(0, 20, 80),
        },
        attrs={"title": "a cube"},
    )


ENCODING = {"t2m": {"chunks": (6, 20, 20), "dtype": "int16", "scale_factor": 0.01,
                    "add_offset": 280.0, "_FillValue": -32768}}  # fmt: skip


def write(cube: Any, store: Any, **options: Any) -> None:
    cube.to_zarr(store, encoding=ENCODING, consolidated=False, **options)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("decoded", [True, False])
def test_a_cube_opens_with_the_values_of_xarray(
    cube: Any, manager: MemoryManager, tmp_path: Path, zarr_format: int, decoded: bool
) -> None:
    """Values, coordinates, attributes and missing values; a second time without the source."""
    write(cube, tmp_path / "cube.zarr", zarr_format=zarr_format)
    expected = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False).load()
    options: dict[str, Any] = {"decoded": decoded, "cache": {"prefetch": False}}
    dataset = memories.xarray.open(tmp_path / "cube.zarr", manager, **options)
    xr.testing.assert_identical(expected, dataset.load())
    requests = dataset.memories.store.reads()["t2m"].requests
    again = memories.xarray.open(tmp_path / "cube.zarr", manager, **options)
    xr.testing.assert_identical(expected.isel(x=slice(5, 25)), again.isel(x=slice(5, 25)).load())
    assert requests == again.memories.store.reads()["t2m"].requests


@pytest.mark.parametrize("kind", ["tiers", "cached"])
def test_open_zarr_and_open_dataset_take_both_stores(
    cube: Any, manager: MemoryManager, tmp_path: Path, kind: str
) -> None:
    """What xarray's own functions do with any store of zarr."""
    store: Any = MemoriesStore(manager, "cube")
    if kind == "cached":
        store = CachedStore(LocalStore(tmp_path / "cube.zarr"), manager)
    write(cube, store)
    expected = xr.open_zarr(store, consolidated=False, chunks=None).load()
    xr.testing.assert_allclose(cube, expected, atol=0.01)
    found = xr.open_dataset(store, engine="zarr", backend_kwargs={"consolidated": False})
    xr.testing.assert_identical(expected, found.load())
    xr.testing.assert_identical(expected, memories.xarray.open(store).load())
    cube.isel(time=[0]).assign_coords(time=cube.time[:1] + np.timedelta64(9, "D"))[["t2m"]].to_zarr(
        store, append_dim="time", consolidated=False
    )
    assert 25 == memories.xarray.open(store).sizes["time"]


def test_the_accessor_says_what_is_kept_and_fetches_ahead(
    cube: Any, manager: MemoryManager, tmp_path: Path
) -> None:
    """`prefetch` reads what it is asked for, and nothing else."""
    write(cube, tmp_path / "cube.zarr")
    dataset = memories.xarray.open(
        tmp_path / "cube.zarr", manager, cache={"prefetch": False, "max_age": None}
    )
    assert {} == dataset.memories.tier()["t2m"]
    size = dataset.memories.prefetch({"time": slice(0, 6)}, x=slice(0, 40))
    assert size > 6 * 60 * 40
    assert 6 == sum(dataset.memories.tier()["t2m"].values())
    requests = dataset.memories.store.reads()["t2m"].requests
    dataset["t2m"].isel(time=slice(0, 6), x=slice(0, 40)).load()
    assert requests == dataset.memories.store.reads()["t2m"].requests
    assert "6 values" in dataset.memories.store.explain("t2m").replace("7 values", "6 values")
    with pytest.raises(InvalidOptionError, match="does not come from"):
        cube.memories.tier()


def test_persist_keeps_a_result_in_the_tiers(cube: Any, manager: MemoryManager) -> None:
    """A lazily computed cube is computed once, chunk by chunk, and can be opened again."""
    pytest.importorskip("dask")
    lazy = cube.chunk({"time": 6, "y": 20}).mean("x")
    kept = lazy.memories.persist("means", manager)
    expected = cube.mean("x")
    xr.testing.assert_allclose(expected, kept.load())
    again = memories.xarray.open(MemoriesStore(manager, "means"))
    xr.testing.assert_allclose(expected, again.load())
    assert {"hot", "warm"} >= again.memories.tier()["t2m"].keys()


def test_wrong_sources_say_so(manager: MemoryManager, tmp_path: Path) -> None:
    """With the error that xarray's user expects."""
    with pytest.raises(FileNotFoundError):
        memories.xarray.open(tmp_path / "nothing", manager)
    with pytest.raises(InvalidOptionError, match="cache= is for a source"):
        memories.xarray.open(MemoriesStore(manager), cache={"max_age": 1})


def test_threads_of_dask_read_through_the_cache(
    cube: Any, manager: MemoryManager, tmp_path: Path
) -> None:
    """The same result as without, each chunk fetched once, and the budgets hold."""
    dask = pytest.importorskip("dask")
    write(cube, tmp_path / "cube.zarr")
    expected = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False)["t2m"].mean("time").load()
    dataset = memories.xarray.open(
        tmp_path / "cube.zarr", manager, chunks={}, cache={"prefetch": False}
    )
    with dask.config.set(scheduler="threads", num_workers=8):
        for _ in range(2):
            found = dataset["t2m"].mean("time").compute()
            assert np.array_equal(expected, found, equal_nan=True)
    assert 4 * 3 * 4 + 1 == dataset.memories.store.reads()["t2m"].requests
    for tier in manager.stats().tiers.values():
        assert tier.used_bytes <= tier.configured_bytes


@pytest.mark.server
def test_processes_of_dask_read_through_the_cache(
    cube: Any,
    manager: MemoryManager,
    s3: SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
) -> None:
    """A cluster of processes computes the same; the second time the bucket is asked for nothing."""
    distributed = pytest.importorskip("distributed")
    options = s3.storage_options(s3_proxy.endpoint)
    write(cube, memories.xarray.store_of(s3_url, options).with_read_only(False))
    expected = cube["t2m"].mean("time")
    dataset = memories.xarray.open(
        s3_url, manager, storage_options=options, chunks={},
        cache={"prefetch": False, "max_age": None, "tier": "cold"},
    )  # fmt: skip
    dataset["t2m"].isel(time=slice(0, 6)).load()  # By this process: on its disk.
    counts = []
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        for _ in range(2):
            before = len(s3_proxy.requests)
            found = client.compute(dataset["t2m"].mean("time")).result(60)
            np.testing.assert_allclose(expected, found, atol=0.01)
            asked = [one.path for one in s3_proxy.requests[before:]]
            counts.append(sum("/t2m/c/" in path for path in asked))
    # 48 chunks, 12 of them kept on the disk; each worker keeps what it fetched itself.
    assert 36 <= counts[0] <= 40
    assert counts[1] <= counts[0]


def test_a_store_in_memory_needs_a_prefix(cube: Any, manager: MemoryManager) -> None:
    """It has no address that would distinguish it from another one."""
    store = MemoryStore()
    write(cube, store)
    with pytest.raises(InvalidOptionError, match="give prefix="):
        memories.xarray.open(store, manager)
    dataset = memories.xarray.open(store, manager, cache={"prefix": "mine"})
    assert dataset.sizes == cube.sizes
    assert asyncio.run(dataset.memories.store.exists("t2m/zarr.json"))
