"""The sizes inside a store, which follow from its capacity, and what its values are charged. Pure.

A log gives room back by copying what lives in a segment. So it needs room for the copies, and
enough dead bytes to be worth a copy. Small stores have small segments, so that this working room is
a small part of any capacity.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.backends.base import LARGE_BYTES
from memories.foundation.units import MAX_BYTES

SEGMENT_BYTES = 64 << 20
RESERVE_BYTES = 1 << 20
BESIDE_BYTES = 64 << 20
SLACK_BYTES = 96 << 20  # Dead bytes that are not worth a copy while there is room.
SLACK_SHARE = 0.2  # Of the live bytes, likewise.
CHURN_BYTES = 190 << 20  # Dead bytes that a writer may leave behind beyond the live ones.
PACKED_SHARE = 1.25  # Of the bytes of packed values: a full store can always free a fifth of some.


class SizeLimits(NamedTuple):
    """The sizes of one store."""

    capacity: int
    segment: int
    large: int
    reserve: int
    slack: int
    beside: int = 0  # Free bytes of the disk that are left to other parts of the manager.

    @classmethod
    def of(cls, capacity: int | None, room: int, *, shared: bool = False) -> SizeLimits:
        """Return the sizes for a store that may take `capacity` bytes, and can take `room`.

        On a `shared` disk a sixteenth of the room is left to others.
        """
        limit = MAX_BYTES if capacity is None else capacity
        whole = min(limit, room)
        return cls(
            capacity=limit,
            segment=min(SEGMENT_BYTES, max(whole // 64, 16 << 10)),
            large=min(LARGE_BYTES, max(whole // 128, 8 << 10)),
            reserve=min(RESERVE_BYTES, whole // 64),
            slack=min(SLACK_BYTES, whole // 16),
            beside=min(BESIDE_BYTES, room // 16) if shared else 0,
        )

    @property
    def recent(self) -> int:
        """Return how much of the log may lie behind the last checkpoint."""
        return 2 * self.segment
