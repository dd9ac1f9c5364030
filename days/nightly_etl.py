"""A nightly job over data frames: extracted, joined, archived; restored elsewhere in the morning.

The disk of the job has room for about half of its frames, and each request to the bucket takes
30 ms longer. The twin writes parquet files; when the disk is full it uploads the oldest of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tests.support.buckets import seaweed
from tests.support.buckets.proxy import Fault, in_front_of

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, run
from memories import MemoryManager

REQUEST_SECONDS = 0.03
STORES = 500


@dataclass(frozen=True)
class Plan:
    """How many frames, of how many rows (40 bytes each), and the bytes of the disk."""

    frames: int
    rows: int
    disk: int


PLANS = {
    Scale.SMALL: Plan(12, 8_000, 2_000_000),
    Scale.FULL: Plan(20, 700_000, 150_000_000),
}


@dataclass(frozen=True)
class Bucket:
    """Where the archive of one program is."""

    endpoint: str
    prefix: str

    @property
    def url(self) -> str:
        """Return its address."""
        return f"s3://{seaweed.BUCKET}/{self.prefix}"

    @property
    def options(self) -> dict[str, Any]:
        """Return what `storage_options` needs."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "skip_signature": True,
            "allow_http": True,
        }

    def client(self) -> Any:
        """Return a client of boto3."""
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        config = Config(signature_version=UNSIGNED)
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config
        )


def extract(number: int, rows: int) -> pd.DataFrame:
    """Return the orders of one source."""
    chance = np.random.default_rng(number)
    return pd.DataFrame(
        {
            "order": np.arange(rows) + number * rows,
            "store": chance.integers(0, STORES, rows),
            "amount": np.round(chance.gamma(2.0, 30.0, rows), 2),
            "placed": pd.Timestamp("2026-01-01")
            + pd.to_timedelta(np.sort(chance.integers(0, 86_400, rows)), "s"),
            "channel": pd.Categorical.from_codes(
                chance.integers(0, 3, rows), ["shop", "web", "phone"]
            ),
        }
    )


def stores() -> pd.DataFrame:
    """Return the table that orders are joined with."""
    numbers = np.arange(STORES)
    return pd.DataFrame({"store": numbers, "region": numbers % 17, "rate": 1 + numbers / 1000})


def join(orders: pd.DataFrame) -> pd.DataFrame:
    """Return the orders with their regions, and their amounts in one currency."""
    joined = orders[["order", "store", "amount"]].merge(stores(), on="store")
    joined["amount"] *= joined.pop("rate")
    return joined


def digest(frame: pd.DataFrame) -> tuple[int, int]:
    """Return the number of rows, and a sum over the hashes of all rows."""
    return len(frame), int(pd.util.hash_pandas_object(frame, index=False).sum())


def memories_night(folder: Path, disk: Path, bucket: Bucket, plan: Plan) -> int:
    """Keep the frames in cold, where a full disk makes room in glacier by itself."""
    with MemoryManager(
        "100MB", "100MB", 1, True,
        storage_path=disk / "store", glacier_url=bucket.url, storage_options=bucket.options,
    ) as manager:  # fmt: skip
        for number in range(plan.frames):
            orders = extract(number, plan.rows)
            manager.store(f"orders/{number:03}", orders, tier="cold")
            manager.store(f"joined/{number:03}", join(orders), tier="cold")
        for key in list(manager):
            manager.migrate(key, "glacier")
        return len(manager)


def memories_morning(folder: Path, bucket: Bucket) -> dict[str, tuple[int, int]]:
    """Open the archive from another machine."""
    with MemoryManager(
        "1GB", "1GB", 10, True,
        read_only=True, glacier_url=bucket.url, storage_options=bucket.options,
    ) as manager:  # fmt: skip
        return {key: digest(manager.retrieve(key)) for key in manager}


def parquet_night(folder: Path, disk: Path, bucket: Bucket, plan: Plan) -> int:
    """Keep the frames as files; upload the oldest where the disk is full, and the rest at last."""
    client = bucket.client()
    waiting: list[str] = []

    def upload(key: str) -> None:
        client.upload_file(disk / key, seaweed.BUCKET, f"{bucket.prefix}/{key}")
        (disk / key).unlink()

    def save(key: str, frame: pd.DataFrame) -> None:
        (disk / key).parent.mkdir(exist_ok=True)
        while True:
            try:
                frame.to_parquet(disk / key)
                break
            except OSError as error:
                if error.errno != errno.ENOSPC or not waiting:
                    raise
                (disk / key).unlink(missing_ok=True)
                upload(waiting.pop(0))
        waiting.append(key)

    for number in range(plan.frames):
        orders = extract(number, plan.rows)
        save(f"orders/{number:03}", orders)
        save(f"joined/{number:03}", join(orders))
    for key in waiting:
        upload(key)
    return 2 * plan.frames


def parquet_morning(folder: Path, bucket: Bucket) -> dict[str, tuple[int, int]]:
    """Download the files, and read them."""
    client = bucket.client()
    found = {}
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=seaweed.BUCKET, Prefix=f"{bucket.prefix}/"
    )
    for page in pages:
        for item in page.get("Contents", ()):
            key = item["Key"].removeprefix(f"{bucket.prefix}/")
            path = folder / key.replace("/", "-")
            client.download_file(seaweed.BUCKET, item["Key"], str(path))
            found[key] = digest(pd.read_parquet(path))
            path.unlink()
    return found


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...]]] = {
    "memories": (memories_night, memories_morning, ("obstore",)),
    "parquet and boto3": (parquet_night, parquet_morning, ("pyarrow", "boto3")),
}


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes; where that is not allowed, yield a plain folder."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def archived(bucket: Bucket) -> tuple[int, int]:
    """Return how many objects the bucket holds, and their bytes."""
    import obstore

    store = obstore.store.from_url(bucket.url, config={}, **_obstore_options(bucket))
    sizes = [item["size"] for page in obstore.list(store) for item in page]
    return len(sizes), sum(sizes)


def _obstore_options(bucket: Bucket) -> dict[str, Any]:
    options = bucket.options
    return {
        "endpoint": options["endpoint"],
        "region": options["region"],
        "skip_signature": True,
        "client_options": {"allow_http": True},
    }


def judge(scale: Scale, folder: Path) -> Judgement:
    """Run the night and the morning of each; every frame must come back as it was."""
    plan = PLANS[scale]
    runs: dict[str, Run] = {}
    facts: dict[str, float] = {}
    absent: dict[str, str] = {}
    expected = {}
    for number in range(plan.frames):
        orders = extract(number, plan.rows)
        expected[f"orders/{number:03}"] = digest(orders)
        expected[f"joined/{number:03}"] = digest(join(orders))
    with seaweed.running() as server, in_front_of(server.port) as proxy:
        proxy.fault = lambda request: Fault(delay_seconds=REQUEST_SECONDS)
        for name, (night, morning, needs) in PROGRAMS.items():
            if why := missing(*needs):
                absent[name] = why
                continue
            bucket = Bucket(proxy.endpoint, name.split()[0])
            before = len(proxy.requests)
            with small_disk(folder / name / "disk", plan.disk) as disk:
                runs[name] = run(night, folder / name / "night", disk, bucket, plan, name=name)
            by_night = len(proxy.requests)
            later = run(morning, folder / name / "morning", bucket, name=f"{name}, morning")
            runs[later.program] = later
            assert expected == later.answer, name
            facts[f"requests of {name}"] = by_night - before
            facts[f"in the morning by {name}"] = len(proxy.requests) - by_night
            objects, size = archived(Bucket(server.endpoint, bucket.prefix))
            facts[f"objects of {name}"] = objects
            facts[f"MB in the bucket of {name}"] = round(size / 1e6, 1)
            shutil.rmtree(folder / name)
    frames = len(expected)
    bars = [
        Bar(
            "requests of the night for each frame", facts["requests of memories"] / frames, 4.0,
            counted=True,
        ),
        Bar(
            "requests of the morning for each frame",
            facts["in the morning by memories"] / frames, 2.0,
            counted=True,
        ),
    ]  # fmt: skip
    twin = "parquet and boto3"
    if twin in runs:
        bars += [
            Bar("the night beside parquet and boto3",
                runs["memories"].seconds / runs[twin].seconds, 1.0),
            Bar("the morning beside it",
                runs["memories, morning"].seconds / runs[f"{twin}, morning"].seconds, 1.0),
            Bar("bytes in the bucket beside it",
                facts["MB in the bucket of memories"] / facts[f"MB in the bucket of {twin}"], 1.1),
        ]  # fmt: skip
    title = (
        f"A nightly job: {plan.frames} frames of {40 * plan.rows / 1e6:.3g} MB and their joins, a "
        f"disk of {plan.disk / 1e6:.3g} MB, 30 ms a request"
    )
    return Judgement(title, runs, bars, facts, absent)
