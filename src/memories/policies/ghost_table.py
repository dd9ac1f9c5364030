"""Ghosts: the hashes of keys that were evicted recently, in a table of 13 bytes per slot.

A ghost expires when `span` others were added after it. A hash has two possible slots; when later
ghosts need both of them, it is overwritten, and the policy treats its key as a new one.
"""

from __future__ import annotations

from array import array

_LEAST = 64  # Slots of the smallest table.
_SPREAD = 0x9E3779B97F4A7C15  # The golden ratio: other bits choose the second slot.
_MASK64 = (1 << 64) - 1
_MASK32 = (1 << 32) - 1


class GhostTable:
    """Remembers about the latest `span` digests added, each with a small number.

    `span` is an argument of every call, since it follows the number of nodes. A table that has
    become too small, or far too large, is kept beside a new one until its ghosts have expired, so
    that no call rebuilds it.
    """

    __slots__ = ("_added", "_older", "_older_until", "_table")

    def __init__(self) -> None:
        self._added = 0
        self._table = _SlotTable(_LEAST)
        self._older: _SlotTable | None = None
        self._older_until = 0

    @property
    def used(self) -> bool:
        """Whether anything was ever added."""
        return self._added > 0

    def add(self, digest: int, span: int, note: int = 0) -> None:
        """Remember `digest`, with a `note` of 0 to 255, for the next `span` additions."""
        if 2 * span > self._table.size or self._oversized(span):
            self._older, self._older_until = self._table, self._added + span
            self._table = _SlotTable(max(_LEAST, 1 << (2 * span).bit_length()))
        elif self._added > self._older_until:
            self._older = None
        self._added += 1
        self._table.place(digest, self._added, note)

    def has(self, digest: int, span: int) -> bool:
        """Return whether `digest` is a ghost."""
        return self._look(digest, span, forget=False) is not None

    def take(self, digest: int, span: int) -> int | None:
        """Remove `digest` and return its note, or None if it is not a ghost."""
        return self._look(digest, span, forget=True)

    def drop(self, digest: int, span: int) -> None:
        """Remove `digest`, whose key was deleted; shrink a table that is far too large."""
        self._look(digest, span, forget=True)
        if self._oversized(span):
            self._table, self._older = _SlotTable(max(_LEAST, 1 << (2 * span).bit_length())), None

    def _oversized(self, span: int) -> bool:
        return self._table.size > max(_LEAST, 32 * span)

    def _look(self, digest: int, span: int, *, forget: bool) -> int | None:
        note = None
        if not self._added:
            return None
        for table in (self._older, self._table):
            slot = None if table is None else table.find(digest)
            if table is None or slot is None:
                continue
            if (self._added - table.times[slot]) & _MASK32 < span:
                note = table.notes[slot]
            if forget:
                table.times[slot] = 0
        return note

    def check(self) -> None:
        """Assert that no digest is in two slots of a table."""
        for table in (self._older, self._table):
            if table is not None:
                table.check()


class _SlotTable:
    """Slots, a power of two; a digest is in one of its two slots, or in none."""

    __slots__ = ("_shift", "digests", "notes", "size", "times")

    def __init__(self, size: int) -> None:
        self.size = size
        self._shift = 64 - (size.bit_length() - 1)
        self.digests = array("Q", bytes(8 * size))
        self.times = array("I", bytes(4 * size))  # The number of the addition; 0 is free.
        self.notes = array("B", bytes(size))

    def find(self, digest: int) -> int | None:
        for slot in self._slots(digest):
            if self.times[slot] and self.digests[slot] == digest:
                return slot
        return None

    def place(self, digest: int, added: int, note: int) -> None:
        """Put a ghost into its present slot, or into the free or older one of its two slots."""
        slot = self.find(digest)
        if slot is None:
            one, two = self._slots(digest)
            slot = one if self._staleness(one, added) >= self._staleness(two, added) else two
        self.digests[slot] = digest
        self.times[slot] = (added & _MASK32) or 1
        self.notes[slot] = note

    def _slots(self, digest: int) -> tuple[int, int]:
        return digest & (self.size - 1), (digest * _SPREAD & _MASK64) >> self._shift

    def _staleness(self, slot: int, added: int) -> int:
        time = self.times[slot]
        return (added - time) & _MASK32 if time else 1 << 32

    def check(self) -> None:
        live = [d for d, time in zip(self.digests, self.times, strict=True) if time]
        assert len(live) == len(set(live))
        assert all(
            slot in self._slots(d) for slot, d in enumerate(self.digests) if self.times[slot]
        )
