"""Entries that came into a tier and that its eviction policy has not been shown yet.

While a tier is far from full no call needs their order, and many are replaced or removed
before one does. The policy is shown the others, oldest first, before its next decision.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, Final

from memories.model.entry import Entry
from memories.model.record import DEFAULT_TERMS, Terms

Arrived = tuple[Entry, int]  # An entry, and the stamp of its arrival.

DEFAULT: Final[Terms] = DEFAULT_TERMS
SPARE: Final = 256  # So many keys of entries that have left are not worth a pass over all.


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
        # Arrays of 64-bit integers.
        self._versions: Any = array("q")
        self._stamps: Any = array("q")
        self.count = 0

    def add_batch(self, came: Sequence[Arrived], may_leave: Callable[[Entry], bool]) -> list[Entry]:
        """Add those that `may_leave` the tier, and return them."""
        added: list[Entry] = []
        stamps: list[int] = []
        for entry, stamp in came:
            if entry.link is None and (entry.common.terms is DEFAULT or may_leave(entry)):
                entry.link = self
                added.append(entry)
                stamps.append(stamp)
        self._keys += [entry.key for entry in added]
        self._versions.extend([entry.version for entry in added])
        self._stamps.extend(stamps)
        self.count += len(added)
        self._changed = True
        return added

    def discard_batch(self, left: Sequence[Entry]) -> list[Entry]:
        """Remove those that are here, and return the others which a policy has."""
        others: list[Entry] = []
        for entry in left:
            if entry.link is self:
                entry.link = None
                self.count -= 1
            elif entry.link is not None:
                others.append(entry)
        self._changed = True
        if len(self._keys) > 2 * self.count + SPARE:
            self._compact()
        return others

    def take(self, most: int) -> list[Arrived]:
        """Remove the oldest, and return each with the stamp of its arrival."""
        taken: list[Arrived] = []
        at = 0
        for key in self._keys:
            entry = self._find(key)
            if entry is not None and entry.link is self and entry.version == self._versions[at]:
                taken.append((entry, self._stamps[at]))
            at += 1
            if len(taken) >= most:
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
        present: list[bool] = []
        versions: list[int] = self._versions.tolist()
        for key, version in zip(self._keys, versions, strict=True):
            entry = self._find(key)
            present.append(entry is not None and entry.link is self and entry.version == version)
        self._keys = list(compress(self._keys, present))
        self._versions = array("q", compress(self._versions, present))
        self._stamps = array("q", compress(self._stamps, present))
