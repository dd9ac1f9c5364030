"""Reads many small frames at once: those that lie close together in one piece.

It neither looks keys up nor checks frames. What it cannot read this way, for its file was unlinked
meanwhile say, is left for whoever asked to read alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.log_format import INLINE, PLACE, FrameLocation
from memories.backends.disk.reader import FrameReader, GoneError
from memories.model.record import Record

SMALL_BYTES = 64 << 10
_GAP_BYTES = 16 << 10  # So many bytes between two frames cost less than a second call.
_WINDOW_BYTES = 1 << 20


_Spot = tuple[int, int, int, int, int]  # Kind, file, offset and length of a frame; and whose.


def gather(
    reading: FrameReader, files: Files, records: Sequence[Record]
) -> list[memoryview | None]:
    """Return the frames of `records` in their order, None for each that must be read alone."""
    frames: list[memoryview | None] = [None] * len(records)
    for window in _windows(records):
        kind, file, start, _, _ = window[0]
        end = window[-1][2] + window[-1][3]
        data = _read(reading, files, FrameLocation(kind, file, start, end - start))
        for _, _, offset, length, index in window:
            if offset - start + length <= len(data):
                frames[index] = data[offset - start : offset - start + length]
    return frames


def _windows(records: Sequence[Record]) -> Iterator[list[_Spot]]:
    """Yield spots of one file that lie close together, in their order there."""
    unpack, size = PLACE.unpack, PLACE.size
    spots: list[_Spot] = sorted(
        (*unpack(record.place), index)
        for index, record in enumerate(records)
        if record.stored < SMALL_BYTES and len(record.place) == size
    )
    first, limit = 0, (-1, -1, 0)  # File and highest offset of what may join the window.
    for at, (kind, file, offset, length, _) in enumerate(spots):
        joins = (kind, file) == limit[:2] and offset <= limit[2]
        if not joins or offset + length - spots[first][2] > _WINDOW_BYTES:
            if at:
                yield spots[first:at]
            first = at
        limit = (kind, file, offset + length + _GAP_BYTES)
    if spots:
        yield spots[first:]


def _read(reading: FrameReader, files: Files, place: FrameLocation) -> memoryview:
    try:
        if place.kind == INLINE:
            handle = reading.segment(place.file)
            data = read_exactly(files, handle.descriptor, place.length, place.offset)
            return memoryview(data)
        handle = reading.open(reading.path(place))
        return memoryview(read_exactly(files, handle.descriptor, place.length, place.offset))
    except (FileNotFoundError, GoneError):
        return memoryview(b"")
