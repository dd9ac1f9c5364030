"""PyTorch: datasets whose items are kept in the tiers, and modules that leave the device.

Nothing here imports torch before it is needed.
"""

from memories.integrations.torch.datasets import CachedDataset, cached
from memories.integrations.torch.parking import park, restore

__all__ = ["CachedDataset", "cached", "park", "restore"]
