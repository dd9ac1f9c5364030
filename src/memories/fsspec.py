"""Files in the tiers, for all that opens files by fsspec (the extra `fsspec`)."""

from memories.integrations.fsspec import CachedFileSystem, MemoriesFileSystem, register

__all__ = ["CachedFileSystem", "MemoriesFileSystem", "register"]
