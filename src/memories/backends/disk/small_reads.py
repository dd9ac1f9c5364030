"""Finds keys in the index of a writer and reads their frames from the log, in few steps.

Most reads of values below a megabyte end here: larger ones have files of their own. Whatever is
unusual is left to `DiskBackend.lookup` and `DiskBackend.read`, which look again and raise what has
to be raised.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from memories.backends.disk.log_format import INLINE, PACKED, PLACE, TOMBSTONE, IndexRow
from memories.backends.disk.run_table import RunDamagedError, newest_row
from memories.errors import CorruptDataError
from memories.model.record import Record
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.backends.disk.index import Index

T = TypeVar("T")

SMALL_BYTES: Final = 64 << 10  # To read a larger value together with others is not worth it.
_GAP_BYTES: Final = 4 << 10  # So many bytes between two frames cost less than a second call.
_WINDOW_BYTES: Final = 1 << 20
# A float holds an offset and an index exactly.
_MOST_TOGETHER: Final = 1 << 13
_FARTHEST: Final = 1 << 40
# Names of this module, which compiled code finds without a look-up.
_INLINE: Final[int] = INLINE
_PACKED: Final[int] = PACKED
_TOMBSTONE: Final[int] = TOMBSTONE
_COLD: Final[TierName] = TierName.COLD
_PLACE_BYTES: Final[int] = PLACE.size
_unpack: Final[Callable[[bytes], tuple[Any, ...]]] = PLACE.unpack
_UNUSUAL: Final[tuple[type[Exception], ...]] = (RunDamagedError, struct.error)


class SmallReads:
    """Reads by key; any thread, no lock."""

    __slots__ = ("_known", "_open_frame", "_pread", "index")

    def __init__(
        self,
        known: Callable[[int], Any],
        pread: Callable[[int, int, int], bytes],
        open_frame: Callable[[Record, bytes], bytes] | None = None,
    ) -> None:
        # What is seen, while it is the log's alone; None once another way must be taken.
        self.index: Index | None = None
        self._known = known  # Of a segment: its handle if it is open.
        self._pread = pread
        self._open_frame = open_frame  # Of an encrypted store.

    def find(self, key: str) -> tuple[Record, bytes] | None:
        """Return the record and the frame of `key`, None where another way must be taken.

        Raises:
            OSError: the frame cannot be read.
        """
        try:
            row = self._row(key)
            if row is None or row.kind != _INLINE:
                return None
            record = row.record
            place = _unpack(record.place)
        except _UNUSUAL:
            return None
        offset: int = place[2]
        length: int = place[3]
        if offset >> 62:
            return None
        handle: Any = self._known(place[1])  # It stays open as long as it is referred to.
        if handle is None:
            return None
        descriptor: int = handle.descriptor
        frame = self._pread(descriptor, length, offset)
        # Used once more: compiled code releases an object after its last use in the source.
        if len(frame) != length or descriptor != handle.descriptor:
            return None
        if self._open_frame is not None:
            try:
                frame = self._open_frame(record, frame)
            except CorruptDataError:
                return None
        return record, frame

    def records(
        self, keys: Iterable[str], elsewhere: dict[str, Any]
    ) -> tuple[list[Record], list[str]]:
        """Return the records of those keys that are small and lie here, and the other keys.

        What is `elsewhere`, and what may have expired, is among the others.
        """
        near: list[Record] = []
        others: list[str] = []
        for key in keys:
            if key not in elsewhere:
                try:
                    row = self._row(key)
                except _UNUSUAL:
                    row = None
                if row is not None and (row.kind == _INLINE or row.kind == _PACKED):
                    record: Record = row.record
                    if (
                        record.stored < SMALL_BYTES
                        and record.tier is _COLD
                        and record.terms.expires_at is None
                    ):
                        near.append(record)
                        continue
            others.append(key)
        return near, others

    def rows(self, keys: Sequence[str]) -> list[IndexRow | None] | None:
        """Return the newest row of each key, removals too; None if another way must be taken."""
        index = self.index
        if index is None:
            return None
        tables, runs = index.state
        finders: list[Callable[[str], IndexRow | None]] = [run.row for run in runs]
        rows: list[IndexRow | None] = []
        try:
            for key in keys:
                row: IndexRow | None = None
                for table in tables:
                    row = table.get(key)
                    if row is not None:
                        break
                if row is None:
                    for find in finders:
                        row = find(key)
                        if row is not None:
                            break
                rows.append(row)
        except _UNUSUAL:
            return None
        return rows

    def newest(self, keys: Sequence[str]) -> list[Record | None] | None:
        """Return the record of each key that has one; None if another way must be taken."""
        rows = self.rows(keys)
        if rows is None:
            return None
        records: list[Record | None] = []
        for row in rows:
            records.append(None if row is None or row.kind == _TOMBSTONE else row.record)
        return records

    def _row(self, key: str) -> IndexRow | None:
        """Return the newest row of `key`, as `Index.row` does; None if there is another way."""
        index = self.index
        if index is None:
            return None
        tables, runs = index.state
        return newest_row(tables, runs, key)


def use_together(
    records: Sequence[Record],
    opened: Callable[[int, int], Any],
    pread: Callable[[int, int, int], bytes],
    use: Callable[[bytes, Record], T],
    alone: T,
) -> list[T]:
    """Return `use(frame, record)` of each record, `alone` for those that must be read alone.

    Frames that lie close together are read in one call of `pread`. `opened` returns the handle of a
    file of this kind and number, None if that is gone.
    """
    used: list[T] = []
    for start in range(0, len(records), _MOST_TOGETHER):
        used += _use_together(records[start : start + _MOST_TOGETHER], opened, pread, use, alone)
    return used


def _use_together(
    records: Sequence[Record],
    opened: Callable[[int, int], Any],
    pread: Callable[[int, int, int], bytes],
    use: Callable[[bytes, Record], T],
    alone: T,
) -> list[T]:
    used: list[T] = [alone] * len(records)
    lengths: list[int] = [0] * len(records)
    by_file: dict[tuple[int, int], list[float]] = {}
    for number, record in enumerate(records):
        place: bytes = record.place
        if record.stored < SMALL_BYTES and len(place) == _PLACE_BYTES:
            kind, file, far, size = _unpack(place)
            offset: int = far
            length: int = size
            if offset < _FARTHEST and length <= SMALL_BYTES:
                lengths[number] = length
                spots = by_file.get((kind, file))
                if spots is None:
                    spots = by_file[kind, file] = []
                # Floats are sorted in a third of the time that tuples take.
                spots.append(float(offset * _MOST_TOGETHER + number))
    for (kind, file), spots in by_file.items():
        handle: Any = opened(kind, file)  # It stays open as long as it is referred to.
        if handle is None:
            continue
        spots.sort()
        offsets: list[int] = []
        numbers: list[int] = []
        for spot in spots:
            whole = int(spot)
            offsets.append(whole // _MOST_TOGETHER)
            numbers.append(whole % _MOST_TOGETHER)
        first = 0
        while first < len(offsets):
            begin = offsets[first]
            end = begin + lengths[numbers[first]]
            last = first + 1
            while last < len(offsets):
                offset = offsets[last]
                after = offset + lengths[numbers[last]]
                if offset > end + _GAP_BYTES or after - begin > _WINDOW_BYTES:
                    break
                if after > end:
                    end = after
                last += 1
            # In every pass: compiled code releases an object after its last use in the source.
            data = pread(handle.descriptor, end - begin, begin)
            if len(data) == end - begin:
                for at in range(first, last):
                    offset = offsets[at] - begin
                    which = numbers[at]
                    # A copy: one small value does not keep the bytes of all others.
                    frame = data[offset : offset + lengths[which]]
                    used[which] = use(frame, records[which])
            first = last
    return used
