"""The index: key to row, as a small table in RAM over sorted runs on disk.

The index can always be rebuilt from the log. Readers take no lock: they work on one tuple of parts,
which a change replaces.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, itemgetter

from memories.backends.disk.log_format import TOMBSTONE, IndexRow
from memories.backends.disk.run import Run
from memories.backends.disk.run_table import newest_row
from memories.foundation.deadlines import Deadlines

Table = dict[str, IndexRow]
_key_of = attrgetter("record.key")  # Strings are ordered as their UTF-8 bytes are.


class FrozenTable(Table):
    """A table that does not change any more, whose keys are put into their order once."""

    __slots__ = ("_ordered", "_prefix")

    def __init__(self, rows: Table) -> None:
        super().__init__(rows)
        self._prefix: str | None = None
        self._ordered: list[str] = []

    def ordered(self, prefix: str) -> list[str]:
        """Return the keys that start with `prefix`, in order."""
        if self._prefix != prefix:
            self._ordered = sorted(key for key in self if key.startswith(prefix))
            self._prefix = prefix
        return self._ordered


class Index:
    """The newest row of each key. One thread at a time changes it."""

    def __init__(self, runs: tuple[Run, ...] = ()) -> None:
        # Tables in RAM and runs, newest first: every change is one assignment. `SmallReads` looks
        # into them, too.
        self.state: tuple[tuple[Table, ...], tuple[Run, ...]] = (({},), runs)
        self._deadlines = Deadlines(self._ends)  # Of the rows in RAM ...
        self._dated: tuple[Table, ...] = self.state[0]  # ... which were those of these tables.
        self._handled: dict[int, int] = {}  # Per run: how many rows have expired and are replaced.

    @property
    def recent(self) -> Table:
        """The rows that were put since the latest `freeze`."""
        return self.state[0][0]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables in RAM, newest first."""
        return self.state[0]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs on disk, newest first."""
        return self.state[1]

    def row(self, key: str) -> IndexRow | None:
        """Return the newest row of `key`, a tombstone too."""
        tables, runs = self.state
        return newest_row(tables, runs, key)

    def put(self, row: IndexRow) -> None:
        """Make `row` the newest of its key."""
        recent = self.state[0][0]
        old = recent.get(row.record.key)
        recent[row.record.key] = row
        if old is not None and old.record.terms.expires_at is not None:
            self._deadlines.mark_stale()
        if row.record.terms.expires_at is not None:
            self._deadlines.add(row.record.key, row.record.terms.expires_at)

    def put_all(self, rows: Sequence[IndexRow]) -> None:
        """Make each of `rows`, whose keys differ, the newest of its key."""
        if self._deadlines or any(row.record.terms.expires_at is not None for row in rows):
            for row in rows:
                self.put(row)
        else:
            self.recent.update({row.record.key: row for row in rows})

    def freeze(self) -> Table:
        """Begin a new table, and return the one before, to be written as a run."""
        frozen = self.recent
        self.state = (({}, *self.tables), self.runs)
        return frozen

    def thaw(self) -> None:
        """Merge the frozen rows back: they could not be written."""
        merged: Table = {}
        for table in reversed(self.tables):
            merged.update(table)
        self.state = ((merged,), self.runs)

    def add_run(self, run: Run | None, *, alone: bool = False) -> None:
        """Put `run` in the place of the frozen rows; `alone`, of those of all runs as well."""
        others = () if alone else self.runs
        runs = others if run is None else (run, *others)
        self.state = ((self.recent,), runs)

    def replace(self, old: tuple[Run, ...], new: tuple[Run, ...]) -> None:
        """Put the merged run(s) in the place of those they were merged from."""
        at = self.runs.index(old[0])
        runs = (*self.runs[:at], *new, *self.runs[at + len(old) :])
        self.state = (self.tables, runs)

    def parts(self) -> tuple[tuple[Table, ...], tuple[Run, ...]]:
        """Return the parts for an iteration as of now: the tables in RAM are copied."""
        tables, runs = self.state
        return tuple(FrozenTable(table) for table in tables), runs

    def rows(self, prefix: str = "", after: str = "") -> Iterator[IndexRow]:
        """Yield the newest rows in key order, tombstones left out."""
        return merged(self.parts(), prefix, after)

    def described(self, after: str = "") -> Iterator[IndexRow]:
        """Yield the newest rows that have metadata and come after `after`, in key order.

        What has none costs almost nothing. A key that changes meanwhile may or may not be seen.
        """
        tables, runs = self.state
        looks: list[Callable[[str], IndexRow | None]] = [table.get for table in tables]
        looks += [run.row for run in runs]
        sources = [_numbered(at, _described_in(table, after)) for at, table in enumerate(tables)]
        sources += [_numbered(at, run.described(after)) for at, run in enumerate(runs, len(tables))]
        latest = None
        for key, at, row in heapq.merge(*sources, key=itemgetter(0, 1)):
            if key == latest:
                continue
            latest = key
            if all(newer(key) is None for newer in looks[:at]):
                yield row

    def frozen(self) -> Callable[[str, str], Iterator[IndexRow]]:
        """Return `rows` as of now."""
        return partial(merged, self.parts())

    def expired(self, now: float) -> Iterator[IndexRow]:
        """Yield the rows whose time had ended at `now`; costs nothing for the others."""
        self._update_deadlines()
        for key in self._deadlines.due(now):
            row = self.row(key)
            if row is not None:
                yield row
        for run in self.runs:
            yield from self._expired_in(run, now)

    def soonest(self) -> float | None:
        """Return a time before which no row ends; None if none will."""
        self._update_deadlines()
        known = [run.ends(self._handled.get(run.number, 0)) for run in self.runs]
        known.append(self._deadlines.soonest())
        return min((ends for ends in known if ends is not None), default=None)

    def _expired_in(self, run: Run, now: float) -> Iterator[IndexRow]:
        """Yield the rows of a run that have expired; replaced ones are not read again."""
        at = handled = self._handled.get(run.number, 0)
        for row in run.expired(now, at):
            at += 1
            if self.row(row.record.key) == row:
                yield row
            elif handled == at - 1:
                self._handled[run.number] = handled = at

    def _update_deadlines(self) -> None:
        """Update the deadlines of the rows in RAM after tables were added or removed."""
        tables = self.tables
        if tables is self._dated:
            return
        self._deadlines.rebuild(
            lambda: (
                (row.record.key, row.record.terms.expires_at)
                for table in tables
                for row in list(table.values())
                if row.record.terms.expires_at is not None
            )
        )
        numbers = {run.number for run in self.runs}
        self._handled = {n: at for n, at in self._handled.items() if n in numbers}
        self._dated = tables

    def _ends(self, key: str) -> float | None:
        row = self.row(key)
        return None if row is None or row.kind == TOMBSTONE else row.record.terms.expires_at

    def update_from(self, other: Index) -> None:
        """Take over the parts of `other`."""
        self.state = other.state

    def close(self) -> None:
        """Drop every row; each run is unmapped when its last reader ends."""
        self.state = (({},), ())


def merged(
    parts: tuple[tuple[Table, ...], tuple[Run, ...]],
    prefix: str = "",
    after: str = "",
    *,
    tombstones: bool = False,
) -> Iterator[IndexRow]:
    """Yield the newest row of each key that starts with `prefix` and comes after `after`."""
    tables, runs = parts
    sources = [_rows_in(table, prefix, after) for table in tables if table]
    sources += [run.rows(prefix, after) for run in runs]
    if len(sources) < 2:
        for row in chain(*sources):
            if tombstones or row.kind != TOMBSTONE:
                yield row
        return
    latest = None
    for row in heapq.merge(*sources, key=_key_of):
        # Equal keys come in the order of the sources, so the newest is first.
        if row.record.key == latest:
            continue
        latest = row.record.key
        if tombstones or row.kind != TOMBSTONE:
            yield row


def _numbered(at: int, rows: Iterator[IndexRow]) -> Iterator[tuple[str, int, IndexRow]]:
    """Yield rows with their keys and the number of their source."""
    for row in rows:
        yield row.record.key, at, row


def _described_in(table: Table, after: str) -> Iterator[IndexRow]:
    """Yield the rows of a table that have metadata, in key order."""
    found = [row for row in list(table.values()) if row.record.terms.metadata]
    return iter(sorted((row for row in found if row.record.key > after), key=_key_of))


def _rows_in(table: Table, prefix: str, after: str) -> Iterator[IndexRow]:
    """Yield rows in key order."""
    if isinstance(table, FrozenTable):
        keys = table.ordered(prefix)
        start = bisect_right(keys, after) if after else 0
    else:
        keys = sorted(key for key in table if key.startswith(prefix) and key > after)
        start = 0
    for at in range(start, len(keys)):
        yield table[keys[at]]
