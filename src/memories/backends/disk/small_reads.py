"""Finds a key in the index of a writer and reads its frame from the log, in one call.

Most reads of small values end here. Whatever is unusual is left to `DiskBackend.lookup` and
`DiskBackend.read`, which look again and raise what has to be raised.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from memories.backends.disk.index import Index
from memories.backends.disk.log_format import INLINE, PLACE
from memories.backends.disk.run import RunDamagedError
from memories.model.record import Record

_unpack = PLACE.unpack
MOST_BYTES = 256 << 10  # A larger value is not worth it.


class SmallReads:
    """Reads by key; any thread, no lock."""

    def __init__(
        self, known: Callable[[int], Any], pread: Callable[[int, int, int], bytes]
    ) -> None:
        # What is seen, while it is the log's alone; None once another way must be taken.
        self.index: Index | None = None
        self._known = known  # Of a segment: its handle if it is open.
        self._pread = pread

    def find(self, key: str) -> tuple[Record, bytes] | None:
        """Return the record and the frame of `key`, None where another way must be taken.

        Raises:
            OSError: the frame cannot be read.
        """
        index = self.index
        if index is None:
            return None
        try:
            row = index.row(key)
            if row is None or row.kind != INLINE:
                return None
            record = row.record
            _, number, offset, length = _unpack(record.place)
        except (RunDamagedError, struct.error):
            return None
        if length > MOST_BYTES or offset >> 62:
            return None
        handle = self._known(number)  # It stays open as long as it is referred to.
        if handle is None:
            return None
        frame = self._pread(handle.descriptor, length, offset)
        if len(frame) != length:
            return None
        return record, frame
