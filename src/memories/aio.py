"""Managers with coroutines, for asyncio and trio (the extra `aio`)."""

from memories.integrations.aio import AsyncDistributedMemoryManager as DistributedMemoryManager
from memories.integrations.aio import AsyncMemoryManager as MemoryManager
from memories.integrations.aio import AsyncPrefixView as PrefixView
from memories.integrations.aio import AsyncSharedMemoryManager as SharedMemoryManager
from memories.integrations.cached_coroutines import cached

__all__ = [
    "DistributedMemoryManager",
    "MemoryManager",
    "PrefixView",
    "SharedMemoryManager",
    "cached",
]
