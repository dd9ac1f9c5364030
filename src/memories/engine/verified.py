"""Which large frames were verified in full since the store was opened.

A map of a large value is verified at its first use only; small values are verified at every use,
since that costs less than to remember them.
"""

from __future__ import annotations

from memories.entry import Record

LARGE_BYTES = 1_000_000
MAX_REMEMBERED = 65_536


class Verified:
    """A bounded set of versions; what it has forgotten is simply verified again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, bytes], None] = {}

    def knows(self, record: Record) -> bool:
        """Return whether `add` was called for this version at this place."""
        return (record.key, record.version, record.place) in self._known

    def add(self, record: Record) -> None:
        """Remember a version that was read and verified."""
        if record.stored < LARGE_BYTES:
            return
        self._known[record.key, record.version, record.place] = None
        if len(self._known) > MAX_REMEMBERED:
            # Another thread may take out the same oldest one; either way one is gone.
            self._known.pop(next(iter(self._known)), None)
