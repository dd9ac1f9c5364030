"""Makes entries of the frames of small values in cold, many at once.

Most of them are `bytes`, texts or arrays of numbers, whose frames are verified, decoded and entered
in one compiled loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from numpy import ndarray

from memories.engine.hit_counter import HitCounter
from memories.foundation.host_limits import ENTRY_BYTES
from memories.frames.single_buffer import open_single
from memories.model.entry import ArrayEntry, Common, Entry, SharedEntry
from memories.model.record import DEFAULT_TERMS, Record, Terms

# Names of this module, which compiled code finds without a look-up.
_ARRAY: Final = ndarray
_DEFAULT: Final[Terms] = DEFAULT_TERMS
_ENTRY: Final[int] = ENTRY_BYTES
_size_of: Final[Callable[[Any], int]] = sys.getsizeof


def entries_of(
    values: Iterable[tuple[Record, bytes]],
    common: Common,
    counter: HitCounter,
    general: Callable[[Record, bytes], Entry | None],
) -> list[Entry]:
    """Return entries around the values of frames, without those that a single read must read.

    Those of ordinary values have this `common`. All others are made by `general`.
    """
    entries: list[Entry] = []
    for record, frame in values:
        entry: Entry | None = None
        if record.terms is _DEFAULT:
            key: str = record.key
            value: Any = open_single(frame, key)
            if type(value) is bytes or type(value) is str:
                size = _size_of(value) + _ENTRY
                entry = SharedEntry(
                    key, record.version, value, size, record.stored_at, common, counter.stamp()
                )
            elif type(value) is _ARRAY:  # Read-only, in memory of its own.
                size = value.nbytes + _ENTRY
                entry = ArrayEntry(
                    key, record.version, value, size, record.stored_at, common, counter.stamp()
                )
        if entry is None:
            entry = general(record, frame)
        if entry is not None:
            entries.append(entry)
    return entries
