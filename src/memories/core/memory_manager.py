"""The import path of both managers in the predecessor; new programs import from `memories`."""

from memories.core.distributed import DistributedMemoryManager
from memories.core.manager import MemoryManager

__all__ = ["DistributedMemoryManager", "MemoryManager"]
