"""A cache of open segment descriptors.

A descriptor is closed with its last reference, never while a reader uses it: the kernel would give
its number to another file.
"""

from __future__ import annotations

from memories.backends.disk.files import Files
from memories.backends.disk.paths import StorePaths
from memories.errors import ClosedError


class Handle:
    """One open descriptor; closed with the object."""

    __slots__ = ("_files", "descriptor")

    def __init__(self, files: Files, descriptor: int) -> None:
        self._files = files
        self.descriptor = descriptor

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # Otherwise an interrupt came before it was set.
            self._files.close(self.descriptor)


class HandleCache:
    """The most recently opened segments, by number."""

    def __init__(self, paths: StorePaths, files: Files, *, limit: int = 128) -> None:
        self._paths = paths
        self._files = files
        self._limit = limit
        self._closed = False
        self._open: dict[int, Handle] = {}
        self.known = self._open.get  # A handle that is open already, or None.

    def get(self, number: int) -> Handle:
        """Return a handle of a segment; FileNotFoundError if it is gone.

        Raises:
            ClosedError: the store was closed.
        """
        found = self._open.get(number)
        if found is not None:
            return found
        if self._closed:
            raise ClosedError(f"the store in {self._paths.root} was closed; open it again")
        path = self._paths.segment(number)
        return self.insert(number, Handle(self._files, self._files.open(path)))

    def insert(self, number: int, handle: Handle) -> Handle:
        """Add a handle, and drop the oldest one when there are too many."""
        self._open[number] = handle
        while len(self._open) > self._limit:
            self._open.pop(next(iter(self._open)), None)
        if self._closed:
            self._open.clear()
        return handle

    def unnamed(self) -> list[int]:
        """Return the open segments whose path names another file now, or none."""
        held = list(self._open.items())
        segment, named = self._paths.segment, self._files.named
        return [number for number, one in held if not named(one.descriptor, segment(number))]

    def remove(self, number: int) -> None:
        """Drop the handle of a segment that is being unlinked."""
        self._open.pop(number, None)

    def close(self) -> None:
        """Close every descriptor, each when its last read ends, and open none again."""
        self._closed = True  # First: a thread that opens one at this moment checks it afterwards.
        self._open.clear()
