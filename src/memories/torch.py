"""What programs of PyTorch use: cached datasets, and models that take turns on a device."""

from memories.integrations.torch import CachedDataset, cached, park, restore

__all__ = ["CachedDataset", "cached", "park", "restore"]
