"""One value through all four tiers and back, and what happens when a tier is too small."""

import logging

import numpy as np

from memories import MemoryManager

logging.getLogger("memories").setLevel(logging.ERROR)  # No bucket is given; a directory stands in.
data = {"image": np.arange(1_000_000).reshape(1000, 1000), "bands": ("red", "nir"), "cloudy": None}

with MemoryManager(glacier_memory_enabled=True) as manager:
    for tier in ("hot", "warm", "cold", "glacier"):
        manager.store(tier, data, tier=tier)
        print(f"stored {tier}: it is in {manager.get_tier(tier)}")

    for key in ("cold", "glacier"):
        while manager.promote(key) != "hot":
            pass
    print("promoted:", {key: manager.get_tier(key) for key in manager})

    print("demoted:", manager.demote("hot"))
    manager.migrate("hot", "glacier")
    assert np.array_equal(manager.retrieve("hot")["image"], data["image"])
    print("still the same after a journey to", manager.get_tier("hot"))

with MemoryManager("10MB", "20MB", 1) as manager:
    for number in range(8):
        manager.store(f"array-{number}", np.full(1_000_000, float(number)), tier="hot")
    print("under pressure:", {key: manager.get_tier(key) for key in manager})
    assert all(manager.retrieve(f"array-{number}")[0] == number for number in range(8))
