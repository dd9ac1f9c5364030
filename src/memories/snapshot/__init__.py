"""Snapshots: everything at one moment, in one file that other tools open too.

`create` writes frames and `open_snapshot` finds them again; neither decides when to take one. The
manifest is the truth; the ZIP around it is for other tools.
"""

from __future__ import annotations

from memories.snapshot.manifest import FORMAT, Base, Linked, Packed, Reference, SnapshotRow, Whole
from memories.snapshot.reader import SnapshotFile, open_snapshot
from memories.snapshot.writer import Created, Item, create

__all__ = [
    "FORMAT",
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
