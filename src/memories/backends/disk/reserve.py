"""A megabyte kept back, so that a removal can still be written when the disk is full.

It is given up at the first "no space left", and taken again at an opening that finds room for it.
"""

from __future__ import annotations

import errno
import os

from memories.backends.disk.files import Files
from memories.backends.disk.layout import Layout, write_whole

RESERVE_BYTES = 1 << 20
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class Reserve:
    """The file `RESERVE` of one store."""

    def __init__(self, layout: Layout, files: Files) -> None:
        self._path, self._layout, self._files = layout.reserve, layout, files
        self.bytes = layout.reserve.stat().st_size if layout.reserve.exists() else 0

    def take(self) -> None:
        """Fill the reserve, unless it is or there is little room."""
        status = os.statvfs(self._layout.root)
        if self.bytes < RESERVE_BYTES and status.f_bavail * status.f_frsize > 64 * RESERVE_BYTES:
            write_whole(self._files, self._path, bytes(RESERVE_BYTES))
            self.bytes = RESERVE_BYTES

    def give(self, error: OSError) -> bool:
        """Give the reserve up if `error` says that the disk is full; whether it was there."""
        if error.errno not in _FULL or not self.bytes:
            return False
        self._files.unlink(self._path)
        self.bytes = 0
        return True
