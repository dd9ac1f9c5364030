"""The process that `test_manager_kill.py` kills: a manager that stores, moves and forgets values.

Run as `python manager_writer.py PATH SEED VERSION`; each line on its output is written before
("?") or after ("!") the call it names. A size of -1 is a removal; "volatile" values may be lost.
"""

from __future__ import annotations

import os
import random
import sys

import numpy as np

from memories import MemoryManager
from memories.backends.disk import compaction, maintenance, size_limits

TIERS = ("hot", "warm", "cold", "glacier")


def content(number: int, size: int) -> np.ndarray:
    return np.full(size, number, "u4")


def main(path: str, seed: int, number: int) -> None:
    size_limits.SEGMENT_BYTES, size_limits.LARGE_BYTES, size_limits.SLACK_BYTES = (
        200_000,
        40_000,
        50_000,
    )
    compaction.RECENT_ROWS = 50
    maintenance.SYNC_SECONDS, maintenance.UPKEEP_SECONDS, maintenance.QUIET_SECONDS = (
        0.02,
        0.01,
        0.05,
    )
    chance = random.Random(seed)
    manager = MemoryManager("300 kB", "300 kB", "3 MB", True, storage_path=path)
    while True:
        number += 1
        key = f"k{chance.randrange(30)}"
        if chance.random() < 0.25:
            for tier in chance.sample(TIERS, 2):
                if key in manager:
                    manager.migrate(key, tier)
            continue
        if chance.random() < 0.2:
            number = store_batch(manager, chance, number)
            continue
        tier = chance.choice(TIERS)
        size = -1 if chance.random() < 0.2 else chance.choice([1, 100, 1000, 5000, 20_000])
        durable = size < 0 or tier in ("cold", "glacier")
        words = f"{key} {number} {size} {'durable' if durable else 'volatile'}\n"
        os.write(1, b"? " + words.encode())
        if size < 0:
            manager.pop(key, None)
        else:
            manager.store(key, content(number, size), tier)
        os.write(1, b"! " + words.encode())


def store_batch(manager: MemoryManager, chance: random.Random, number: int) -> int:
    """Store several values in cold together, and return the number of the last one."""
    keys = chance.sample([f"k{index}" for index in range(30)], 8)
    sizes = {key: chance.choice([1, 100, 1000, 5000]) for key in keys}
    numbers = dict(zip(keys, range(number, number + 8), strict=True))
    lines = [f"{key} {numbers[key]} {sizes[key]} durable\n" for key in keys]
    os.write(1, "".join([f"? {line}" for line in lines]).encode())
    manager.store_many({key: content(numbers[key], sizes[key]) for key in keys}, "cold")
    os.write(1, "".join([f"! {line}" for line in lines]).encode())
    return number + 7


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
