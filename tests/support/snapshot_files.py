"""Small snapshot files for tests: items made from plain bytes, with heads that mean nothing.

The container knows only bytes, so nothing here is encoded or decoded.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from memories.model.record import Record
from memories.model.tiers import TierName
from memories.snapshot import Item
from memories.snapshot.manifest import Linked, Reference

HEAD = bytes(range(256))


def record(key: str, version: int = 1, **fields: Any) -> Record:
    """Return a record of `key`."""
    defaults: dict[str, Any] = {"tier": TierName.WARM, "size": 100, "stored_at": 1.5, "kind": "x"}
    return Record(key=key, version=version, **(defaults | fields))


def item(key: str, body: bytes, version: int = 1, **fields: Any) -> Item:
    """Return an item whose frame is `HEAD` and `body`."""
    segments = [memoryview(HEAD), memoryview(body)]
    return Item(record(key, version, **fields), segments)


def elsewhere(key: str, where: Linked | Reference, version: int = 1) -> Item:
    """Return an item whose frame lies in no member of the file."""
    return Item(record(key, version), where)


def npy(array: Any) -> bytes:
    """Return `array` as the bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
