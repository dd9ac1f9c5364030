"""What is read stays hot; what is not sinks to warm by itself."""

import time

import numpy as np

from memories import MemoryManager

manager = MemoryManager()

for number, megabytes in enumerate((100, 200, 300, 400, 500)):
    array = np.full(megabytes * 1_000_000 // 8, float(number))
    manager.store(f"array-{number}", array, tier="hot", copy=False)  # Hand it over: no second copy.

for _ in range(10):
    manager.retrieve("array-0")
    manager.retrieve("array-1")
    time.sleep(0.1)

time.sleep(5)

for number in range(5):
    tier = manager.get_tier(f"array-{number}")
    print(f"array-{number} is {tier}; it begins with {manager.retrieve(f'array-{number}')[0]}")

manager.cleanup()
