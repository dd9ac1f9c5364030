"""Small questions about rows: how a run holds them, where a copy points, which are unsynced."""

from __future__ import annotations

from collections.abc import Iterator

from memories.backends.disk import log_format
from memories.backends.disk.fd_cache import Handle, HandleCache
from memories.backends.disk.files import Files
from memories.backends.disk.index import Index, Table
from memories.backends.disk.log import Log
from memories.backends.disk.log_format import INLINE, SEGMENT_HEADER_BYTES, IndexRow
from memories.backends.disk.replay import SegmentWalk, oldest_of
from memories.backends.disk.run import pack_row


def run_rows(table: Table) -> Iterator[tuple[bytes, bytes, float | None]]:
    """Yield the rows of a table as `write_run` takes them."""
    for key, row in sorted((key.encode(), row) for key, row in table.items()):
        yield key, pack_row(row, log_format.encode_record), row.record.terms.expires_at


def moved(row: IndexRow, segment: int, offset: int) -> IndexRow:
    """Return `row` after its log record was copied to another place."""
    if row.kind != INLINE:
        return row._replace(segment=segment, offset=offset, oldest=oldest_of(row))
    place = log_format.unpack_place(row.record.place)
    inside = place.offset - row.offset
    packed = log_format.pack_place(INLINE, segment, offset + inside, place.length)
    record = log_format.placed(row.record, row.record.stored, packed)
    return IndexRow(record, INLINE, segment, offset, row.extent, oldest_of(row))


def unsynced_rows(
    files: Files, handles: HandleCache, log: Log, index: Index
) -> list[tuple[IndexRow, bytes]]:
    """Return the live records behind the synced part of the log, with their bytes."""
    found = list[tuple[IndexRow, bytes]]()
    for number in range(log.synced.segment, log.end.segment + 1):
        start = log.synced.offset if number == log.synced.segment else SEGMENT_HEADER_BYTES
        try:
            handle = handles.get(number)
        except FileNotFoundError:
            continue
        found += live_records(files, handle, number, start, index)
    return found


def live_records(
    files: Files, handle: Handle, number: int, start: int, index: Index
) -> Iterator[tuple[IndexRow, bytes]]:
    """Yield the rows of one segment that count, from `start` on, with the bytes of its records."""
    walk = SegmentWalk(files, handle, start, files.size(handle.descriptor))
    for offset, head in walk:
        row = index.row(head.record.key)
        if row is not None and (row.segment, row.offset) == (number, offset):
            yield row, walk.bytes(offset, head.extent)
