"""Damages a file of a store, a snapshot or an archive, whose checksums hold, and uses it."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.torture.fuzz.damage import LEAVES, damaged_bytes

from memories import MemoriesError, MemoryManager

VALUES: dict[str, Any] = {
    "text": "text" * 20,
    "list": [1, 2.5, "three", None, {"four": (5, b"six")}],
    "array": np.arange(300.0).reshape(20, 15),
    "large": np.arange(200_000.0),
    "set": {1, 2, 3},
    "bytes": bytes(5000),
}
MAP = "glacier.sqlite"


class StoreFiles:
    """The files of a store; an input is the path of one of them, and its bytes."""

    tier = "cold"

    def prepare(self, folder: Path) -> None:
        """Write a store with values, metadata and removals."""
        self.whole, self.copy = folder / "whole", folder / "copy"
        with self.manager(self.whole) as manager:
            for number in range(3):
                for name, value in VALUES.items():
                    key = f"{name}{number}"
                    manager.store(key, value, self.tier, metadata={"n": number})
            manager.delete("text0")
            self.finish(manager)
        paths = [path for path in self.whole.rglob("*") if path.is_file() and self.chosen(path)]
        self.paths = sorted(path for path in paths if path.stat().st_size > 16)
        assert self.paths

    def manager(self, folder: Path) -> MemoryManager:
        """Open the store."""
        return MemoryManager(
            "20 MB", "20 MB", "200 MB", storage_path=folder / "store", migration=False
        )

    def finish(self, manager: MemoryManager) -> None:
        """Do what is to be done before the store is closed."""

    def chosen(self, path: Path) -> bool:
        """Return whether a file is to be damaged."""
        return path.name != MAP

    def spoil(self, folder: Path) -> None:
        """Remove from a copy what would hide the damage."""

    def first(self, manager: MemoryManager) -> None:
        """Do what comes before all other steps."""

    def damaged(self, rng: random.Random) -> bytes:
        """Return a file with wrong bytes."""
        path = rng.choice(self.paths)
        return self.input(path, damaged_bytes(path.read_bytes(), rng))

    def input(self, path: Path, data: bytes) -> bytes:
        """Return the input that stands for a file with other bytes."""
        return msgspec.msgpack.encode([str(path.relative_to(self.whole)), data])

    def attempt(self, data: bytes) -> bool:
        """Open, list, read, change, check and close."""
        name, content = msgspec.msgpack.decode(data, type=tuple[str, bytes])
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy)
        path = self.copy / name
        if path.exists():
            path.chmod(0o600)
        path.write_bytes(content)
        self.spoil(self.copy)
        try:
            manager = self.manager(self.copy)
            try:
                for step in self.steps():
                    with contextlib.suppress(MemoriesError):
                        step(manager)
            finally:
                manager.cleanup()
        except MemoriesError:
            return False
        return True

    def steps(self) -> list[Callable[[MemoryManager], Any]]:
        """Return what a program does with a store."""
        found: list[Callable[[MemoryManager], Any]] = [
            self.first,
            lambda manager: list(manager),
            lambda manager: [(manager.info(key), manager.explain(key)) for key in list(manager)],
            lambda manager: manager.find(n=1),
            lambda manager: manager.retrieve_many([f"{name}1" for name in VALUES]),
            lambda manager: manager.store("new", "value"),
            lambda manager: manager.store("new in cold", "value", "cold"),
            lambda manager: manager.delete("list1"),
            lambda manager: manager.migrate("array2", "hot"),
            lambda manager: manager.check(),
            lambda manager: manager.stats(),
        ]
        keys = [f"{name}{number}" for name in VALUES for number in range(3)]
        return found + [partial(_retrieve, key=key) for key in keys]

    def close(self) -> None:
        """Nothing is open."""


class Log(StoreFiles):
    """The segments of the log, which are read from their start: the index is not there."""

    def chosen(self, path: Path) -> bool:
        """Choose segments."""
        return path.suffix == ".seg"

    def spoil(self, folder: Path) -> None:
        """Remove the index."""
        for path in folder.glob("store/cold/index/*"):
            path.unlink()


class Snapshot(StoreFiles):
    """A snapshot, which is restored into an empty store."""

    def finish(self, manager: MemoryManager) -> None:
        """Create it."""
        manager.create_snapshot(self.whole / "snapshot")

    def prepare(self, folder: Path) -> None:
        """Keep the snapshot only."""
        super().prepare(folder)
        shutil.rmtree(self.whole / "store")

    def chosen(self, path: Path) -> bool:
        """Choose the snapshot."""
        return path.name == "snapshot"

    def first(self, manager: MemoryManager) -> None:
        """Restore it."""
        manager.restore_snapshot(self.copy / "snapshot")


class Archive(StoreFiles):
    """The files of a store with an archive of its own."""

    tier = "glacier"

    def manager(self, folder: Path) -> MemoryManager:
        """Open the store with its archive."""
        return MemoryManager(
            "20 MB", "20 MB", "200 MB", True, storage_path=folder / "store", migration=False
        )


class Bucket(StoreFiles):
    """The objects of an archive, read by a machine that has no map of them."""

    tier = "glacier"

    def manager(self, folder: Path) -> MemoryManager:
        """Open the store with its archive in a directory."""
        return MemoryManager(
            "20 MB", "20 MB", "200 MB", True, storage_path=folder / "store", migration=False,
            glacier_url=str(folder / "bucket"),
        )  # fmt: skip

    def chosen(self, path: Path) -> bool:
        """Choose objects, manifests and the lock."""
        return self.whole / "bucket" in path.parents

    def spoil(self, folder: Path) -> None:
        """Remove the map."""
        for path in (folder / "store").rglob(f"{MAP}*"):
            path.unlink()


class Map(Archive):
    """The map of an archive: bytes of the SQLite file, or things in its rows."""

    def chosen(self, path: Path) -> bool:
        """Choose the map."""
        return path.name == MAP

    def damaged(self, rng: random.Random) -> bytes:
        """Return the map with wrong bytes, or with another thing in one row of a table."""
        if rng.random() < 0.4:
            return super().damaged(rng)
        path = rng.choice(self.paths)
        draft = self.whole.parent / "draft.sqlite"
        shutil.copy(path, draft)
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode=DELETE")
            names = [
                name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            counts = {
                name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names
            }
            table = rng.choice([name for name in names if counts[name]])
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            column, at = rng.choice(columns), rng.randrange(counts[table])
            rows = db.execute(f"SELECT {column} FROM {table}").fetchall()
            junk = [one for one in LEAVES if isinstance(one, (int, float, str)) or one is None]
            thing = rng.choice([*junk, b"", bytes(16), rng.choice(rows)[0]])
            if isinstance(rows[at][0], bytes) and rng.random() < 0.6:
                thing = damaged_bytes(rows[at][0], rng)
            if isinstance(thing, int):
                thing = max(-(2**63), min(thing, 2**63 - 1))
            with contextlib.suppress(sqlite3.Error):
                first = columns[0]
                (name,) = db.execute(
                    f"SELECT {first} FROM {table} LIMIT 1 OFFSET ?", (at,)
                ).fetchone()
                db.execute(
                    f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {first} IS ?", (thing, name)
                )
        return self.input(path, draft.read_bytes())


def _retrieve(manager: MemoryManager, *, key: str) -> Any:
    return manager.retrieve(key)


TARGETS = {
    "cold": StoreFiles,
    "log": Log,
    "snapshot": Snapshot,
    "archive": Archive,
    "bucket": Bucket,
    "map": Map,
}
