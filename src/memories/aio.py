"""Managers with coroutines, for asyncio and trio (the extra `aio`)."""

from memories.integrations.aio import (
    DistributedMemoryManager,
    MemoryManager,
    PrefixView,
    SharedMemoryManager,
)

__all__ = ["DistributedMemoryManager", "MemoryManager", "PrefixView", "SharedMemoryManager"]
