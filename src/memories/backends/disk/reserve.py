"""Room on the disk that is really taken, so that others cannot: for removals and upkeep.

What a log keeps free for its copies is free for everybody, and where others fill the disk it is
gone: then nothing could be removed, and nothing given back. So a file holds that room, as much as
suits the log, where there is plenty. It is given up at the first "no space left".
"""

from __future__ import annotations

from memories.backends.disk.files import NO_SPACE, Files
from memories.backends.disk.paths import StorePaths

PLENTY = 8  # A disk has that if it has room for so many of them.
LOG_SHARE = 8  # The reserve of a small log is an eighth of it.


class Reserve:
    """The file `RESERVE` of one store."""

    def __init__(self, layout: StorePaths, files: Files, least: int, most: int) -> None:
        self._least, self._most = least, most
        self._path, self._layout, self._files = layout.reserve, layout, files
        self.bytes = layout.reserve.stat().st_size if layout.reserve.exists() else 0

    def take(self, log_bytes: int, free: int) -> None:
        """Take as much as suits a log of that length, unless it is held or there is little room."""
        wanted = min(self._most, max(self._least, log_bytes // LOG_SHARE))
        if self.bytes >= wanted // 2 or free < PLENTY * wanted:
            return
        self.drop()
        descriptor = self._files.create(self._path)
        try:
            self._files.allocate(descriptor, wanted)
            self.bytes = wanted
        except BaseException:
            self.drop()
            raise
        finally:
            self._files.close(descriptor)

    def give(self, error: OSError) -> bool:
        """Give the reserve up if `error` says that the disk is full; whether it was there."""
        if error.errno not in NO_SPACE or not self.bytes:
            return False
        self.drop()
        return True

    def drop(self) -> None:
        """Give the reserve up: it is replaced, or there is nothing that could be removed."""
        self._files.unlink(self._path)
        self.bytes = 0
