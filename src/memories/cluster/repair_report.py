"""The result of a repair."""

from __future__ import annotations

import msgspec

_MOST_NAMED = 100  # Keys that a report lists at most.


class RepairReport(msgspec.Struct, kw_only=True):
    """What a repair found and did."""

    keys: int = 0
    copied: int = 0  # Registers that a node lacked, or had in an older version.
    mended: int = 0  # Registers and chunks that were damaged on a node.
    chunks_copied: int = 0
    strays: int = 0  # Copies removed from nodes where they do not belong any more.
    orphans: int = 0  # Chunks removed that no manifest names.
    tombstones: int = 0
    short: int = 0  # Values that are on too few nodes, because the others are full or away.
    unreadable: list[str] = []  # The first keys that could not be repaired.
    silent: dict[str, str] = {}  # Nodes that did not answer and keys that failed, with reasons.

    def add_unreadable(self, key: str) -> None:
        """Add a key that could not be repaired."""
        if len(self.unreadable) < _MOST_NAMED and key not in self.unreadable:
            self.unreadable.append(key)
