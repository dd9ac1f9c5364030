"""The bucket's map on this machine, and the small values on their way there: one SQLite file.

Nothing in it is worth losing but what is staged: the rest is read from the bucket again.
One transaction moves everything that changes together, so a killed process leaves no half.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memories.errors import StorageError

DEAD, LIVE, TOMBSTONE = 0, 1, 2
FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (
    token BLOB PRIMARY KEY,
    sequence INTEGER NOT NULL,
    size INTEGER NOT NULL,      -- Bytes on the medium; 0 while it is staged.
    live INTEGER NOT NULL,      -- Bytes of live frames.
    status TEXT NOT NULL,       -- open, sealed, intended, there, retired
    retired_at REAL,            -- When its last frame died, in seconds of the wall clock.
    manifest BLOB               -- The manifest that covers it.
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    key BLOB NOT NULL,
    version INTEGER NOT NULL,
    token BLOB NOT NULL,
    state INTEGER NOT NULL,
    length INTEGER NOT NULL,
    record BLOB,
    PRIMARY KEY (key, version, token)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_by_object ON entry (token);
CREATE TABLE IF NOT EXISTS staged (
    token BLOB NOT NULL,
    offset INTEGER NOT NULL,
    frame BLOB NOT NULL,
    PRIMARY KEY (token, offset)
);
"""

_inherited: list[sqlite3.Connection] = []


def _abandon(state: State | None) -> None:
    if state is not None:
        _inherited.append(state._db)


class State:
    """A SQLite file, used by one process through one connection and one lock."""

    def __init__(self, path: Path, *, full: bool = False, disposable: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            sync = "OFF" if disposable else "FULL" if full else "NORMAL"
            self._db.executescript(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous={sync}; "
                "PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-2000;" + _SCHEMA
            )
            path.chmod(0o600)
        # SQLite must not be touched in a forked child, not even to close it.
        handle = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _abandon(handle()))

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """Hold the lock; commit everything at the end, or nothing if an exception leaves."""
        with self._lock, self._translated():
            if self._db.in_transaction:  # A part of the caller's transaction.
                yield self
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def run(self, statement: str, *values: Any) -> int:
        """Execute a statement and return how many rows it changed."""
        with self._lock, self._translated():
            return self._db.execute(statement, values).rowcount

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement for each row."""
        with self._lock, self._translated():
            self._db.executemany(statement, rows)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, self._translated():
            return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        with self._lock, self._translated():
            found: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
            return found

    def get(self, name: str, default: Any) -> Any:
        """Return a named value."""
        found = self.row("SELECT value FROM meta WHERE name = ?", name)
        return default if found is None else found[0]

    def set(self, name: str, value: Any) -> None:
        """Keep a named value."""
        self.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    def add(self, name: str, amount: int) -> None:
        """Add to a named number."""
        self.set(name, self.get(name, 0) + amount)

    def checkpoint(self) -> None:
        """Return once everything committed survives a power cut."""
        self.run("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._translated():
            self._db.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"The archive's index {self.path} failed: {error}. Check the disk; when the file is "
                "damaged, remove it: it is read from the bucket again."
            ) from error
