"""What readers see while files are imported: the records of those files, over what the log says.

Such a record is pending: the log does not name it until its file has been copied, so a crash leaves
the store as it was before the import. Until then the records take RAM.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import attrgetter
from threading import RLock

import msgspec
from msgspec.structs import replace

from memories.backends.disk.index import Index, Table, merged
from memories.backends.disk.log_format import TOMBSTONE, IndexRow
from memories.backends.disk.run_table import RunDamagedError
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.errors import StorageError
from memories.model.record import Record

Rows = Callable[[str, str], Iterator[IndexRow]]

_key_of = attrgetter("record.key")
_version_of = attrgetter("record.version")


class StoreView:
    """All records as of one moment, while the store goes on changing.

    What it names stays readable while it is open.
    """

    def __init__(
        self, rows: Rows, accounting: SpaceAccounting, distrust_index: Callable[[], None]
    ) -> None:
        self._rows = rows
        self._distrust_index = distrust_index
        self.last_version = accounting.last_version
        self.keys = accounting.keys

    def __iter__(self) -> Iterator[Record]:
        return self.scan()

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield the records in key order.

        Raises:
            StorageError: the index was damaged. The log says what is there, and not what was.
        """
        try:
            for row in self._rows(prefix, after):
                yield row.record
        except RunDamagedError as error:
            self._distrust_index()
            raise StorageError(
                f"{error}; the index has been built again from the log: make this call again"
            ) from error


class OverlayIndex:
    """An index over another one: of a key's versions here and there, the highest counts.

    Readers take no lock. Changes are made under the writer's. `newest` finds a row of `index`; a
    writer's makes a damaged index anew.
    """

    def __init__(self, index: Index, lock: RLock, newest: Callable[[str], IndexRow | None]) -> None:
        self._index = index
        self._lock = lock
        self._newest = newest
        self._tables: tuple[Table, ...] = ()  # Of one file each, newest first.
        self.hidden_below = 0  # Versions below it are replaced, though the log does not say so yet.
        self.extra = 0  # How many keys are seen beyond those of the log.

    def over(self, index: Index) -> OverlayIndex:
        """Return the same records over another index, for a process that only reads."""
        other = OverlayIndex(index, RLock(), index.row)
        other._tables, other.hidden_below = self._tables, self.hidden_below
        return other

    @property
    def has_tables(self) -> bool:
        """Return whether a file is pending."""
        return bool(self._tables)

    # -- reading ---------------------------------------------------------------------------------

    def row(self, key: str) -> IndexRow | None:
        """Return the newest row of `key`, a tombstone too."""
        # The tables first: what is removed from them stands in the log already.
        return self._seen(self._pending(key), self._newest(key))

    def is_pending(self, key: str) -> bool:
        """Return whether what is seen of `key` would not survive a crash."""
        row = self._pending(key)
        return row is not None and self.row(key) is row

    def rows(self, prefix: str = "", after: str = "") -> Iterator[IndexRow]:
        """Yield the newest rows in key order, tombstones left out."""
        return self.frozen()(prefix, after)

    def described(self, after: str = "") -> Iterator[IndexRow]:
        """Yield the newest rows that have metadata and come after `after`, in key order."""
        if not self._tables:
            rows, below = self._index.described(after), self.hidden_below
            return (row for row in rows if row.record.version >= below)
        return (row for row in self.rows(after=after) if row.record.terms.metadata)

    def frozen(self) -> Rows:
        """Return `rows` as of now."""
        tables, below = [dict(table) for table in self._tables], self.hidden_below
        sources = [self._index.parts(), *(((table,), ()) for table in tables)]

        def rows(prefix: str, after: str) -> Iterator[IndexRow]:
            streams = [merged(parts, prefix, after, tombstones=True) for parts in sources]
            for _, same in groupby(heapq.merge(*streams, key=_key_of), key=_key_of):
                row = max(same, key=_version_of)  # Of two alike, the log's.
                if row.kind != TOMBSTONE and row.record.version >= below:
                    yield row

        return rows

    def expired(self, now: float) -> Iterator[IndexRow]:
        """Yield those rows of the log whose time had ended at `now`."""
        return (row for row in self._index.expired(now) if self.row(row.record.key) == row)

    def soonest(self) -> float | None:
        """Return a time before which no row of the log ends; None if none will."""
        return self._index.soonest()

    def _pending(self, key: str) -> IndexRow | None:
        for table in self._tables:
            row = table.get(key)
            if row is not None:
                return row
        return None

    def _seen(self, pending: IndexRow | None, logged: IndexRow | None) -> IndexRow | None:
        row = logged
        if pending is not None and (row is None or row.record.version < pending.record.version):
            row = pending
        return None if row is None or row.record.version < self.hidden_below else row

    # -- changing, under the writer's lock -------------------------------------------------------

    def add_table(self) -> Table:
        """Return an empty table for the records of one more file."""
        table: Table = {}
        self._tables = (table, *self._tables)
        return table

    def insert(self, table: Table, rows: list[IndexRow]) -> None:
        """Add `rows`, which are newer than any other row of their keys."""
        for row in rows:
            self.extra += 1 - _counts(self.row(row.record.key))
            table[row.record.key] = row

    def remove_table(self, table: Table) -> None:
        """Remove a table: the log holds all of its records by now, or newer ones."""
        self._tables = tuple(other for other in self._tables if other is not table)

    def recount(self, tables: list[Table], logged: int) -> None:
        """Replace the tables, and count again what is seen beyond the `logged` keys."""
        self._tables = tuple(reversed(tables))
        self.extra = sum(1 for _ in self.frozen()("", "")) - logged

    def close(self) -> None:
        """Drop every table, and the index below."""
        self._tables, self._index = (), Index()

    def amend(self, record: Record) -> bool:
        """Replace the terms of a pending version; return whether it is one. Takes the lock."""
        with self._lock:
            for table in self._tables:
                row = table.get(record.key)
                if row is not None and row.record.version == record.version:
                    if not self.is_pending(record.key):
                        break
                    changed = msgspec.structs.replace(row.record, terms=record.terms)
                    table[record.key] = replace(row, record=changed)
                    return True
            return False

    def count_commit(self, old: IndexRow | None, new: IndexRow) -> None:
        """Count a commit: the log has `new` for a key for which it had `old`."""
        pending = self._pending(new.record.key)
        seen = _counts(self._seen(pending, new)) - _counts(self._seen(pending, old))
        self.extra += seen - (_counts(new) - _counts(old))

    def hide_older(self, below: int) -> None:
        """Hide every version below this one; reads every row, to count those that are hidden.

        Takes the lock, but does not hold it while rows are read. Where the index is damaged, the
        versions are hidden, and have yet to be counted, by `recount`.
        """
        with self._lock:
            before, self.hidden_below = self.frozen(), below
        hidden = sum(row.record.version < below for row in before("", ""))
        with self._lock:
            self.extra -= hidden


def _counts(row: IndexRow | None) -> int:
    """Return whether a row stands for a key, as a number."""
    return int(row is not None and row.kind != TOMBSTONE)
