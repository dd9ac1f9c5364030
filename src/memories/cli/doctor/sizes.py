"""The sizes of the tiers that the checks judge: those of a store, or those of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from memories.foundation.units import parse_size
from memories.model.tiers import TierName

OPTIONS = {
    TierName.HOT: "hot_memory_size",
    TierName.WARM: "warm_memory_size",
    TierName.COLD: "cold_memory_size",
}

BY_DEFAULT = "by default"


class StoreSizes(NamedTuple):
    """Sizes in bytes.

    Attributes:
        configured: What each tier may take.
        used: What each tier takes now.
        origin: Where the sizes come from, in words.
    """

    configured: Mapping[TierName, int]
    used: Mapping[TierName, int]
    origin: str

    @property
    def by_default(self) -> bool:
        """Return whether no size was chosen: the defaults are upper limits for large machines."""
        return self.origin == BY_DEFAULT


def sizes_of(store: Path | None) -> StoreSizes:
    """Return the sizes that the program of a store gave to it, or those that one would have here.

    Raises:
        InvalidOptionError: the configuration is invalid.
        CorruptDataError: the telemetry file of the store is damaged.
        StorageError: it cannot be read.
    """
    from memories import MemoryManager
    from memories.observe.analytics.telemetry_files import read_document, writer_lives
    from memories.options.configured_constructor import effective_options

    document = None if store is None else read_document(store)
    if document is not None:
        lives = writer_lives(document)
        tiers = {name: document["tiers"][name] for name in OPTIONS}
        return StoreSizes(
            {name: tier["configured_bytes"] for name, tier in tiers.items()},
            {name: tier["used_bytes"] if lives or name.durable else 0
             for name, tier in tiers.items()},
            "as its program set it" if lives else "as its last program set it",
        )  # fmt: skip
    options = {one.name: one for one in effective_options(MemoryManager.__init__)}
    origins = {options[name].origin for name in OPTIONS.values()} - {"default"}
    return StoreSizes(
        {tier: parse_size(options[name].value, name=name) for tier, name in OPTIONS.items()},
        dict.fromkeys(OPTIONS, 0),
        f"by {', '.join(sorted(origins))}" if origins else BY_DEFAULT,
    )
