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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
