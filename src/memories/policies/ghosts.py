"""The keys that left lately, by their digests, in a fixed table of numbers.

Not a set: a key may be lost when two others claim its slots, and is then merely not a ghost. The
idea: twelve bytes a slot, two slots a ghost, and a ghost is too old when enough others came after.
"""

from __future__ import annotations

from array import array

_SPREAD = 0x9E3779B97F4A7C15  # The golden ratio: other bits choose the second slot.
_MASK64 = (1 << 64) - 1


class Ghosts:
    """Remembers about the latest `span` digests added, each with a small number.

    `span` is given at every call, since it follows the number of nodes; the table doubles with it.
    """

    __slots__ = ("_digests", "_notes", "_shift", "_size", "_times", "added")

    def __init__(self) -> None:
        self.added = 0
        self._allocate(64)

    def _allocate(self, size: int) -> None:
        self._size = size
        self._shift = 64 - (size.bit_length() - 1)
        self._digests = array("Q", bytes(8 * size))
        self._times = array("I", bytes(4 * size))
        self._notes = array("B", bytes(size))

    def add(self, digest: int, span: int, note: int = 0) -> None:
        """Remember `digest`, with a `note` of 0 to 255, for the next `span` additions."""
        if 2 * span > self._size:
            self._grow(span)
        self.added += 1
        self._place(digest, self.added, note)

    def has(self, digest: int, span: int) -> bool:
        """Return whether `digest` is a ghost."""
        slot = self._find(digest)
        return slot is not None and self._age(self._times[slot]) < span

    def take(self, digest: int, span: int) -> int | None:
        """Forget `digest` and return its note, or None if it is no ghost."""
        slot = self._find(digest)
        if slot is None:
            return None
        age = self._age(self._times[slot])
        self._times[slot] = 0
        return self._notes[slot] if age < span else None

    def _find(self, digest: int) -> int | None:
        for slot in self._slots(digest):
            if self._times[slot] and self._digests[slot] == digest:
                return slot
        return None

    def _slots(self, digest: int) -> tuple[int, int]:
        return digest & (self._size - 1), (digest * _SPREAD & _MASK64) >> self._shift

    def _age(self, time: int) -> int:
        return (self.added - time) & 0xFFFFFFFF

    def _place(self, digest: int, added: int, note: int) -> None:
        """Put a ghost where it lies already, or into the freer or older one of its two slots."""
        slot = self._find(digest)
        if slot is None:
            slot = max(self._slots(digest), key=self._staleness)
        self._digests[slot] = digest
        self._times[slot] = (added & 0xFFFFFFFF) or 1
        self._notes[slot] = note

    def _staleness(self, slot: int) -> int:
        time = self._times[slot]
        return self._age(time) if time else 1 << 32

    def _grow(self, span: int) -> None:
        old = zip(self._digests, self._times, self._notes, strict=True)
        self._allocate(1 << (2 * span).bit_length())
        for digest, time, note in old:
            if time and self._age(time) < span:
                self._place(digest, time, note)

    def check(self) -> None:
        """Assert that no digest lies in two places at once."""
        live = [d for d, time in zip(self._digests, self._times, strict=True) if time]
        assert len(live) == len(set(live))
        assert all(
            slot in self._slots(d) for slot, d in enumerate(self._digests) if self._times[slot]
        )
