"""The values that options of a manager may have, for type checkers and for the checks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from memories.model.rules import Rule
from memories.options.migration import MigrationSettings

if TYPE_CHECKING:
    from memories.devices import Device
    from memories.policies import PolicyChoice
    from memories.sealing.master_key import EncryptionKey

Durability = Literal["relaxed", "full"]
OnFull = Literal["raise", "evict"]
Prefetch = Literal["auto", "off", "successor", "stride", "pattern"]
DurableText = Literal["cold", "glacier"]
MemoryText = Literal["hot", "warm"]
ArrayLibrary = Literal["torch", "cupy", "jax", "numpy"]
# A compressor without a level uses its usual one; `frames.compression` reads these names.
Compression = Literal[
    "none", "auto", "fast", "high",
    "blosclz", "blosclz:1", "blosclz:2", "blosclz:3", "blosclz:4", "blosclz:5",
    "blosclz:6", "blosclz:7", "blosclz:8", "blosclz:9",
    "lz4", "lz4:1", "lz4:2", "lz4:3", "lz4:4", "lz4:5",
    "lz4:6", "lz4:7", "lz4:8", "lz4:9",
    "lz4hc", "lz4hc:1", "lz4hc:2", "lz4hc:3", "lz4hc:4", "lz4hc:5",
    "lz4hc:6", "lz4hc:7", "lz4hc:8", "lz4hc:9",
    "zlib", "zlib:1", "zlib:2", "zlib:3", "zlib:4", "zlib:5",
    "zlib:6", "zlib:7", "zlib:8", "zlib:9",
    "zstd", "zstd:1", "zstd:2", "zstd:3", "zstd:4", "zstd:5",
    "zstd:6", "zstd:7", "zstd:8", "zstd:9",
]  # fmt: skip


class ManagerOptions(TypedDict, total=False):
    """The arguments of `MemoryManager` by name, for constructors that pass them on."""

    hot_memory_size: float | str
    warm_memory_size: float | str
    cold_memory_size: float | str
    glacier_memory_enabled: bool
    storage_path: str | os.PathLike[str] | None
    glacier_url: str | os.PathLike[str] | None
    storage_options: Mapping[str, Any] | None
    hot_device: str | Device
    eviction_policy: PolicyChoice | Mapping[MemoryText, PolicyChoice]
    compression: Mapping[DurableText, Compression] | None
    durability: Durability
    exit_flush_seconds: float
    write_through: bool
    on_full: OnFull
    migration: MigrationSettings | Literal[False] | None
    prefetch: Prefetch
    rules: Iterable[Rule]
    read_only: bool
    takeover: bool
    trusted_keys: Iterable[str]
    encryption: str | EncryptionKey | None
