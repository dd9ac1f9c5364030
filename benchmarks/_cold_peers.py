"""The stores of small values that cold is compared with, each used the way its own manual shows.

Not a common interface to put values behind: every peer runs its own loop, so that no call of ours
is counted as its time. A peer that is not installed is named, and the rest goes on.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path


class Peer(ABC):
    """A store of bytes by key; `share` of the keys are enough to time it."""

    name: str
    share = 1.0

    @abstractmethod
    def put(self, keys: Sequence[str], value: bytes) -> None:
        """Put `value` under every key, one call each."""

    @abstractmethod
    def get(self, keys: Sequence[str]) -> None:
        """Get every key, one call each."""

    def close(self) -> None:
        """Close the files."""
        return


class Lmdb(Peer):
    """LMDB, a transaction for each call."""

    def __init__(self, path: Path, *, full: bool) -> None:
        import lmdb

        self.name = "lmdb, sync" if full else "lmdb, no sync"
        self._environment = lmdb.open(str(path), map_size=8 << 30, sync=full)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        for key in keys:
            with self._environment.begin(write=True) as transaction:
                transaction.put(key.encode(), value)

    def get(self, keys: Sequence[str]) -> None:
        for key in keys:
            with self._environment.begin() as transaction:
                transaction.get(key.encode())

    def close(self) -> None:
        self._environment.close()


class Sqlite(Peer):
    """SQLite with a write-ahead log, a transaction for each put."""

    share = 0.2

    def __init__(self, path: Path, *, full: bool) -> None:
        mode = "FULL" if full else "OFF"
        self.name = f"sqlite, synchronous={mode}"
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(f"PRAGMA synchronous={mode}")
        self._database.execute("CREATE TABLE v (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")

    def put(self, keys: Sequence[str], value: bytes) -> None:
        execute = self._database.execute
        for key in keys:
            execute("INSERT OR REPLACE INTO v VALUES (?, ?)", (key, value))

    def get(self, keys: Sequence[str]) -> None:
        execute = self._database.execute
        for key in keys:
            execute("SELECT v FROM v WHERE k = ?", (key,)).fetchone()

    def close(self) -> None:
        self._database.close()


class RocksDict(Peer):
    """RocksDB through rocksdict, raw bytes."""

    def __init__(self, path: Path, *, full: bool) -> None:
        from rocksdict import Options, Rdict, WriteOptions

        self.name = "rocksdict, sync" if full else "rocksdict, no sync"
        self._database = Rdict(str(path), options=Options(raw_mode=True))
        options = WriteOptions()
        options.sync = full
        self._database.set_write_options(options)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        database = self._database
        for key in keys:
            database[key.encode()] = value

    def get(self, keys: Sequence[str]) -> None:
        database = self._database
        for key in keys:
            database[key.encode()]

    def close(self) -> None:
        self._database.close()


class DiskCache(Peer):
    """diskcache, which syncs as SQLite's NORMAL does unless configured otherwise."""

    share = 0.05

    def __init__(self, path: Path, *, full: bool) -> None:
        from diskcache import Cache

        self.name = "diskcache, synchronous=FULL" if full else "diskcache"
        self._cache = Cache(str(path), sqlite_synchronous=2 if full else 1)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        for key in keys:
            self._cache.set(key, value)

    def put_together(self, keys: Sequence[str], value: bytes) -> None:
        """Put `value` under every key, all in one transaction."""
        with self._cache.transact():
            for key in keys:
                self._cache.set(key, value)

    def get(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._cache.get(key)

    def close(self) -> None:
        self._cache.close()


class ZictFile(Peer):
    """zict.File, a file for each value; it cannot sync."""

    name, share = "zict.File", 0.02

    def __init__(self, path: Path) -> None:
        from zict import File

        self._files = File(path)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        for key in keys:
            self._files[key] = value

    def get(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._files[key]


class Joblib(Peer):
    """joblib.dump and joblib.load, a file for each value; it cannot sync."""

    name, share = "joblib", 0.02

    def __init__(self, path: Path) -> None:
        import joblib

        path.mkdir()
        self._path, self._dump, self._load = path, joblib.dump, joblib.load

    def put(self, keys: Sequence[str], value: bytes) -> None:
        for key in keys:
            self._dump(value, self._path / key.replace("/", "-"))

    def get(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._load(self._path / key.replace("/", "-"))


def small_peers(root: Path, *, full: bool) -> list[Peer]:
    """Open every peer that is installed and can do this; name those that are missing."""
    peers: list[Peer] = [Sqlite(root / "sqlite", full=full)]
    for kind in (Lmdb, RocksDict, DiskCache):
        try:
            peers.append(kind(root / kind.__name__, full=full))
        except ImportError as error:
            missing(error)
    for bare in () if full else (ZictFile, Joblib):
        try:
            peers.append(bare(root / bare.__name__))
        except ImportError as error:
            missing(error)
    return peers


def present(*names: str) -> set[str]:
    """Return which of these modules can be imported; name those that cannot."""
    found = set()
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            missing(error)
        else:
            found.add(name)
    return found


def missing(error: ImportError) -> None:
    """Say that a peer is not compared with, for it cannot be imported."""
    print(f"missing here: {error.name or 'a peer'} ({error})")


def bar(title: str, ours: float, theirs: float, factor: float) -> None:
    """Print a bar: `ours` takes at most `factor` times as long as `theirs`."""
    ratio = ours / theirs
    verdict = "reached" if ratio <= factor else "MISSED"
    print(f"bar: {title}: {ratio:.2f} times the time, at most {factor:.2f}: {verdict}")


def bars(seconds: dict[str, float], verb: str, ours: str, factors: dict[str, float]) -> None:
    """Print a bar for each peer that is there; `factors` are shares of its time."""
    print()
    for name, factor in factors.items():
        if name in seconds:
            bar(f"{verb}, {ours} against {name}", seconds[ours], seconds[name], factor)


def fastest(seconds: dict[str, float], names: Iterable[str]) -> tuple[str, float]:
    """Return the fastest of `names` and its time."""
    name = min(names, key=seconds.__getitem__)
    return name, seconds[name]
