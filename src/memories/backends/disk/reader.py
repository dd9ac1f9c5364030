"""Reads the bytes of a frame from the file that its record names.

What is inside a frame is checked elsewhere. `GoneError` says that the file is too short,
`AbsentError` that there is none; the backend finds out what that means.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from mmap import ALLOCATIONGRANULARITY, mmap
from pathlib import Path
from typing import TypeVar

from memories.backends.base import LARGE_BYTES
from memories.backends.disk.fd_cache import Handle, HandleCache
from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.log_format import FILE, INLINE, PACKED, PLACE, FrameLocation
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.small_reads import SmallReads
from memories.model.record import Record

T = TypeVar("T")
unpack = PLACE.unpack

SMALL_BYTES = 64 << 10
_GAP_BYTES = 4 << 10  # So many bytes between two frames cost less than a second call.
_WINDOW_BYTES = 1 << 20


class GoneError(Exception):
    """What a place names is not there; it never leaves this package."""


class AbsentError(GoneError):
    """The file is not there or cannot be read, so that it may be undamaged."""


class SourceFile:
    """A file that is being imported, open where it lies.

    Readers find it by a weak reference, which still works while a `__del__` runs: this class must
    not have one, or a reader would get a descriptor that is closed at that moment.
    """

    __slots__ = ("__weakref__", "handle", "mapped")

    def __init__(self, handle: Handle, *, mapped: bool) -> None:
        self.handle = handle  # Closed with the last reference, after all weak ones are dead.
        self.mapped = mapped  # Not on a network file system, where a mapping may fail.


SourceFiles = weakref.WeakValueDictionary[Path, SourceFile]


class FrameReader:
    """Reads frames by place; any thread, no lock."""

    def __init__(
        self,
        paths: StorePaths,
        files: Files,
        handles: HandleCache,
        *,
        map_large: bool,
        sources: SourceFiles | None = None,
    ) -> None:
        self._paths = paths
        self._files = files
        self.handles = handles
        # The function itself where nothing is added to it: a call in Python costs a tenth of it.
        self._known, self.pread = handles.known, os.pread if type(files) is Files else files.read
        self.small = SmallReads(self._known, self.pread)
        self._map_large = map_large
        self._maps = weakref.WeakValueDictionary[tuple[Path, int], mmap]()
        self.sources = SourceFiles() if sources is None else sources
        self._anchors = weakref.WeakValueDictionary[Path, _Anchor]()

    def read(self, record: Record) -> memoryview:
        """Return the frame of `record`, read-only; it stays valid whatever happens to the key."""
        try:
            kind, number, offset, length = unpack(record.place)
        except struct.error:
            raise GoneError(f"{record.key!r} has no place in this store") from None
        try:
            if kind == INLINE:
                handle = self._known(number) or self.handles.get(number)
                unusual = length > LARGE_BYTES or offset >> 62  # Before it is allocated.
                if unusual and self._files.size(handle.descriptor) < offset + length:
                    raise GoneError(f"{self._paths.segment(number)} is cut short")
                data = self.pread(handle.descriptor, length, offset)
                if len(data) != length:
                    data = read_exactly(self._files, handle.descriptor, length, offset)
                    if len(data) != length:
                        raise GoneError(f"{self._paths.segment(number)} is cut short")
                return memoryview(data)
            return self._large(FrameLocation(kind, number, offset, length))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AbsentError(f"the file {error.filename} is not there") from error

    def close(self) -> None:
        """Close the files of the log; a mapping lives as long as the last view of it."""
        self.small.index = None
        self.handles.close()

    def read_from(self, path: Path, source: SourceFile) -> None:
        """Read from `source` what will lie at `path`, for as long as `source` is referenced."""
        self.sources[path] = source

    def open(self, path: Path) -> Handle:
        """Return the file at `path`, open; FileNotFoundError if it is gone."""
        source = self.sources.get(path)
        return Handle(self._files, self._files.open(path)) if source is None else source.handle

    def segment(self, number: int) -> Handle:
        """Return a segment of the log, open; FileNotFoundError if it is gone."""
        return self.handles.get(number)

    def path(self, place: FrameLocation) -> Path:
        """Return the file in which `place` lies."""
        if place.kind == INLINE:
            return self._paths.segment(place.file)
        if place.kind == FILE:
            return self._paths.value(place.file)
        if place.kind == PACKED:
            return self._paths.pack(place.file)
        raise GoneError(f"this store has no place of kind {place.kind}")

    def mapped(self, path: Path) -> object | None:
        """Return an object that lives as long as any mapping of a file, or None if none is left."""
        return self._anchors.get(path)

    def _large(self, place: FrameLocation) -> memoryview:
        path = self.path(place)
        end = place.offset + place.length
        if self._map_large and place.length >= LARGE_BYTES and self._mappable(path):
            # A pack is mapped value by value, so that each is unmapped when its last view ends.
            start = place.offset // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY
            mapping = self._maps.get((path, start)) or self._map(path, start, end)
            if len(mapping) < end - start:
                raise GoneError(f"{path} is cut short")
            return memoryview(mapping)[place.offset - start : end - start]
        handle = self.open(path)
        if self._files.size(handle.descriptor) < end:
            raise GoneError(f"{path} is cut short")
        return memoryview(read_exactly(self._files, handle.descriptor, place.length, place.offset))

    def _mappable(self, path: Path) -> bool:
        source = self.sources.get(path)
        return source is None or source.mapped

    def _map(self, path: Path, start: int, end: int) -> mmap:
        handle = self.open(path)
        if self._files.size(handle.descriptor) < end:
            raise GoneError(f"{path} is cut short")
        mapping = self._files.map(handle.descriptor, end - start, start)
        self._maps[path, start] = mapping
        anchor = self._anchors.setdefault(path, _Anchor())
        weakref.finalize(mapping, _drop, anchor).atexit = False
        return mapping


class _Anchor:
    """Held by every mapping of one file, and by nothing else."""

    __slots__ = ("__weakref__",)


def _drop(anchor: _Anchor) -> None:
    """Drop the reference that a mapping held."""
    del anchor


# A float holds an offset and an index exactly.
_MOST_TOGETHER, _FARTHEST = 1 << 13, 1 << 40


def read_batch(
    reader: FrameReader,
    files: Files,
    records: Sequence[Record],
    use: Callable[[bytes, Record], T],
    alone: T,
) -> list[T]:
    """Return `use(frame, record)` of each record, `alone` for those that must be read alone."""
    used: list[T] = []
    for start in range(0, len(records), _MOST_TOGETHER):
        some = records[start : start + _MOST_TOGETHER]
        used += _read_together(reader, files, some, use, alone)
    return used


def _read_together(
    reader: FrameReader,
    files: Files,
    records: Sequence[Record],
    use: Callable[[bytes, Record], T],
    alone: T,
) -> list[T]:
    used = [alone] * len(records)
    size, lengths = PLACE.size, [0] * len(records)
    by_file: dict[tuple[int, int], list[float]] = {}
    for index, record in enumerate(records):
        place = record.place
        if record.stored < SMALL_BYTES and len(place) == size:
            kind, file, offset, lengths[index] = unpack(place)
            if offset >= _FARTHEST or lengths[index] > SMALL_BYTES:
                continue
            spots = by_file.get((kind, file))
            if spots is None:
                spots = by_file[kind, file] = []
            # Floats are sorted in a third of the time that tuples take.
            spots.append(float(offset * _MOST_TOGETHER + index))
    for (kind, file), spots in by_file.items():
        spots.sort()
        ordered = [divmod(int(spot), _MOST_TOGETHER) for spot in spots]
        for window in _windows(ordered, lengths):
            (begin, _), (last, at) = window[0], window[-1]
            extent = last + lengths[at] - begin
            data = _read(reader, files, FrameLocation(kind, file, begin, extent))
            if len(data) == extent:
                for offset, index in window:
                    at = offset - begin
                    # A copy: one small value does not keep the bytes of all others.
                    used[index] = use(data[at : at + lengths[index]], records[index])
    return used


def _windows(
    spots: Sequence[tuple[int, int]], lengths: Sequence[int]
) -> Iterator[Sequence[tuple[int, int]]]:
    """Yield offsets in one file that lie close together, with their indices, in their order."""
    first, limit = 0, 0  # The highest offset of what may join the window.
    begin = spots[0][0]
    for at, (offset, index) in enumerate(spots):
        end = offset + lengths[index]
        if at and (offset > limit or end - begin > _WINDOW_BYTES):
            yield spots[first:at]
            first, begin = at, offset
        limit = end + _GAP_BYTES
    yield spots[first:]


def _read(reader: FrameReader, files: Files, place: FrameLocation) -> bytes:
    try:
        inline = place.kind == INLINE
        handle = reader.segment(place.file) if inline else reader.open(reader.path(place))
        return read_exactly(files, handle.descriptor, place.length, place.offset)
    except (FileNotFoundError, GoneError):
        return b""
