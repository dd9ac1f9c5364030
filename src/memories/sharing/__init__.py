"""One store for several processes that all write: one of them has it open, the others ask that one.

No server has to be started: the first process becomes the writer, and when it ends, another does.
"""

from memories.sharing.manager import SharedMemoryManager

__all__ = ["SharedMemoryManager"]
