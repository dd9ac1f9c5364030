"""The archive against obstore alone, boto3 and s3fs, on one real S3 server, in one run.

Run `python benchmarks/glacier.py [--rounds N] [--large MB] [--region MB]` from the repository's
root. The server, `weed mini`, runs on this very machine, so its work is in every figure: compare
the ratios only. Bars: 1.18x obstore's time (0.85 of its speed), and less than boto3 and s3fs take.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from _race import machine, race, show
from tests.support.buckets import seaweed

from memories.backends.bucket import BucketBackend
from memories.backends.bucket.throttle import ThrottledStore
from memories.model.record import Record
from memories.model.tiers import TierName

BUCKET = seaweed.BUCKET
THREADS = 16
RANGE = 8 << 20
versions = count(1)

Put = Callable[[str, memoryview], object]
Get = Callable[[str, int], object]


def ours(server: seaweed.SeaweedServer, home: Path) -> tuple[Put, Get, BucketBackend]:
    """The archive of this package."""
    backend = BucketBackend(
        f"s3://{BUCKET}/ours", storage_options=server.storage_options(), directory=home
    )

    def put(key: str, data: memoryview) -> object:
        return backend.write(record(key, len(data)), [data[:4096], data[4096:]])

    def get(key: str, size: int) -> object:
        found = backend.lookup(key)
        assert found is not None
        return backend.read(found)

    return put, get, backend


def obstore_alone(server: seaweed.SeaweedServer) -> tuple[Put, Get]:
    """obstore used at its best: one request up, parallel ranges into one touched buffer down."""
    from obstore.store import from_url

    options = {"endpoint": server.endpoint, "region": "us-east-1", "skip_signature": True}
    store = from_url(
        f"s3://{BUCKET}/obstore",
        config=options,  # type: ignore[arg-type]
        client_options={"allow_http": True, "timeout": "300s"},
    )
    pool = ThreadPoolExecutor(THREADS)

    def put(key: str, data: memoryview) -> object:
        return store.put(key, data, use_multipart=False)

    def get(key: str, size: int) -> object:
        if size <= RANGE:
            return store.get(key).bytes()
        buffer = memoryview(np.zeros(size, np.uint8))  # type: ignore[arg-type]

        def part(start: int) -> None:
            end = min(size, start + RANGE)
            buffer[start:end] = memoryview(store.get_range(key, start=start, end=end))

        list(pool.map(part, range(0, size, RANGE)))
        return buffer

    return put, get


def boto3_alone(server: seaweed.SeaweedServer) -> tuple[Put, Get]:
    """boto3 with its transfer manager."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
    client = boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1", config=config
    )

    def put(key: str, data: memoryview) -> object:
        return client.upload_fileobj(io.BytesIO(data), BUCKET, f"boto3/{key}")

    def get(key: str, size: int) -> object:
        target = io.BytesIO()
        client.download_fileobj(BUCKET, f"boto3/{key}", target)
        return target.getbuffer()

    return put, get


def s3fs_alone(server: seaweed.SeaweedServer) -> tuple[Put, Get]:
    """s3fs through fsspec's own calls for whole objects."""
    import s3fs

    system = s3fs.S3FileSystem(anon=True, client_kwargs={"endpoint_url": server.endpoint})

    def put(key: str, data: memoryview) -> object:
        return system.pipe_file(f"{BUCKET}/s3fs/{key}", bytes(data))

    def get(key: str, size: int) -> object:
        return system.cat_file(f"{BUCKET}/s3fs/{key}")

    return put, get


def record(key: str, size: int) -> Record:
    """Return the record of a new version of `key`."""
    return Record(
        key=key, version=next(versions), tier=TierName.GLACIER, size=size, stored_at=time.time()
    )


def many(action: Callable[[str], object], keys: list[str]) -> None:
    """Do something for all keys, in as many threads as every candidate gets."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(action, keys))


def transfers(clients: dict[str, tuple[Put, Get]], rounds: int, large: int) -> None:
    """Show the time of one large value and of 200 values of 1 MB, up and down."""
    data = memoryview(os.urandom(large))
    small = memoryview(os.urandom(1_000_000))
    keys = [f"small-{n}" for n in range(200)]
    jobs: dict[str, dict[str, Callable[[], Any]]] = {
        f"put {large // 10**6} MB": {
            name: (lambda put=put: put("large", data)) for name, (put, _) in clients.items()
        },
        f"get {large // 10**6} MB": {
            name: (lambda get=get: get("large", large)) for name, (_, get) in clients.items()
        },
        "put 200 x 1 MB": {
            name: (lambda put=put: many(lambda key: put(key, small), keys))
            for name, (put, _) in clients.items()
        },
        "get 200 x 1 MB": {
            name: (lambda get=get: many(lambda key: get(key, len(small)), keys))
            for name, (_, get) in clients.items()
        },
    }
    for title, candidates in jobs.items():
        seconds = race(candidates, rounds=rounds)
        show(title, seconds, base="obstore", unit=1e3, label="ms")


class Counting(ThrottledStore):
    """Counts the requests that pass."""

    requests = 0

    def put(self, name: str, buffers: Any, sending: Any = None) -> None:
        self.requests += 1
        super().put(name, buffers, sending)

    def get_range(self, name: str, offset: int, length: int) -> Any:
        self.requests += 1
        return super().get_range(name, offset, length)


def packing(server: seaweed.SeaweedServer, home: Path, values: int) -> None:
    """Show what many small values cost in requests, and how fast a fresh machine lists them."""
    from memories.backends.bucket.open_store import open_store

    url, options = f"s3://{BUCKET}/packed", server.storage_options()
    store = Counting(open_store(url, options), THREADS)
    backend = BucketBackend(store, directory=home / "packing")
    data = os.urandom(1000)
    begun = time.perf_counter()
    for n in range(values):
        backend.write(record(f"value-{n:08}", 1000), [memoryview(data)])
    backend.close()
    written = time.perf_counter() - begun
    uploads = store.requests
    begun = time.perf_counter()
    fresh = BucketBackend(Counting(open_store(url, options), THREADS), directory=home / "fresh")
    listed = sum(1 for _ in fresh.records())
    seconds = time.perf_counter() - begun
    fresh.close()
    print(f"\n{values:,} values of 1 KB: {uploads} uploads ({uploads / values:.3%} of the values;")
    print(f"bar: 1 %) in {written:.1f} s; a fresh machine listed {listed:,} of them in")
    print(f"{seconds:.1f} s (bar: 5 s)")


def rasters() -> dict[str, Any]:
    """Return the real rasters of pvlib, which is found without being imported; {} without it."""
    found = importlib.util.find_spec("pvlib")
    if found is None or found.origin is None or not importlib.util.find_spec("h5py"):
        return {}
    import h5py

    data = Path(found.origin).parent / "data"
    with (
        h5py.File(data / "LinkeTurbidities.h5") as turbidity,
        h5py.File(data / "Altitude.h5") as altitude,
    ):
        (linke,), (height,) = turbidity.values(), altitude.values()
        return {"Linke turbidity": linke[700:1000, 1800:3000], "altitude": height[:1080]}


def compression() -> None:
    """Show how small real rasters get, beside zstd-19 on the bytes and Blosc zstd-9 shuffled."""
    from numcodecs import blosc, zstd

    from memories import codecs
    from memories.frames import writer

    print("\n| raster | zstd-19 | Blosc zstd-9 | memories | MB/s | bars: 1.03x, 1.00x |")
    print("|---|---:|---:|---:|---:|---|")
    for name, array in rasters().items():
        data = memoryview(array).cast("B")
        chunks = [data[start : start + (1 << 20)] for start in range(0, data.nbytes, 1 << 20)]
        plain = data.nbytes / len(zstd.Zstd(19).encode(data))
        shuffled = data.nbytes / min(
            sum(len(blosc.compress(c, b"zstd", 9, way, 0, array.itemsize)) for c in chunks)
            for way in (0, 1, 2)
        )
        begun = time.perf_counter()
        ours = writer.pack(codecs.encode(array), key="k", version=1, compression="high")
        speed = data.nbytes / 1e6 / (time.perf_counter() - begun)
        ratio = data.nbytes / ours.nbytes
        met = f"{ratio / plain:.2f}x, {ratio / shuffled:.2f}x"
        print(f"| {name} | {plain:.2f} | {shuffled:.2f} | {ratio:.2f} | {speed:.0f} | {met} |")


def reading(server: seaweed.SeaweedServer, home: Path, megabytes: int) -> None:
    """Show what a slice transfers, and how long 64 values take over a slow line."""
    from tests.support.buckets.proxy import Fault, in_front_of

    from memories import MemoryManager

    rows = megabytes * 10**6 // 16_000
    steps = np.random.default_rng(0).integers(-3, 4, (rows, 8000), dtype=np.int16)
    array = np.cumsum(steps, axis=1, dtype=np.int16)
    with in_front_of(server.port) as proxy, MemoryManager(
        1, 4, 4, True, storage_path=home / "reading", glacier_url=f"s3://{BUCKET}/reading",
        storage_options=server.storage_options(proxy.endpoint), migration=False,
    ) as manager:  # fmt: skip
        manager.store("array", array, "glacier")
        stored = manager.stats().tiers["glacier"].used_bytes
        before, begin = proxy.sent_bytes, rows // 3
        part = manager.retrieve("array", region=np.s_[begin : begin + rows // 100])
        share = (proxy.sent_bytes - before) / stored
        assert np.array_equal(part, array[begin : begin + rows // 100])
        print(f"\n1 % of {megabytes} MB (compressed to {stored / 1e6:.0f} MB): {share:.2%} of its")
        print("bytes were transferred (bar: 3 % of 1 GB)")
        values = {f"k{n}": os.urandom(300_000) for n in range(64)}
        manager.store_many(values, "glacier")
        proxy.fault = lambda request: Fault(delay_seconds=1.0)
        begun = time.perf_counter()
        assert values == manager.retrieve_many(values)
        seconds = time.perf_counter() - begun
        print(f"64 values with 1 s of latency per request: {seconds:.1f} s (bar: 5 s)")
        proxy.fault = lambda request: None


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=256, help="MB of the large value")
    parser.add_argument("--values", type=int, default=100_000)
    parser.add_argument("--region", type=int, default=250, help="MB of the array that is sliced")
    given = parser.parse_args()
    print(machine())
    with seaweed.running() as server, tempfile.TemporaryDirectory() as home:
        put, get, backend = ours(server, Path(home))
        clients = {"obstore": obstore_alone(server), "memories": (put, get)}
        for name, make in (("boto3", boto3_alone), ("s3fs", s3fs_alone)):
            if importlib.util.find_spec(name):
                clients[name] = make(server)
        transfers(clients, given.rounds, given.large * 10**6)
        backend.close()
        reading(server, Path(home), given.region)
        packing(server, Path(home), given.values)
    compression()


if __name__ == "__main__":
    main()
