"""Datasets of xarray over the tiers, and their accessor `.memories` (the extra `xarray`)."""

from memories.integrations.xarray import Accessor, open, store_of

__all__ = ["Accessor", "open", "store_of"]
