"""Tiered memory for Python data: GPU memory, RAM, disk and object storage behind one interface.

A manager keeps values by key in four tiers, moves them between tiers, and offers snapshots and
analytics. It has no queries, no transactions over several keys and no scheduler.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from memories import compiled
from memories._version import __version__
from memories.errors import (
    ArchivedError,
    BusyError,
    ClosedError,
    ConflictError,
    CorruptDataError,
    EncryptionKeyError,
    ForkedError,
    InvalidKeyError,
    InvalidKeyTypeError,
    InvalidOptionError,
    InvalidOptionTypeError,
    KeyNotFoundError,
    MemoriesError,
    RefusedError,
    ReplicationError,
    StorageError,
    StoreLockedError,
    TierFullError,
    UnavailableError,
    UnsupportedTypeError,
    UntrustedDataError,
)

if sys.platform == "win32":
    raise ImportError(
        "memories does not run on Windows: its files must stay readable after they were removed, "
        "and flock must lock them; use WSL 2, with the store in its own file system"
    )

compiled.install()  # Before a module is imported that may be compiled.

if TYPE_CHECKING:
    from memories.caching import cached, default
    from memories.cluster.client.node import EvictingNodeError
    from memories.cluster.client.resp import ReplyError
    from memories.codecs import Codec, Parts, register_codec
    from memories.core.cached_function import CachedFunction, CacheInfo
    from memories.core.distributed import DistributedMemoryManager
    from memories.core.explain import Explanation
    from memories.core.key_info import KeyInfo
    from memories.core.manager import MemoryManager
    from memories.core.prefix_view import PrefixView
    from memories.devices import DeviceFullError, DeviceLostError
    from memories.foundation.histogram import Latency
    from memories.foundation.optional_imports import BrokenPackageError, MissingPackageError
    from memories.model.rules import Rule
    from memories.model.tiers import Cause, StoreTier, TierChoice, TierName
    from memories.observe.analytics import Series
    from memories.observe.counters import Stats, TierStats, Volume
    from memories.observe.dashboard import Dashboard
    from memories.observe.metrics import instrument, prometheus_collector, prometheus_text
    from memories.options.migration import MigrationSettings
    from memories.policies import Policy, register_policy
    from memories.sealing.master_key import EncryptionKey
    from memories.sharing import SharedMemoryManager

__all__ = [
    "ArchivedError",
    "BrokenPackageError",
    "BusyError",
    "CacheInfo",
    "CachedFunction",
    "Cause",
    "ClosedError",
    "Codec",
    "ConflictError",
    "CorruptDataError",
    "Dashboard",
    "DeviceFullError",
    "DeviceLostError",
    "DistributedMemoryManager",
    "EncryptionKey",
    "EncryptionKeyError",
    "EvictingNodeError",
    "Explanation",
    "ForkedError",
    "InvalidKeyError",
    "InvalidKeyTypeError",
    "InvalidOptionError",
    "InvalidOptionTypeError",
    "KeyInfo",
    "KeyNotFoundError",
    "Latency",
    "MemoriesError",
    "MemoryManager",
    "MigrationSettings",
    "MissingPackageError",
    "Parts",
    "Policy",
    "PrefixView",
    "RefusedError",
    "ReplicationError",
    "ReplyError",
    "Rule",
    "Series",
    "SharedMemoryManager",
    "Stats",
    "StorageError",
    "StoreLockedError",
    "StoreTier",
    "TierChoice",
    "TierFullError",
    "TierName",
    "TierStats",
    "UnavailableError",
    "UnsupportedTypeError",
    "UntrustedDataError",
    "Volume",
    "__version__",
    "cached",
    "default",
    "instrument",
    "prometheus_collector",
    "prometheus_text",
    "register_codec",
    "register_policy",
]

_LAZY = {
    "BrokenPackageError": "memories.foundation.optional_imports",
    "CacheInfo": "memories.core.cached_function",
    "CachedFunction": "memories.core.cached_function",
    "Cause": "memories.model.tiers",
    "Codec": "memories.codecs",
    "Dashboard": "memories.observe.dashboard",
    "DeviceFullError": "memories.devices",
    "DeviceLostError": "memories.devices",
    "DistributedMemoryManager": "memories.core.distributed",
    "EncryptionKey": "memories.sealing.master_key",
    "EvictingNodeError": "memories.cluster.client.node",
    "Explanation": "memories.core.explain",
    "KeyInfo": "memories.core.key_info",
    "Latency": "memories.foundation.histogram",
    "MemoryManager": "memories.core.manager",
    "MigrationSettings": "memories.options.migration",
    "MissingPackageError": "memories.foundation.optional_imports",
    "Parts": "memories.codecs",
    "Policy": "memories.policies",
    "PrefixView": "memories.core.prefix_view",
    "ReplyError": "memories.cluster.client.resp",
    "Rule": "memories.model.rules",
    "Series": "memories.observe.analytics",
    "SharedMemoryManager": "memories.sharing",
    "Stats": "memories.observe.counters",
    "StoreTier": "memories.model.tiers",
    "TierChoice": "memories.model.tiers",
    "TierName": "memories.model.tiers",
    "TierStats": "memories.observe.counters",
    "Volume": "memories.observe.counters",
    "cached": "memories.caching",
    "default": "memories.caching",
    "instrument": "memories.observe.metrics",
    "prometheus_collector": "memories.observe.metrics",
    "prometheus_text": "memories.observe.metrics",
    "register_codec": "memories.codecs",
    "register_policy": "memories.policies",
}

_HOSTS = {"dask", "fsspec", "joblib", "xarray", "zarr"}  # Modules that need packages of their own.


def __getattr__(name: str) -> Any:
    """Import a name at its first use, so that `import memories` stays fast."""
    import importlib

    if name in _HOSTS:
        return importlib.import_module(f"memories.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'memories' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def load_ipython_extension(shell: Any) -> None:
    """Give a notebook `%%memo` and `%memories`: `%load_ext memories`."""
    import importlib

    shell.register_magics(importlib.import_module("memories.integrations.jupyter").MemoryMagics)
