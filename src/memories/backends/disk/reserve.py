"""Up to a megabyte kept back, so that a removal can still be written when the disk is full.

It is given up at the first "no space left", and taken again at an opening that finds room for it.
"""

from __future__ import annotations

import errno

from memories.backends.disk.files import Files, free_bytes
from memories.backends.disk.layout import Layout, write_whole

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class Reserve:
    """The file `RESERVE` of one store."""

    def __init__(self, layout: Layout, files: Files, size: int) -> None:
        self._size = size
        self._path, self._layout, self._files = layout.reserve, layout, files
        self.bytes = layout.reserve.stat().st_size if layout.reserve.exists() else 0

    def take(self) -> None:
        """Fill the reserve, unless it is or there is little room."""
        if self.bytes < self._size and free_bytes(self._layout.root) > 64 * self._size:
            write_whole(self._files, self._path, bytes(self._size))
            self.bytes = self._size

    def drop(self) -> None:
        """Give the reserve up: there is nothing that could be removed."""
        self._files.unlink(self._path)
        self.bytes = 0

    def give(self, error: OSError) -> bool:
        """Give the reserve up if `error` says that the disk is full; whether it was there."""
        if error.errno not in _FULL or not self.bytes:
            return False
        self._files.unlink(self._path)
        self.bytes = 0
        return True
