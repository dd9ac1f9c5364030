"""The archive against obstore alone, boto3 and s3fs, on one real S3 server, in one run.

Run `python benchmarks/glacier.py [--rounds N] [--large MB]` from the repository's root. The server,
`weed mini`, runs on this very machine, so its work is in every figure: compare the ratios only.
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
from tests.servers import seaweed

from memories.backends.bucket import BucketBackend
from memories.backends.bucket.bounds import BoundedStore
from memories.entry import Record, TierName

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
        found = backend.find(key)
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
    """Do something for all keys, in as many threads as everybody gets."""
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


class Counting(BoundedStore):
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
    from memories.backends.bucket.open import open_store

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
    print(f"\n{values:,} values of 1 KB: {uploads} uploads ({uploads / values:.3%} of the values),")
    print(f"{written:.1f} s; a fresh machine listed {listed:,} of them in {seconds:.1f} s")


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=256, help="MB of the large value")
    parser.add_argument("--values", type=int, default=100_000)
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
        packing(server, Path(home), given.values)


if __name__ == "__main__":
    main()
