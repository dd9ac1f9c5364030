"""What a repair, or a change of the members, tells its caller."""

from __future__ import annotations

import msgspec

_MOST_NAMED = 100  # Keys that a report names.


class RepairReport(msgspec.Struct, kw_only=True):
    """What a repair found and did."""

    keys: int = 0
    copied: int = 0  # Registers that a node lacked, or had in an older version.
    mended: int = 0  # Registers and chunks that were damaged on a node.
    chunks_copied: int = 0
    strays: int = 0  # Copies removed from nodes that are not theirs any more.
    orphans: int = 0  # Chunks removed that nothing names.
    tombstones: int = 0
    unreadable: list[str] = []  # The first keys that could not be repaired.
    silent: dict[str, str] = {}  # Nodes that did not answer, and why.

    def add_unreadable(self, key: str) -> None:
        """Name a key that could not be repaired."""
        if len(self.unreadable) < _MOST_NAMED and key not in self.unreadable:
            self.unreadable.append(key)
