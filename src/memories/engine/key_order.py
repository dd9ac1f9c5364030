"""Orders the keys in RAM, from the first question on that needs their order.

Keys lie in short sorted lists, none of which is changed once a snapshot has it: a copy takes its
place. So a snapshot is a copy of the list of lists, and is read without a lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

from memories.engine.entry_table import EntryTable
from memories.foundation.fork_lock import new_lock
from memories.foundation.keys import INTERNAL

CHUNK_KEYS = 256  # A list is split when it is twice as long.
UNASKED = 16_384  # After so many changes, and twice as many as keys, the order is given up.
_first_of = itemgetter(0)
Chunks = list[list[str]]


class KeyOrder:
    """The order of the keys of an entry table, which the caller keeps up to date by `update`.

    Args:
        unreported: The keys that have changed, and of which `update` has not been called yet.
    """

    def __init__(self, table: EntryTable) -> None:
        self.unreported: Callable[[], Iterable[str]] = tuple
        self._table = table
        self._chunks: Chunks | None = None
        self._pending: set[str] | None = None  # Keys that change while the order is being made.
        self._own: set[int] = set()  # The lists that were made since the latest snapshot.
        self._resets = 0
        self._unasked = 0  # Changes since the order was asked for.
        self._making = new_lock()

    @property
    def in_use(self) -> bool:
        """Return whether `update` must be called."""
        return self._chunks is not None or self._pending is not None

    def update(self, keys: Iterable[str]) -> None:
        """Take note that each of `keys` has, or has no, entry now. The caller has the lock."""
        if self._pending is not None:
            self._pending.update(keys)
        chunks = self._chunks
        if chunks is None:
            return
        entries = self._table.entries
        for key in keys:
            if key[0] != INTERNAL:
                self._set(chunks, key, key in entries)
                self._unasked += 1
        if self._unasked > UNASKED and self._unasked > 2 * len(entries):
            self._chunks = None

    def reset(self) -> None:
        """Forget the order: it may be wrong after an interrupt. The caller has the lock."""
        self._chunks = None
        self._resets += 1

    def snapshot(self) -> Snapshot:
        """Return the keys as they are now."""
        made = self._known()
        if made is not None:
            return made
        with self._making:
            while True:
                made = self._known()
                if made is not None:
                    return made
                try:
                    self._make()
                finally:
                    self._pending = None

    def _known(self) -> Snapshot | None:
        with self._table.lock:
            self._unasked = 0
            if self._chunks is not None:
                self.update(self.unreported())
            self._own.clear()
            return None if self._chunks is None else Snapshot(list(self._chunks))

    def _make(self) -> None:
        """Order the keys; other threads may change them meanwhile."""
        with self._table.lock:
            resets = self._resets
            pending = self._pending = set[str]()
            keys = list(self._table.entries)
        ordered = sorted(key for key in keys if key[0] != INTERNAL)
        chunks = [ordered[at : at + CHUNK_KEYS] for at in range(0, len(ordered), CHUNK_KEYS)]
        with self._table.lock:
            # A signal handler may have asked in this thread, and made the order meanwhile.
            if resets == self._resets and self._pending is pending:
                self._chunks, self._pending = chunks, None
                self._own = {id(chunk) for chunk in chunks}
                self.update(pending)

    def _set(self, chunks: Chunks, key: str, present: bool) -> None:
        """Put a key into the lists, or take it out of them."""
        if not chunks:
            chunks.append([])
        index = max(0, bisect_right(chunks, key, 1, key=_first_of) - 1)
        chunk = chunks[index]
        at = bisect_left(chunk, key)
        known = at < len(chunk) and chunk[at] == key
        if known == present:
            return
        if id(chunk) not in self._own:
            chunk = chunks[index] = chunk.copy()
            self._own.add(id(chunk))
        if present:
            chunk.insert(at, key)
        else:
            del chunk[at]
        if len(chunk) >= 2 * CHUNK_KEYS:
            more = chunk[CHUNK_KEYS:]
            chunks[index : index + 1] = chunk[:CHUNK_KEYS], more
            self._own |= {id(chunks[index]), id(more)}
        elif not chunk and len(chunks) > 1:
            del chunks[index]


class Snapshot:
    """Ordered keys as of one moment."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def keys(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and come after `after`, in order."""
        chunks = self._chunks
        least = max(prefix, after)
        if not chunks:
            return
        index = max(0, bisect_right(chunks, least, 1, key=_first_of) - 1)
        at = (bisect_right if least == after else bisect_left)(chunks[index], least)
        for chunk in chunks[index:]:
            for key in chunk[at:]:
                if not key.startswith(prefix):
                    return
                yield key
            at = 0
