"""The import path that the classes of managers had before; `memories` itself gives them out."""

from memories.core.distributed import DistributedMemoryManager
from memories.core.manager import MemoryManager

__all__ = ["DistributedMemoryManager", "MemoryManager"]
