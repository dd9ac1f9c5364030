"""Many records of the log: the bytes and rows of each are those of one alone."""

from __future__ import annotations

import os
from typing import Any

import pytest
from msgspec.structs import replace

from memories.backends.disk.log_format import (
    INLINE,
    PACKED,
    PLACE,
    TOMBSTONE,
    IndexRow,
    Position,
    encode_record,
    pack_head,
    pack_inline,
    unpack_head,
)
from memories.backends.disk.many_records import HeadRecords, InlineRecords
from memories.backends.disk.tombstones import earlier_of
from memories.testing.backends import record_for

SYNCED = Position(3, 4096)
SEGMENTS = (1, 3)


def found() -> list[tuple[Any, IndexRow | None, list[memoryview]]]:
    """Return records with frames of one or two buffers, the first two in the place of a row."""
    items: list[tuple[Any, IndexRow | None, list[memoryview]]] = []
    for number in range(70):
        record = record_for(f"k{number}", number + 9, size=number)
        old = IndexRow(record, INLINE, number + 1, 64, 128, 1) if number < 2 else None
        data = [memoryview(os.urandom(number * 7))]
        items.append((record, old, data * (1 + number % 2)))
    return items


def test_the_bytes_are_those_of_single_records() -> None:
    """A reader of the log cannot tell a batch from single appends."""
    items = found()
    expected = [
        pack_inline(encode_record(record), frame, len(frame), oldest, SYNCED, beyond)[0]
        for record, old, frames in items
        for frame in [b"".join(frames)]
        for oldest, beyond in [earlier_of(old, SEGMENTS)]
    ]
    packed = InlineRecords(items, SEGMENTS, SYNCED, None)
    assert b"".join(expected) == packed.data
    assert len(packed.data) - packed.head_bytes == sum(len(b"".join(one)) for _, _, one in items)


def test_each_row_says_where_its_record_and_frame_are() -> None:
    """Wherever the batch begins in the log."""
    items = found()
    packed = InlineRecords(items, SEGMENTS, SYNCED, None)
    at = 640
    for (record, old, frames), (replaced, row) in zip(items, packed.rows(7, at), strict=True):
        frame = b"".join(frames)
        kind, segment, offset, length = PLACE.unpack(row.record.place)
        assert replaced is old
        assert (INLINE, 7, len(frame)) == (kind, segment, length)
        assert packed.data[offset - 640 : offset - 640 + length] == frame
        assert (INLINE, 7, at) == (row.kind, row.segment, row.offset)
        assert replace(record, stored=length, place=row.record.place) == row.record
        head = unpack_head(packed.data[at - 640 :])
        assert head is not None
        assert (record, row.extent) == (head.record, head.extent)
        assert (row.oldest, row.beyond) == (head.oldest, head.beyond)
        at += row.extent
    assert at - 640 == len(packed.data)


def test_no_records_are_no_bytes() -> None:
    """A batch may be empty."""
    packed = InlineRecords([], SEGMENTS, SYNCED, None)
    assert (b"", 0, []) == (packed.data, packed.head_bytes, packed.rows(1, 64))


@pytest.mark.parametrize("kind", [PACKED, TOMBSTONE])
def test_heads_alone_are_those_of_single_records(kind: int) -> None:
    """Of removals, and of values whose frames lie in a file of many."""
    items = [(record, old) for record, old, _ in found()]
    expected = [
        pack_head(kind, encode_record(record), oldest=oldest, synced=SYNCED, beyond=beyond)
        for record, old in items
        for oldest, beyond in [earlier_of(old, SEGMENTS)]
    ]
    packed = HeadRecords(kind, items, SEGMENTS, SYNCED, None)
    assert b"".join(expected) == packed.data
    at = 192
    rows = packed.rows(5, at)
    for (record, old), (replaced, row), head in zip(items, rows, expected, strict=True):
        assert replaced is old
        assert IndexRow(record, kind, 5, at, len(head), *earlier_of(old, SEGMENTS)) == row
        at += len(head)
