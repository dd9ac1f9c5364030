"""Gets the bytes of a frame from the file its record names.

It neither looks keys up nor checks what is inside a frame; it says `GoneError` where the file was
unlinked or is too short, and the store finds out what that means.
"""

from __future__ import annotations

import mmap as _mmap
import struct
import weakref
from pathlib import Path

from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.handles import Handle, Handles
from memories.backends.disk.journal import FILE, INLINE, PACKED, PLACE, Place
from memories.backends.disk.layout import Layout
from memories.entry import Record

unpack = PLACE.unpack
MAP_BYTES = 1 << 20  # Values from here on are mapped.


class GoneError(Exception):
    """The file that a place names is not there, or too short; it never leaves this package."""


class Reading:
    """Reads frames by place; any thread, no lock."""

    def __init__(self, layout: Layout, files: Files, handles: Handles, *, mmap: bool) -> None:
        self._layout = layout
        self._files = files
        self._handles = handles
        self._known, self._read = handles.known, files.read
        self._mmap = mmap
        self._maps: weakref.WeakValueDictionary[Path, _mmap.mmap] = weakref.WeakValueDictionary()

    def read(self, record: Record) -> memoryview:
        """Return the frame of `record`, read-only; it stays valid whatever happens to the key."""
        try:
            kind, number, offset, length = unpack(record.place)
        except struct.error:
            raise GoneError(f"{record.key!r} has no place in this store") from None
        try:
            if kind == INLINE:
                handle = self._known(number) or self._handles.get(number)
                data = self._read(handle.descriptor, length, offset)
                if len(data) != length:
                    data = read_exactly(self._files, handle.descriptor, length, offset)
                    if len(data) != length:
                        raise GoneError(f"{self._layout.segment(number)} is cut short")
                return memoryview(data)
            return self._large(Place(kind, number, offset, length))
        except FileNotFoundError as error:
            raise GoneError(str(error)) from error

    def segment(self, number: int) -> Handle:
        """Return a segment of the log, open; FileNotFoundError if it is gone."""
        return self._handles.get(number)

    def path(self, place: Place) -> Path:
        """Return the file in which `place` lies."""
        if place.kind == INLINE:
            return self._layout.segment(place.file)
        if place.kind == FILE:
            return self._layout.value(place.file)
        if place.kind == PACKED:
            return self._layout.pack(place.file)
        raise GoneError(f"a place of kind {place.kind} is none of this store")

    def mapped(self, path: Path) -> _mmap.mmap | None:
        """Return the live mapping of a file, if somebody holds one."""
        return self._maps.get(path)

    def _large(self, place: Place) -> memoryview:
        path = self.path(place)
        end = place.offset + place.length
        if self._mmap and place.length >= MAP_BYTES:
            whole = self._maps.get(path)
            if whole is None:
                whole = self._map(path, end)
            if len(whole) < end:
                raise GoneError(f"{path} is cut short")
            return memoryview(whole)[place.offset : end]
        descriptor = self._files.open(path)
        try:
            if self._files.size(descriptor) < end:
                raise GoneError(f"{path} is cut short")
            return memoryview(read_exactly(self._files, descriptor, place.length, place.offset))
        finally:
            self._files.close(descriptor)

    def _map(self, path: Path, end: int) -> _mmap.mmap:
        descriptor = self._files.open(path)
        try:
            size = self._files.size(descriptor)
            if size < end:
                raise GoneError(f"{path} is cut short")
            whole = self._files.map(descriptor, size)
        finally:
            self._files.close(descriptor)
        self._maps[path] = whole
        return whole
