"""The process that the campaign of kills ends: it archives, removes and reclaims at random.

Run as `python bucket_writer.py URL OPTIONS HOME SEED`, OPTIONS as JSON. A line that begins
with `?` says what is about to be done, one with `!` what has returned.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from memories.backends.bucket import BucketBackend, BucketLimits
from memories.model.record import Record
from memories.model.tiers import TierName

SMALL_BYTES = 3000


def content(version: int, size: int) -> bytes:
    return version.to_bytes(4, "little") * (size // 4)


def main(url: str, options: str, home: str, seed: int) -> None:
    chance = random.Random(seed)
    backend = BucketBackend(
        url, storage_options=json.loads(options), directory=Path(home),
        limits=BucketLimits(
            grace_seconds=0.05, small_bytes=SMALL_BYTES, pack_bytes=20_000, flush_seconds=0.05
        ),
    )  # fmt: skip
    version = backend.last_version()
    while True:
        version += 1
        key, action = f"k{chance.randrange(30)}", chance.random()
        if action < 0.2:
            os.write(1, f"? {key} {version} -1\n".encode())
            backend.remove(key, version)
            os.write(1, f"! {key} {version} -1\n".encode())
        elif action < 0.25:
            backend.reclaim()
        elif action < 0.3:
            backend.sync()
        else:
            size = chance.choice([4, 400, 2000, 2000, SMALL_BYTES + 400, 40_000])
            os.write(1, f"? {key} {version} {size}\n".encode())
            frame = [memoryview(content(version, size))]
            record = Record(
                key=key, version=version, tier=TierName.GLACIER, size=size, stored_at=1.0
            )
            backend.write(record, frame)
            os.write(1, f"! {key} {version} {size}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
