"""The process that `test_disk_kill.py` kills: it does random things and says what it was promised.

Run as `python disk_writer.py PATH SEED`; each line on its output is written after the call
it names has returned.
"""

from __future__ import annotations

import os
import random
import sys

from memories.backends.disk import DiskBackend, compaction, maintenance, size_limits
from memories.model.record import Record
from memories.model.tiers import TierName

LARGE = 40_000


def content(version: int, size: int) -> bytes:
    return version.to_bytes(4, "little") * (size // 4)


def record_for(key: str, version: int) -> Record:
    return Record(key=key, version=version, tier=TierName.COLD, size=1, stored_at=1.0)


def main(path: str, seed: int) -> None:
    size_limits.SEGMENT_BYTES, size_limits.LARGE_BYTES = 200_000, LARGE
    size_limits.SLACK_BYTES, compaction.RECENT_ROWS = 50_000, 50
    maintenance.SYNC_SECONDS, maintenance.UPKEEP_SECONDS, maintenance.QUIET_SECONDS = (
        0.02,
        0.01,
        0.05,
    )
    chance = random.Random(seed)
    backend = DiskBackend(path, durability=chance.choice(["relaxed", "full"]))
    version = backend.last_version()
    while True:
        version += 1
        key = f"k{chance.randrange(30)}"
        if chance.random() < 0.25:
            os.write(1, f"? {key} {version} -1\n".encode())
            backend.remove(key, version)
            os.write(1, f"! {key} {version} -1\n".encode())
            continue
        size = chance.choice([4, 400, 4000, 4000, 20_000, LARGE, 3 * LARGE])
        os.write(1, f"? {key} {version} {size}\n".encode())
        backend.write(record_for(key, version), [memoryview(content(version, size))])
        os.write(1, f"! {key} {version} {size}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
