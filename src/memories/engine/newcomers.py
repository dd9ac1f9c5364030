"""Entries that came into a tier and that its eviction policy has not been shown yet.

While a tier is far from full no call needs their order, and many are replaced or removed
before one does. The policy is shown the others, oldest first, before its next decision.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import compress

from memories.model.entry import Entry

SPARE = 256  # So many keys of entries that have left are not worth a pass over all.


class Newcomers:
    """The entries of one tier that wait for its policy, in the order in which they came.

    The `link` of each is this object. They are held by key, version and stamp, so that the memory
    of one that has left is free. The caller serialises all calls.

    Args:
        find: Returns the present entry of a key.
    """

    __slots__ = ("_changed", "_find", "_keys", "_stamps", "_versions", "count")

    def __init__(self, find: Callable[[str], Entry | None]) -> None:
        self._find = find
        self._changed = False  # Since the latest `tidy`.
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._keys: list[str] = []
        self._versions, self._stamps = array("q"), array("q")
        self.count = 0

    def add(self, entry: Entry, stamp: int) -> None:
        """Add an entry that came at `stamp`."""
        self._keys.append(entry.key)
        self._versions.append(entry.version)
        self._stamps.append(stamp)
        entry.link = self
        self.count += 1
        self._changed = True

    def discard(self, entry: Entry) -> None:
        """Remove an entry that leaves."""
        entry.link = None
        self.count -= 1
        self._changed = True
        if len(self._keys) > 2 * self.count + SPARE:
            self._compact()

    def take(self, most: int) -> list[tuple[Entry, int]]:
        """Remove the oldest, and return each with the stamp of its arrival."""
        taken: list[tuple[Entry, int]] = []
        at = 0
        for at, (key, version) in enumerate(zip(self._keys, self._versions, strict=True), 1):
            entry = self._find(key)
            if entry is not None and entry.link is self and entry.version == version:
                taken.append((entry, self._stamps[at - 1]))
                if len(taken) == most:
                    break
        for entry, _ in taken:
            entry.link = None
        self.count -= len(taken)
        del self._keys[:at], self._versions[:at], self._stamps[:at]
        return taken

    def tidy(self) -> None:
        """Drop what is kept of entries that have left, if nothing has changed for a while."""
        if not self._changed and len(self._keys) > self.count:
            self._compact()
        self._changed = False

    def _compact(self) -> None:
        """Drop what stands for entries that have left."""
        present = list[bool]()
        for key, version in zip(self._keys, self._versions, strict=True):
            entry = self._find(key)
            present.append(entry is not None and entry.link is self and entry.version == version)
        self._keys = list(compress(self._keys, present))
        self._versions = array("q", compress(self._versions, present))
        self._stamps = array("q", compress(self._stamps, present))
