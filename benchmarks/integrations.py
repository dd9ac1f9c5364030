"""Cubes and files through the tiers, beside what their hosts offer, with the bars.

    python benchmarks/integrations.py [--quick] [--only ROW ...]

Sources are 20 ms away: a store or a file system that sleeps before it answers. Each line has the
medians of turns in a new order. `examples/cube.py` has the same on a real S3 server.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from _race import machine, race
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from memories import MemoryManager
from memories.zarr import CachedStore, MemoriesStore, cache_decoded

AWAY_SECONDS = 0.02
BYTES_A_SECOND = 100e6  # Of a file system that is far away.
MB = 1_000_000


class Bar(NamedTuple):
    """What the first candidate must reach beside another one."""

    beside: str
    times: float  # At most so many times the seconds of the other.


def report(title: str, seconds: Mapping[str, float], bar: Bar | None, notes: str = "") -> bool:
    """Print a table, and return whether the bar is met."""
    first = next(iter(seconds))
    print(f"\n**{title}** {notes}\n\n| candidate | ms | times ours |\n|---|---:|---:|")
    for name, value in seconds.items():
        print(f"| {name} | {value * 1000:,.1f} | {value / seconds[first]:.2f} |")
    if bar is None:
        return True
    met = seconds[first] <= bar.times * seconds[bar.beside]
    print(f"\nbar: at most {bar.times:g} times {bar.beside}: {'met' if met else 'MISSED'}")
    return met


class FarStore(WrapperStore[Any]):
    """A store some time away that counts its requests."""

    requests = 0

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        type(self).requests += 1
        await asyncio.sleep(AWAY_SECONDS)
        return await self._store.get(key, prototype, byte_range)


def cube(size: int) -> np.ndarray[Any, Any]:
    """Return numbers that compress about as heights and temperatures do."""
    random = np.random.default_rng(1)
    return np.cumsum(random.integers(-3, 4, (size, size, size)), axis=2).astype("int16")


def windows(array: Any) -> None:
    """Read windows of 64 x 128 x 100 all over a cube."""
    size = array.shape[0]
    for row in range(0, size - 64, 48):
        for column in range(0, size - 128, 96):
            array[row : row + 64, column : column + 128, 100:200]


def decoded(quick: bool) -> Iterator[bool]:
    """Time a second pass of windows over a compressed cube on the local disk."""
    from memories.integrations.zarr.decoded import DecodedArray, DecodedPipeline

    with tempfile.TemporaryDirectory() as root, MemoryManager("1 MB", "1 GB", "1 GB") as manager:
        data = cube(256 if quick else 384)
        plain = zarr.create_array(LocalStore(root), name="cube", data=data, chunks=(64, 64, 64))
        ours = cache_decoded(plain, manager)
        in_dict = copy.copy(plain.async_array)
        pipeline = DecodedPipeline(plain.async_array.codec_pipeline, DictOfChunks())
        object.__setattr__(in_dict, "codec_pipeline", pipeline)
        seconds = race(
            {
                "cache_decoded": lambda: windows(ours),
                "a dict of decoded chunks": lambda: windows(DecodedArray(in_dict)),
                "zarr": lambda: windows(plain),
            },
            rounds=3 if quick else 9,
        )
        title = "Second pass of windows over a compressed cube, local disk"
        yield report(title, seconds, Bar("zarr", 0.1))
        yield report(f"{title}, beside a dict", seconds, Bar("a dict of decoded chunks", 1.5))


class DictOfChunks:
    """The least that keeps decoded chunks: no budget, no versions, for ever."""

    fetches = False

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, str], Any] = {}

    def version(self, key: str) -> str:
        """Return a version that never changes."""
        return key

    def find(self, key: str, version: str, grain: str) -> Any:
        """Return a chunk."""
        return self._chunks.get((key, grain))

    def keep(self, key: str, version: str, grain: str, chunk: Any) -> None:
        """Keep a chunk."""
        self._chunks[key, grain] = chunk


def store(quick: bool) -> Iterator[bool]:
    """Write and read 1,024 chunks in zarr's own stores, and in the tiers."""
    data = np.random.default_rng(1).integers(0, 1 << 30, (512, 512), "int32")
    with tempfile.TemporaryDirectory() as root, MemoryManager("1 MB", "1 GB", "1 GB") as manager:
        stores = {
            "MemoriesStore in RAM": MemoriesStore(manager, "warm"),
            "MemoriesStore in cold": MemoriesStore(manager, "cold", tier="cold"),
            "zarr's MemoryStore": MemoryStore(),
            "zarr's LocalStore": LocalStore(root),
        }
        arrays = {
            name: zarr.create_array(one, name="cube", data=data, chunks=(16, 16), compressors=None)
            for name, one in stores.items()
        }
        rounds = 3 if quick else 7
        read = {name: (lambda a=array: a[:]) for name, array in arrays.items()}
        yield report("Read 1,024 chunks", race(read, rounds=rounds), Bar("zarr's LocalStore", 1.0))

        def write(array: Any) -> Callable[[], None]:
            def run() -> None:
                array[:] = data

            return run

        written = {name: write(array) for name, array in arrays.items()}
        seconds = race(written, rounds=rounds)
        yield report("Write 1,024 chunks", seconds, Bar("zarr's LocalStore", 1.0))


def cached(quick: bool) -> Iterator[bool]:
    """Pan over a cube 20 ms away, three times: no cache, zarr's experimental one, ours."""
    from zarr.experimental.cache_store import CacheStore

    data = cube(192)
    source = MemoryStore()
    zarr.create_array(source, name="cube", data=data, chunks=(32, 32, 64))
    far = FarStore(source)
    requests: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory() as root,
        MemoryManager("1 MB", "64 MB", "64 MB", storage_path=f"{root}/store") as manager,
    ):

        def pan(name: str, make: Callable[[str], Any]) -> Callable[[], None]:
            def run() -> None:
                path = tempfile.mkdtemp(dir=root)
                before = FarStore.requests
                array = zarr.open_array(make(path), path="cube", mode="r", zarr_format=3)
                for row in (0, 16, 32):
                    for column in range(0, 160, 16):
                        array[row : row + 32, column : column + 32, :64]
                requests[name] = FarStore.requests - before

            return run

        def ours(path: str) -> Any:
            return CachedStore(far, manager, prefix=path)

        seconds = race(
            {
                "CachedStore": pan("CachedStore", ours),
                "zarr's CacheStore": pan(
                    "zarr's CacheStore",
                    lambda path: CacheStore(far, cache_store=LocalStore(path), max_size=64 * MB),
                ),
                "no cache": pan("no cache", lambda path: far),
            },
            rounds=3 if quick else 5,
        )
    asked = ", ".join(f"{name} {count}" for name, count in requests.items())
    yield report(
        "Three pans over a cube 20 ms away, that overlap",
        seconds, Bar("no cache", 0.67), f"(requests: {asked})",
    )  # fmt: skip


def far_files() -> Any:
    """Return a class of file systems: files of the disk some time away, with counted requests."""
    from fsspec.implementations.local import LocalFileSystem

    class FarFiles(LocalFileSystem):
        """Files of the disk some time away."""

        protocol = "far"
        cachable = False
        requests = 0

        def info(self, path: Any, **options: Any) -> Any:
            self._travel()
            return super().info(path, **options)

        def cat_file(self, path: Any, start: Any = None, end: Any = None, **options: Any) -> Any:
            with Path(path).open("rb") as file:
                file.seek(start or 0)
                found = file.read(-1 if end is None else end - file.tell())
            self._travel(len(found))
            return found

        def get_file(self, path: Any, *arguments: Any, **options: Any) -> Any:
            self._travel(Path(path).stat().st_size)
            return super().get_file(path, *arguments, **options)

        def _open(self, path: Any, mode: str = "rb", **options: Any) -> Any:
            from fsspec.spec import AbstractBufferedFile

            class FarFile(AbstractBufferedFile):
                def _fetch_range(self, start: int, end: int) -> Any:
                    return self.fs.cat_file(self.path, start, end)

            options.pop("autocommit", None)
            return FarFile(self, path, mode, **options)

        def _travel(self, size: int = 0) -> None:
            FarFiles.requests += 1
            time.sleep(AWAY_SECONDS + size / BYTES_A_SECOND)

    return FarFiles


def files(quick: bool) -> Iterator[bool]:
    """Read one column of a table three times from 20 ms away: fsspec's caches, and ours."""
    import pandas as pd
    from fsspec.implementations.cached import CachingFileSystem, WholeFileCacheFileSystem

    from memories.fsspec import MemoriesFileSystem

    FarFiles = far_files()
    random = np.random.default_rng(1)
    table = pd.DataFrame({f"c{n}": random.random(200_000) for n in range(20)})
    requests: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as root:
        path = f"{root}/table.parquet"
        table.to_parquet(path, row_group_size=50_000)

        def three(name: str, make: Callable[[str], Any]) -> Callable[[], None]:
            def run() -> None:
                folder = tempfile.mkdtemp(dir=root)
                before = FarFiles.requests
                fs = make(folder)
                for _ in range(3):
                    with fs.open(path) as file:
                        pd.read_parquet(file, columns=["c7"])
                requests[name] = FarFiles.requests - before

            return run

        with MemoryManager("1 kB", "256 MB", "1 GB", storage_path=f"{root}/store") as manager:
            count = iter(range(1000))
            seconds = race(
                {
                    "memories::": three(
                        "memories::",
                        lambda folder: MemoriesFileSystem(
                            fs=FarFiles(), manager=manager, prefix=f"turn{next(count)}"
                        ),
                    ),
                    "filecache::": three(
                        "filecache::",
                        lambda folder: WholeFileCacheFileSystem(
                            fs=FarFiles(), cache_storage=folder, skip_instance_cache=True
                        ),
                    ),
                    "blockcache::": three(
                        "blockcache::",
                        lambda folder: CachingFileSystem(
                            fs=FarFiles(), cache_storage=folder, skip_instance_cache=True
                        ),
                    ),
                    "no cache": three("no cache", lambda folder: FarFiles()),
                },
                rounds=3 if quick else 5,
            )
    asked = ", ".join(f"{name} {count}" for name, count in requests.items())
    yield report(
        "One column of a parquet file of 32 MB, 20 ms away at 100 MB/s, three times",
        seconds, Bar("no cache", 1.0), f"(requests: {asked})",
    )  # fmt: skip


def raster(quick: bool) -> Iterator[bool]:
    """Serve tiles of a COG 20 ms away: blocks in the tiers, or GDAL's cache of as many bytes."""
    import rasterio
    from rasterio.windows import Window

    from memories.fsspec import MemoriesFileSystem

    FarFiles = far_files()
    random = np.random.default_rng(1)
    values = np.cumsum(random.integers(-2, 3, (2, 4096, 4096)), axis=2).astype("int16")
    profile = {
        "driver": "COG", "width": 4096, "height": 4096, "count": 2, "dtype": "int16",
        "blocksize": 256, "compress": "deflate", "overviews": "auto",
        "crs": "EPSG:4326", "transform": rasterio.transform.from_bounds(0, 0, 9, 9, 4096, 4096),
    }  # fmt: skip
    # Each tile has 256 x 256 pixels: of the file itself, or of one of its overviews.
    levels = random.choice([1, 1, 1, 2, 4], 100)
    places = [
        (int(level), *(int(one) for one in random.integers(0, 4096 - 256 * level, 2)))
        for level in levels
    ]
    requests: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as root:
        path = f"{root}/raster.tif"
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)

        def serve(name: str, cache: int, **options: Any) -> Callable[[], None]:
            def run() -> None:
                before = FarFiles.requests
                with rasterio.Env(GDAL_CACHEMAX=cache), rasterio.open(path, **options) as file:
                    for level, row, column in places:
                        size = 256 * level
                        window = Window(column, row, size, size)
                        file.read(window=window, out_shape=(2, 256, 256))
                requests[name] = FarFiles.requests - before

            return run

        class NearlyUnbuffered(FarFiles):  # type: ignore[misc, valid-type]
            """Its readers ask for about what GDAL asks for, and not for 5 MB."""

            def _open(self, path: Any, mode: str = "rb", **options: Any) -> Any:
                return super()._open(path, mode, block_size=64 << 10)

        with MemoryManager("1 kB", "14 MB", "1 GB", storage_path=f"{root}/store") as manager:
            fs = MemoriesFileSystem(fs=FarFiles(), manager=manager, block_size="256 KiB")
            far = "GDAL's cache, 20 ms away"
            # GDAL decodes a block again for each line of an overview, unless it keeps some of them.
            through = serve("opener=memories::, warm", 2 * MB, opener=fs)
            started = time.perf_counter()
            through()
            cold, asked = time.perf_counter() - started, requests["opener=memories::, warm"]
            seconds = race(
                {
                    "opener=memories::, warm": through,
                    far: serve(far, 16 * MB, opener=NearlyUnbuffered()),
                    "GDAL's cache, the local file": serve("GDAL's cache, the local file", 16 * MB),
                },
                rounds=1 if quick else 3,
            )
        sent = ", ".join(f"{name} {count}" for name, count in requests.items())
        size = Path(path).stat().st_size / MB
        yield report(
            f"100 tiles of two bands of a COG of {size:.0f} MB 20 ms away, 16 MB of RAM",
            seconds, Bar(far, 1.0),
            f"(cold, through memories::, {cold * 1000:,.0f} ms and {asked} requests; "
            f"requests when warm: {sent})",
        )  # fmt: skip


ROWS: dict[str, Callable[[bool], Iterator[bool]]] = {
    "store": store,
    "decoded": decoded,
    "cached": cached,
    "files": files,
    "raster": raster,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller data and fewer rounds")
    parser.add_argument("--only", choices=ROWS, action="append", help="may be given repeatedly")
    options = parser.parse_args()
    print(f"{machine()}, zarr {zarr.__version__}, load {os.getloadavg()[0]:.1f}", flush=True)
    met = [line for name in options.only or ROWS for line in ROWS[name](options.quick)]
    print(f"\n{sum(met)} of {len(met)} lines as they should be; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
