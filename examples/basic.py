"""Store an array in the fastest tier, get it back, and see how full the tiers are."""

import numpy as np

from memories import MemoryManager

manager = MemoryManager(
    hot_memory_size=8,  # GB
    warm_memory_size=32,
    cold_memory_size=500,
    glacier_memory_enabled=True,
)

data = np.random.rand(1000, 1000)
manager.store("matrix", data, tier="hot")

retrieved = manager.retrieve("matrix")
print("shape:", retrieved.shape)
print("equal:", np.array_equal(retrieved, data))

for tier, percent in manager.get_memory_usage().items():
    print(f"{tier}: {percent:.2f} % used")

manager.cleanup()
