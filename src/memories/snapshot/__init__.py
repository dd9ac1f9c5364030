"""Snapshots: everything at one moment, in one file that other tools open too.

Nothing here decides when to take one, and the container knows only bytes: `create` writes frames,
`open_snapshot` finds them again. The manifest is the truth, the ZIP around it is for the others.
"""

from __future__ import annotations

from memories.snapshot.manifest import Base, Linked, Packed, Reference, SnapshotRow, Whole
from memories.snapshot.reader import SnapshotFile, open_snapshot
from memories.snapshot.writer import Created, Item, create

__all__ = [
    "Base",
    "Created",
    "Item",
    "Linked",
    "Packed",
    "Reference",
    "SnapshotFile",
    "SnapshotRow",
    "Whole",
    "create",
    "open_snapshot",
]
