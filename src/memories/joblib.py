"""Results of joblib in the tiers: `Memory(backend="memories")` (the extra `joblib`)."""

from memories.integrations.joblib import MemoriesStoreBackend

__all__ = ["MemoriesStoreBackend"]
