"""Options with a few values accept those, and no other text."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, assert_type

import numpy as np

from memories import (
    DistributedMemoryManager,
    MemoryManager,
    MigrationSettings,
    Rule,
    StoreTier,
    TierChoice,
    TierName,
    register_policy,
)
from memories.policies.lru import LruPolicy

mine = register_policy("mine", LruPolicy, replace=True)
manager = MemoryManager(
    "1 MB",
    1e-3,
    cold_memory_size="10 MB",
    eviction_policy={"hot": "s3fifo", "warm": mine},
    compression={"cold": "zstd:5", "glacier": "high"},
    durability="full",
    on_full="evict",
    prefetch="stride",
    migration=MigrationSettings(interval_seconds=1),
    rules=[Rule(prefix="archive/", tier="cold", min_tier="warm", quota={"warm": "1 MB"})],
)


def keep(key: str, tier: StoreTier = "auto") -> None:
    """Pass a tier on."""
    manager.store(key, [key], tier)


def move(key: str, tier: TierChoice) -> None:
    """Pass a tier on."""
    manager.migrate(key, tier)


keep("a", "warm")
keep("b", TierName.COLD)
move("a", "cold")
assert_type(manager.get_tier("a"), Literal["hot", "warm", "cold", "glacier"])
move("b", manager.get_tier("a"))
manager.store("c", np.arange(10), tier="hot", min_tier="hot", max_tier=TierName.WARM)
manager.store("c", np.arange(10), manager.promote("b"))
assert_type(manager.retrieve("c", like="numpy"), Any)
assert_type(manager.retrieve("c", like=np), Any)
assert_type(manager.modify("c", lambda value: len(value)), int)
with TemporaryDirectory() as folder:
    manager.create_snapshot(Path(folder) / "all", tiers=["cold", TierName.WARM])
    manager.restore_snapshot(Path(folder) / "all", mode="merge", verify="lazy", wait=True)

if TYPE_CHECKING:
    manager.store("a", 1, "luke")  # wrong
    manager.store("a", 1, min_tier="auto")  # wrong
    manager.migrate("a", "auto")  # wrong
    manager.store_many({"a": 1}, "disk")  # wrong
    manager.create_snapshot("all", tiers=["ram"])  # wrong
    manager.restore_snapshot("all", mode="add")  # wrong
    manager.retrieve("c", like="tensorflow")  # wrong
    manager.retrieve("c", copy="yes")  # wrong
    MemoryManager(on_full="drop")  # wrong
    MemoryManager(prefetch="on")  # wrong
    MemoryManager(durability="fast")  # wrong
    MemoryManager(eviction_policy="mru")  # wrong
    MemoryManager(eviction_policy={"cold": "lru"})  # wrong
    MemoryManager(compression={"cold": "zstd:12"})  # wrong
    MemoryManager(compression={"hot": "lz4"})  # wrong
    MemoryManager(hot_size=3)  # wrong
    MemoryManager(migration=True)  # wrong
    Rule(prefix="a", tier="ram")  # wrong
    Rule(prefix="a", quota={"cold": 1})  # wrong
    DistributedMemoryManager(1, 1, nodes=["a:1"], on_full="evict", storage_path="/tmp/x")
    DistributedMemoryManager(nodes=["a:1"], on_full="drop")  # wrong
    DistributedMemoryManager(nodes=["a:1"], replicas=3)  # wrong

manager.cleanup()
