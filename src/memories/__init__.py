"""Tiered memory for Python data: GPU memory, RAM, disk and object storage behind one face.

It is a manager of values by key, with migration between four tiers, snapshots and analytics. It is
not a database (no queries, no transactions over several keys) and not a task scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memories._version import __version__
from memories.errors import (
    ArchivedError,
    BusyError,
    ClosedError,
    ConflictError,
    CorruptDataError,
    ForkedError,
    InvalidKeyError,
    InvalidOptionError,
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

if TYPE_CHECKING:
    from memories.codecs import Codec, Parts, register_codec
    from memories.core.distributed import DistributedMemoryManager
    from memories.core.manager import MemoryManager
    from memories.model.rules import Rule
    from memories.model.tiers import Cause, TierName
    from memories.options.migration import MigrationSettings
    from memories.policies import Policy, register_policy

__all__ = [
    "ArchivedError",
    "BusyError",
    "Cause",
    "ClosedError",
    "Codec",
    "ConflictError",
    "CorruptDataError",
    "DistributedMemoryManager",
    "ForkedError",
    "InvalidKeyError",
    "InvalidOptionError",
    "KeyNotFoundError",
    "MemoriesError",
    "MemoryManager",
    "MigrationSettings",
    "Parts",
    "Policy",
    "RefusedError",
    "ReplicationError",
    "Rule",
    "StorageError",
    "StoreLockedError",
    "TierFullError",
    "TierName",
    "UnavailableError",
    "UnsupportedTypeError",
    "UntrustedDataError",
    "__version__",
    "register_codec",
    "register_policy",
]

_LAZY = {
    "Cause": "memories.model.tiers",
    "TierName": "memories.model.tiers",
    "Codec": "memories.codecs",
    "DistributedMemoryManager": "memories.core.distributed",
    "MemoryManager": "memories.core.manager",
    "MigrationSettings": "memories.options.migration",
    "Parts": "memories.codecs",
    "Policy": "memories.policies",
    "Rule": "memories.model.rules",
    "register_codec": "memories.codecs",
    "register_policy": "memories.policies",
}


def __getattr__(name: str) -> Any:
    """Import what is heavier than an error class when it is first asked for."""
    import importlib

    if name not in _LAZY:
        raise AttributeError(f"module 'memories' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
