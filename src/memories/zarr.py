"""Cubes in the tiers: stores of zarr, version 3 (the extra `zarr`)."""

from memories.integrations.zarr import ArrayReads, CachedStore, MemoriesStore, cache_decoded

__all__ = ["ArrayReads", "CachedStore", "MemoriesStore", "cache_decoded"]
