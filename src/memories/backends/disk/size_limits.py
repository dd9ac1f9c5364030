"""The sizes inside a store, which follow from its capacity, and what its values are charged. Pure.

A log gives room back by copying what lives in a segment. So it needs room for the copies, and
enough dead bytes to be worth a copy. Small stores have small segments, so that this working room is
a small part of any capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from memories.backends.base import LARGE_BYTES
from memories.foundation.units import MAX_BYTES

SEGMENT_BYTES = 64 << 20
RESERVE_BYTES = 1 << 20
BESIDE_BYTES = 64 << 20
DIRECTORY_BYTES = 128 << 10
BARE_BYTES = 48 << 10  # Directories, lock, format, identity and manifest of an empty store.
SLACK_BYTES = 96 << 20  # Dead bytes that are not worth a copy while there is room.
SLACK_SHARE = 0.2  # Of the live bytes, likewise.
SMALL_STORE_BYTES = 16 << 20
CHURN_BYTES = 190 << 20  # Dead bytes that a writer may leave behind beyond the live ones.
# Dead bytes that a full log may hold, of those that count: a sixteenth, more where records are
# small, since each of them takes time to copy, and at most a sixth.
LEAST_DEAD, MOST_DEAD = 16, 6
HEAD_BYTES = 128  # Of a record in the log, with a key of middling length.
NOTE_BYTES = 192  # If the value lies elsewhere.
ROW_BYTES = 144  # Of the index, likewise.
DEAD_OF_SMALL = 5.0  # Times the root of records x bytes: a twelfth of records of 4 KB.
SMALL_INDEX_BYTES = 512 << 10  # An index of so many bytes is written whole at each checkpoint.
PACKED_SHARE = 1.25  # Of the bytes of packed values: a full store can always free a fifth of some.
BLOCK_BYTES = 4096  # What a file takes on the disk is a multiple of this.


def blocks(size: int) -> int:
    """Return the bytes that a file of `size` bytes takes on the disk."""
    return (size + BLOCK_BYTES - 1) & -BLOCK_BYTES


def index_room(live: int) -> int:
    """Return the bytes that an index takes whose rows that count take `live` bytes.

    Where it is not written whole each time, a quarter as many may be those of replaced values.
    """
    return live + max(live // 16, min(live // 4, live - SMALL_INDEX_BYTES))


class SizeLimits(NamedTuple):
    """The sizes of one store."""

    capacity: int
    segment: int
    large: int
    reserve: int
    slack: int
    recent: int  # How much of the log may lie behind the last checkpoint.
    directories: int  # What directories and the manifest take of the capacity.
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
            segment=min(SEGMENT_BYTES, max(_share(whole, 64), 16 << 10)),
            large=min(LARGE_BYTES, max(_share(whole, 128), 8 << 10)),
            reserve=min(RESERVE_BYTES, whole // 64),
            slack=min(SLACK_BYTES, whole // 16),
            recent=min(2 * SEGMENT_BYTES, max(whole // 32, 32 << 10, min(256 << 10, whole // 16))),
            directories=min(DIRECTORY_BYTES, max(whole // 128, min(BARE_BYTES, whole // 8))),
            beside=min(BESIDE_BYTES, room // 16) if shared else 0,
        )

    @property
    def files(self) -> int:
        """Return what data files may take."""
        return self.capacity - self.directories


def _share(whole: int, parts: int) -> int:
    """Return one of so many parts of `whole`; of a larger store a smaller part, down to a 256th.

    Many files take room for themselves: a block, half of which is empty.
    """
    return max(whole // 256, min(whole // parts, SMALL_STORE_BYTES // parts))


def room_for_values(capacity: int, stored: Sequence[int], elsewhere: int = 0) -> int:
    """Return about how many bytes of values a full store holds, if they have sizes like `stored`.

    It is what `SpaceAccounting` and `Space` charge and keep free, in a store at rest. The log also
    has the records of values that lie `elsewhere`, in an archive.
    """
    limits = SizeLimits.of(capacity, capacity)
    mean = sum(stored) / max(len(stored), 1)
    large = [blocks(size) for size in stored if size >= limits.large]
    small = [-(-size // 64) * 64 for size in stored if size < limits.large]
    files = sum(large) / max(len(stored), 1)
    record = HEAD_BYTES + sum(small) / max(len(stored), 1)
    least, most = 0, int(capacity // max(mean, 1)) + 1
    while least < most:
        count = (least + most + 1) // 2
        keys = count + elsewhere
        log, index = count * record + elsewhere * NOTE_BYTES, index_room(keys * ROW_BYTES)
        dead = min(max(DEAD_OF_SMALL * sqrt(keys * log), log / LEAST_DEAD), log / MOST_DEAD)
        slack = BLOCK_BYTES / 2 * (1 + log / limits.segment)
        charged = count * files + log + dead + slack + index + limits.segment / 4
        kept = max(limits.reserve, min(2 * (limits.segment + limits.large), log), index)
        if charged + kept + BLOCK_BYTES <= limits.files:
            least = count
        else:
            most = count - 1
    return int(least * mean)
