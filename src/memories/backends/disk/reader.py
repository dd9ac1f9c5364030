"""Reads the bytes of a frame from the file that its record names.

What is inside a frame is checked elsewhere. `GoneError` says that the file is too short,
`AbsentError` that there is none; the backend finds out what that means.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from mmap import ALLOCATIONGRANULARITY, mmap
from pathlib import Path
from typing import TypeVar

from memories.backends.base import LARGE_BYTES
from memories.backends.disk.fd_cache import Handle, HandleCache
from memories.backends.disk.files import Files, UnsyncedFiles, read_exactly
from memories.backends.disk.log_format import FILE, INLINE, PACKED, PLACE, FrameLocation
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.seal import StoreSeal
from memories.backends.disk.small_reads import SMALL_BYTES, SmallReads, use_together
from memories.errors import CorruptDataError
from memories.foundation.system import advise_sequential
from memories.model.record import Record

T = TypeVar("T")
unpack = PLACE.unpack


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
        self._known, self.pread = (
            handles.known,
            os.pread if type(files) in (Files, UnsyncedFiles) else files.read,
        )
        self._seal = files.seal
        self.small = SmallReads(
            self._known, self.pread, None if self._seal is None else self._seal.open_frame
        )
        self._map_large = map_large
        self._maps = weakref.WeakValueDictionary[tuple[Path, int], mmap]()
        self.sources = SourceFiles() if sources is None else sources
        self._anchors = weakref.WeakValueDictionary[Path, _Anchor]()

    def read(self, record: Record) -> memoryview:
        """Return the frame of `record`, read-only; it stays valid whatever happens to the key.

        Raises:
            CorruptDataError: it is encrypted, and was altered.
        """
        if self._seal is None:
            return self.stored(record)
        if record.stored < SMALL_BYTES:
            return memoryview(self._seal.open_frame(record, self.stored(record)))
        return self._read_sealed(record, self._seal, None)[0]

    def read_private(self, record: Record) -> memoryview:
        """Return the frame as `read` does; a large one in a mapping of its own, and writable."""
        return self.read(record) if self._seal is not None else self.stored(record, private=True)

    def read_ranges(self, record: Record, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return parts of an encrypted frame, decrypting only where they lie.

        Raises:
            CorruptDataError: they were altered, or the frame has not so many bytes.
        """
        assert self._seal is not None, "other frames are read as a whole"
        return self._read_sealed(record, self._seal, spans)

    def _read_sealed(
        self, record: Record, seal: StoreSeal, spans: Sequence[tuple[int, int]] | None
    ) -> list[memoryview]:
        """Return parts of an encrypted frame, or all of it."""
        try:
            place = FrameLocation._make(unpack(record.place))
        except struct.error:
            raise _nowhere(record) from None
        if place.offset >> 62:
            raise GoneError(f"{self.path(place)} is cut short")
        try:
            handle = self.holding(place)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AbsentError(f"the file {error.filename} is not there") from error
        if self._files.size(handle.descriptor) < place.offset + place.length:
            raise GoneError(f"{self.path(place)} is cut short")
        if spans is None and place.kind != INLINE:
            advise_sequential(handle.descriptor)

        def fetch(offset: int, length: int) -> bytes:
            return read_exactly(self._files, handle.descriptor, length, place.offset + offset)

        return seal.read_frame(record, fetch, place.length, spans)

    def stored(self, record: Record, *, private: bool = False) -> memoryview:
        """Return the frame of `record` as it lies in its file."""
        try:
            kind, number, offset, length = unpack(record.place)
        except struct.error:
            raise _nowhere(record) from None
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
            return self._large(FrameLocation(kind, number, offset, length), private=private)
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

    def holding(self, place: FrameLocation) -> Handle:
        """Return the file in which `place` lies, open; FileNotFoundError if it is gone."""
        return self.segment(place.file) if place.kind == INLINE else self.open(self.path(place))

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

    def _large(self, place: FrameLocation, *, private: bool) -> memoryview:
        path = self.path(place)
        end = place.offset + place.length
        if self._map_large and place.length >= LARGE_BYTES and self._mappable(path):
            # A pack is mapped value by value, so that each is unmapped when its last view ends.
            start = place.offset // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY
            if private and (own := self._map_private(path, start, end)) is not None:
                return own[place.offset - start :]
            mapping = self._maps.get((path, start)) or self._map(path, start, end)
            if len(mapping) < end - start:
                raise GoneError(f"{path} is cut short")
            return memoryview(mapping)[place.offset - start : end - start]
        handle = self._whole(path, end)
        return memoryview(read_exactly(self._files, handle.descriptor, place.length, place.offset))

    def _mappable(self, path: Path) -> bool:
        source = self.sources.get(path)
        return source is None or source.mapped

    def _map(self, path: Path, start: int, end: int) -> mmap:
        handle = self._whole(path, end)
        mapping = self._files.map(handle.descriptor, end - start, start)
        self._maps[path, start] = mapping
        self._anchor(path, mapping)
        return mapping

    def _map_private(self, path: Path, start: int, end: int) -> memoryview | None:
        handle = self._whole(path, end)
        mapping = self._files.map_private(handle.descriptor, end - start, start)
        if mapping is None:
            return None
        self._anchor(path, mapping)
        return memoryview(mapping).cast("B")

    def _whole(self, path: Path, end: int) -> Handle:
        """Return a file, open, of which the bytes before `end` are there."""
        handle = self.open(path)
        if self._files.size(handle.descriptor) < end:
            raise GoneError(f"{path} is cut short")
        return handle

    def _anchor(self, path: Path, mapping: object) -> None:
        """Have `mapped` find the file as long as a mapping of it is there."""
        anchor = self._anchors.setdefault(path, _Anchor())
        weakref.finalize(mapping, _drop, anchor).atexit = False


def _nowhere(record: Record) -> GoneError:
    return GoneError(f"{record.key!r} has no place in this store")


class _Anchor:
    """Held by every mapping of one file, and by nothing else."""

    __slots__ = ("__weakref__",)


def _drop(anchor: _Anchor) -> None:
    """Drop the reference that a mapping held."""
    del anchor


def read_batch(
    reader: FrameReader,
    files: Files,
    records: Sequence[Record],
    use: Callable[[bytes, Record], T],
    alone: T,
) -> list[T]:
    """Return `use(frame, record)` of each record, `alone` for those that must be read alone."""
    if files.seal is not None:
        use = partial(_use_opened, use, alone, files.seal)

    def opened(kind: int, file: int) -> Handle | None:
        try:
            return reader.holding(FrameLocation(kind, file, 0, 0))
        except (FileNotFoundError, GoneError):
            return None

    return use_together(records, opened, reader.pread, use, alone)


def _use_opened(
    use: Callable[[bytes, Record], T], alone: T, seal: StoreSeal, data: bytes, record: Record
) -> T:
    """Return `use` of a frame that is encrypted; `alone` if it was altered: its read reports it."""
    try:
        frame = seal.open_frame(record, data)
    except CorruptDataError:
        return alone
    return use(frame, record)
