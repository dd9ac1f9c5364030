"""Open descriptors of write-once files, a bounded number of them.

A descriptor is closed when its last user lets go of it, never under a reader: a number that the
kernel hands out again would name another file.
"""

from __future__ import annotations

from pathlib import Path

from memories.backends.disk.files import Files


class Handle:
    """One open descriptor; closed with the object."""

    __slots__ = ("_files", "descriptor")

    def __init__(self, files: Files, descriptor: int) -> None:
        self._files = files
        self.descriptor = descriptor

    def __del__(self) -> None:
        self._files.close(self.descriptor)


class Handles:
    """The most recently opened files, by path."""

    def __init__(self, files: Files, *, limit: int = 128) -> None:
        self._files = files
        self._limit = limit
        self._open: dict[Path, Handle] = {}

    def get(self, path: Path) -> Handle:
        """Return a handle of `path`; FileNotFoundError if it is gone."""
        found = self._open.get(path)
        if found is not None:
            return found
        handle = Handle(self._files, self._files.open(path))
        return self.keep(path, handle)

    def keep(self, path: Path, handle: Handle) -> Handle:
        """Remember a handle, and forget the oldest when there are too many."""
        self._open[path] = handle
        while len(self._open) > self._limit:
            self._open.pop(next(iter(self._open)), None)
        return handle

    def forget(self, path: Path) -> None:
        """Drop the handle of a file that is being unlinked."""
        self._open.pop(path, None)

    def clear(self) -> None:
        """Drop every handle."""
        self._open.clear()
