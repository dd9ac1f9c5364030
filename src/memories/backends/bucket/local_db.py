"""The map of the bucket on this machine, and the staged values: one SQLite file.

Only the staged values are worth anything: the rest is read from the bucket again. One transaction
changes all that belongs together, so a killed process leaves no half of it.
"""

from __future__ import annotations

import secrets
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from memories.backends.bucket.cells import Cells
from memories.backends.bucket.seal import ArchiveSeal
from memories.errors import StorageError
from memories.foundation.fork_lock import holder_test, new_lock
from memories.foundation.forks import after_fork
from memories.foundation.regular_file import require_regular

DEAD, LIVE, TOMBSTONE, LINK = 0, 1, 2, 3
WAL_BYTES = 16 << 20
_PAGE_BYTES = 4096

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (
    token BLOB PRIMARY KEY,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    size INTEGER NOT NULL,      -- Bytes on the medium, or staged so far.
    live INTEGER NOT NULL,      -- Bytes of live frames.
    status TEXT NOT NULL,       -- intended, failed (alone), open, sealed (packs); there, leaving
    created_at REAL NOT NULL,   -- In seconds of the wall clock.
    retired_at REAL,            -- When its last frame died; NULL while one is live.
    manifest BLOB               -- The manifest that covers it.
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS object_by_manifest ON object (manifest);
CREATE INDEX IF NOT EXISTS object_on_its_way ON object (status) WHERE status != 'there';
CREATE TABLE IF NOT EXISTS entry (
    key BLOB NOT NULL,          -- Empty in the tombstone of everything up to `version`.
    version INTEGER NOT NULL,
    token BLOB NOT NULL,        -- Of the object that holds it, or says so of another (a link).
    state INTEGER NOT NULL,
    length INTEGER NOT NULL,
    record BLOB,                -- NULL unless live or a link.
    PRIMARY KEY (key, version, token)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_by_object ON entry (token);
CREATE INDEX IF NOT EXISTS tombstone ON entry (key) WHERE state = 2;
CREATE TABLE IF NOT EXISTS staged (
    token BLOB NOT NULL,
    offset INTEGER NOT NULL,
    frame BLOB NOT NULL,
    PRIMARY KEY (token, offset)
);
CREATE TABLE IF NOT EXISTS prepared (
    key BLOB NOT NULL,
    version INTEGER NOT NULL,
    what TEXT NOT NULL,         -- alone, packed, linked, removed
    token BLOB NOT NULL,        -- Of the object that holds its frame; empty for a removal.
    record BLOB,                -- NULL for a removal.
    PRIMARY KEY (key, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pin (
    holder TEXT NOT NULL,
    token BLOB NOT NULL,
    PRIMARY KEY (holder, token)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pin_by_object ON pin (token);
CREATE TABLE IF NOT EXISTS damage (
    name TEXT PRIMARY KEY,      -- Of an object that could not be read.
    what TEXT NOT NULL,
    aside INTEGER NOT NULL      -- Whether it is not read again.
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS data_key (
    header BLOB NOT NULL        -- What the bucket of an encrypted archive holds as `keys/1`.
);
"""

# What a column of a table or a query holds. SQLite itself holds no column to its type, and the file
# may be forged.
_INTEGERS = (
    *("epoch", "sequence", "size", "live", "version", "state", "length", "offset", "aside"),
    *("highest", "live_sum", "size_sum"),
)
_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(_INTEGERS, frozenset((int,))),
    **dict.fromkeys(("token", "key", "frame", "header"), frozenset((bytes,))),
    **dict.fromkeys(("manifest", "record"), frozenset((bytes, NoneType))),
    **dict.fromkeys(("name", "status", "what", "holder"), frozenset((str,))),
    "created_at": frozenset((float,)),
    **dict.fromkeys(("retired_at", "oldest"), frozenset((float, NoneType))),
}

_LEAST = {"version": 0, "length": -2}  # Of a row that has no frame it is negative.

# What the module raises: also where the message about a damaged schema is not text.
ERRORS = (sqlite3.Error, OverflowError, UnicodeDecodeError)

# SQLite must not be touched in a forked child, not even to close what the parent opened.
_inherited: list[sqlite3.Connection] = []


class LocalDb:
    """A SQLite file, used by one process through one connection and one lock.

    `numbers` are few and always in RAM; changes to them are part of the transaction.

    Attributes:
        encrypted: Whether the archive is encrypted;
        seal: if so, what encrypts and decrypts its objects, once that is known.
        cells: How keys, records and texts lie here.
    """

    def __init__(
        self,
        path: Path,
        *,
        full: bool = False,
        disposable: bool = False,
        wal_bytes: int = WAL_BYTES,
    ) -> None:
        self.path = path
        self.encrypted = False
        self.seal: ArchiveSeal | None = None
        self.cells = Cells()
        self._lock = new_lock()
        self._is_held_here = holder_test(self._lock)
        self._meta: dict[str, Any] = {}
        self._changed: set[str] = set()  # Names of numbers that the file may not have yet.
        require_own_files(path)
        path.touch(mode=0o600)
        sync = "OFF" if disposable else "FULL" if full else "NORMAL"
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.executescript(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous={sync}; "
                f"PRAGMA wal_autocheckpoint={max(16, wal_bytes // _PAGE_BYTES)}; "
                "PRAGMA cache_size=-4000;" + _SCHEMA
            )
            self._load()
        except ERRORS as error:
            raise self._failure(error) from error
        _open.add(self)

    @contextmanager
    def transaction(self) -> Iterator[LocalDb]:
        """Hold the lock for a `with` block, and commit everything at its end.

        Nothing is committed if an exception leaves; a block within a block is a part of it.
        """
        within = self._is_held_here()
        with self._lock:
            # SQLite itself is asked: what is noted here could outlive an interrupted transaction.
            if self._db.in_transaction and within:
                yield self
            else:
                if self._db.in_transaction or self._changed:
                    self._roll_back()  # An interrupt has kept an earlier block from that.
                yield from self._whole()

    def _whole(self) -> Iterator[LocalDb]:
        try:
            self._execute("BEGIN IMMEDIATE")
            yield self
            self._save()
            self._execute("COMMIT")
            self._changed.clear()
        except BaseException:
            self._roll_back()
            raise

    def run(self, statement: str, *values: Any) -> int:
        """Execute a statement and return how many rows it changed."""
        with self._lock:
            return self._execute(statement, values).rowcount

    def run_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement for each row."""
        with self._lock:
            try:
                self._db.executemany(statement, rows)
            except ERRORS as error:
                raise self._failure(error) from error

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock:
            return self._fetched(self._execute(query, values))

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        with self._lock:
            found = self._fetched(self._execute(query, values), 1)
            return found[0] if found else None

    def one(self, query: str, *values: Any) -> tuple[Any, ...]:
        """Return the row of a query that always has one."""
        with self._lock:
            return self._fetched(self._execute(query, values))[0]

    def identity(self) -> str:
        """Return the id of the store this map belongs to, made at first need."""
        with self.transaction():
            return str(self._meta.setdefault("store", None) or self._set_identity())

    def number(self, name: str) -> int:
        """Return a named number, 0 at first."""
        return int(self._meta.get(name, 0))

    def set(self, name: str, value: int) -> None:
        """Set a named number, within a transaction."""
        self._meta[name] = value
        self._changed.add(name)

    def add(self, name: str, amount: int) -> int:
        """Add to a named number, within a transaction, and return the sum."""
        self.set(name, self.number(name) + amount)
        return self.number(name)

    def _set_identity(self) -> str:
        self._meta["store"] = secrets.token_hex(16)
        self._changed.add("store")
        return str(self._meta["store"])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except ERRORS as error:
            raise self._failure(error) from error

    def _fetched(self, cursor: sqlite3.Cursor, most: int | None = None) -> list[tuple[Any, ...]]:
        """Return rows whose columns hold what they may."""
        try:
            rows: list[tuple[Any, ...]] = (
                cursor.fetchall() if most is None else cursor.fetchmany(most)
            )
        except ERRORS as error:
            raise self._failure(error) from error
        for at, (name, *_) in enumerate(cursor.description):
            types = _TYPES.get(name)
            if types is not None and not types.issuperset({type(row[at]) for row in rows}):
                raise self._failure(f"{name} is of another type in some row")
            if rows and name in _LEAST and min(row[at] for row in rows) < _LEAST[name]:
                raise self._failure(f"{name} is out of range in some row")
        return rows

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._load()

    def _load(self) -> None:
        self._meta = dict(self._db.execute("SELECT name, value FROM meta"))
        for name, value in self._meta.items():
            if type(value) is not (str if name == "store" else int):
                raise self._failure(f"{name!r:.60} is of another type")
        self._changed.clear()

    def _save(self) -> None:
        if self._changed:
            rows = [(name, self._meta[name]) for name in self._changed]
            try:
                self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
            except ERRORS as error:  # A forged number, and what was added to it, is too large.
                raise self._failure(error) from error

    def _failure(self, error: Exception | str) -> StorageError:
        return StorageError(
            f"the archive's map {self.path} failed: {error}; check the disk; a damaged map may be "
            "removed, and is read from the bucket again"
        )


_open: weakref.WeakSet[LocalDb] = weakref.WeakSet()
after_fork(_open, lambda database: _inherited.append(database._db))


def require_own_files(path: Path) -> None:
    """Raise StorageError if SQLite would read or change something else than files of the map."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"):
        try:
            require_regular(path.with_name(name))
        except OSError as error:
            raise StorageError(
                f"the archive's map {path.with_name(name)} cannot be used: {error.strerror}"
            ) from error
