"""Stores of zarr, version 3, over the tiers."""

from __future__ import annotations

from memories.foundation.optional_imports import require

require("zarr.abc.store", extra="zarr")

from memories.integrations.zarr.cached import CachedStore  # noqa: E402
from memories.integrations.zarr.decoded import cache_decoded  # noqa: E402
from memories.integrations.zarr.reads import ArrayReads  # noqa: E402
from memories.integrations.zarr.store import MemoriesStore  # noqa: E402

__all__ = ["ArrayReads", "CachedStore", "MemoriesStore", "cache_decoded"]
