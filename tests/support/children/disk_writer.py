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
from memories.sealing.master_key import EncryptionKey

LARGE = 40_000


def content(version: int, size: int) -> bytes:
    return version.to_bytes(4, "little") * (size // 4)


def record_for(key: str, version: int) -> Record:
    return Record(key=key, version=version, tier=TierName.COLD, size=1, stored_at=1.0)


def write_batch(backend: DiskBackend, chance: random.Random, version: int) -> int:
    """Store many values at once, and return the version of the last one."""
    keys = chance.sample([f"k{number}" for number in range(30)], chance.randrange(1, 30))
    said, items = [], []
    for number, key in enumerate(keys, start=version):
        size = chance.choice([4, 400, 400, 4000, 20_000])
        said.append(f"{key} {number} {size}\n")
        items.append((record_for(key, number), [memoryview(content(number, size))]))
    os.write(1, "".join([f"? {line}" for line in said]).encode())
    backend.write_many(items)
    os.write(1, "".join([f"! {line}" for line in said]).encode())
    return version + len(keys)


def remove_batch(backend: DiskBackend, chance: random.Random, version: int) -> int:
    """Remove many keys at once, and return the version of the last one."""
    keys = chance.sample([f"k{number}" for number in range(30)], chance.randrange(1, 30))
    items = list(zip(keys, range(version, version + len(keys)), strict=True))
    said = [f"{key} {number} -1\n" for key, number in items]
    os.write(1, "".join([f"? {line}" for line in said]).encode())
    backend.remove_many(items)
    os.write(1, "".join([f"! {line}" for line in said]).encode())
    return version + len(keys)


def main(path: str, seed: int) -> None:
    size_limits.SEGMENT_BYTES, size_limits.LARGE_BYTES = 200_000, LARGE
    size_limits.SLACK_BYTES, compaction.RECENT_ROWS = 50_000, 50
    maintenance.SYNC_SECONDS, maintenance.UPKEEP_SECONDS, maintenance.QUIET_SECONDS = (
        0.02,
        0.01,
        0.05,
    )
    chance = random.Random(seed)
    encryption = EncryptionKey.parse(os.environ.get("STORE_KEY"))
    durability = chance.choice(["relaxed", "full"])
    backend = DiskBackend(path, durability=durability, encryption=encryption)
    version = backend.last_version()
    while True:
        version += 1
        if chance.random() < 0.2:
            version = write_batch(backend, chance, version)
            continue
        if chance.random() < 0.05:
            version = remove_batch(backend, chance, version)
            continue
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
