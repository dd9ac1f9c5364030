"""Which tombstones of the log are needed: those that hide an earlier record in another segment.

Each row says in which segments the earlier records of its key may lie. So a tombstone is copied by
compaction only as long as one of these segments exists. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection

from msgspec.structs import replace

from memories.backends.disk.log_format import NOWHERE, TOMBSTONE, IndexRow
from memories.backends.disk.manifest import FileStats
from memories.backends.disk.run_table import ROW

MOST_FORGOTTEN = 250_000  # How many tombstones one merge counts as dead at most.


def earlier_of(old: IndexRow | None, segments: Collection[int]) -> tuple[int, int]:
    """Return `oldest` and `beyond` of the record that comes after `old`, the newest of its key.

    They lead to all of `segments` that may hold a record of a value of the key. A tombstone itself
    brings nothing back, so that its own segment does not count.
    """
    if old is None:
        return NOWHERE, 0
    first, end = old.oldest, old.beyond or old.segment + 1
    if first < end and first not in segments:
        alone = end == first + 1  # So it is most often: the record was copied from there.
        first = (
            NOWHERE if alone else min((n for n in segments if first <= n < end), default=NOWHERE)
        )
    if old.kind != TOMBSTONE:
        return min(first, old.segment), old.segment + 1
    return (first, end) if first < end else (NOWHERE, 0)


def with_earlier(row: IndexRow, oldest: int, beyond: int) -> IndexRow:
    """Return `row` with more segments in which earlier records of its key may lie."""
    if oldest == NOWHERE:
        return row
    if row.oldest != NOWHERE:
        beyond = row.beyond and max(row.beyond, beyond)
    return replace(row, oldest=min(row.oldest, oldest), beyond=beyond)


def kept_in(stats: FileStats, numbers: list[int], number: int) -> int:
    """Return the bytes of segment `number` that count: live ones, and tombstones that are needed.

    `numbers` are those of all segments, ascending.
    """
    return stats.live + (stats.tombstones if needed(numbers, number, stats.lowest) else 0)


def needed(numbers: list[int], number: int, oldest: int, beyond: int = 0) -> bool:
    """Return whether a tombstone in segment `number` still hides an earlier record.

    Another segment exists then from `oldest` on and below `beyond` in which there may be one.
    """
    at = bisect_left(numbers, oldest)
    return at < len(numbers) and numbers[at] < min(number, beyond or number)


class ForgottenTombstones:
    """The tombstones that a merge of all runs leaves out, because they hide nothing any more."""

    def __init__(self, segments: list[int]) -> None:
        self._segments = segments
        self._found: list[tuple[str, int, int]] = []  # Keys, segments and bytes in the log.

    def drops(self, key: bytes, row: bytes) -> bool:
        """Return whether a packed row is one of them."""
        _, segment, _, beyond, extent, oldest, kind = ROW.unpack_from(row)
        if kind != TOMBSTONE or needed(self._segments, segment, oldest, beyond):
            return False
        if len(self._found) < MOST_FORGOTTEN:  # More count until their segments are emptied.
            self._found.append((key.decode(), segment, extent))
        return True

    def leave_out(self, replaced: Callable[[str], bool]) -> None:
        """Leave out those whose keys have a newer record: they are not counted any more."""
        self._found = [found for found in self._found if not replaced(found[0])]

    def bytes(self) -> dict[int, int]:
        """Return their bytes in each segment."""
        total: dict[int, int] = {}
        for _, segment, extent in self._found:
            total[segment] = total.get(segment, 0) + extent
        return total
