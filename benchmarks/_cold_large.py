"""One large array that does not compress: written, written and synced, read, read again, copied.

Not the medium: all of it lies in the page cache, and what is measured is what the caller waits for.
Every turn begins alike, for every candidate: what the candidate wrote the last time is gone,
nothing waits to be written, and the kernel has memory at hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _cold_files import Way, ways
from _cold_peers import bars
from _race import show
from xxhash import xxh3_64_intdigest

from memories import MemoryManager
from memories.backends.disk import DiskBackend
from memories.engine.verified_frames import VerifiedFrames
from memories.model.record import Record
from memories.model.tiers import TierName

Race = Callable[..., dict[str, float]]
_OURS, _ALONE = "memories", "memories, the store alone"


class Stored:
    """A value in cold through the manager, under a new key each time."""

    def __init__(self, path: Path, array: np.ndarray[Any, Any], durability: str) -> None:
        self._manager = MemoryManager(
            "1 MB", "1 MB", storage_path=path, migration=False, prefetch="off",
            durability=durability,
        )  # fmt: skip
        self._array, self._turn = array, 0

    @property
    def key(self) -> str:
        return f"k{self._turn}"

    def write(self) -> None:
        self._manager.store(self.key, self._array, "cold")

    def overwrite(self) -> None:
        self._manager.store("again", self._array, "cold")

    def clear(self) -> None:
        self._manager.pop(self.key, None)
        self._turn += 1
        self._manager._hierarchy.catalog.journal.sync()

    def forget(self) -> None:
        """Make the next read the first one since the store was opened."""
        self._manager._hierarchy.verified = VerifiedFrames()

    def read(self, *, copy: bool | None = None) -> Any:
        return self._manager.retrieve(self.key, copy=copy)

    def close(self) -> None:
        self._manager.cleanup()


class Alone:
    """The bytes in the store, without codec and checksum."""

    def __init__(self, path: Path, array: np.ndarray[Any, Any], durability: str) -> None:
        self._backend = DiskBackend(path, durability=durability)  # type: ignore[arg-type]
        self._view, self._version = memoryview(array).cast("B"), 0

    def write(self) -> None:
        self._version += 1
        size = self._view.nbytes
        record = Record(
            key=f"k{self._version}", version=self._version, tier=TierName.COLD, size=size,
            stored_at=1.0,
        )  # fmt: skip
        self._backend.write(record, [self._view])

    def clear(self) -> None:
        key = f"k{self._version}"
        if self._version:
            self._version += 1
            self._backend.remove(key, self._version)
        self._backend.sync()

    def close(self) -> None:
        self._backend.close()


class Even:
    """Gives every turn the same start."""

    def __init__(self, root: Path, size: int, clear: dict[str, Callable[[], object]]) -> None:
        self._scratch, self._zeros = root / "scratch", bytes(8 << 20)
        self._pieces, self._clear = 2 * size // len(self._zeros) + 1, clear

    def __call__(self, name: str) -> None:
        self._clear.get(name, lambda: None)()
        os.sync()
        # A guest gives idle memory back to its host, and is slow to get it again: the
        # first turn after a pause would pay for that.
        with self._scratch.open("wb") as file:
            for _ in range(self._pieces):
                file.write(self._zeros)
        self._scratch.unlink()


def large(root: Path, size: int, rounds: int, race: Race) -> None:
    """Race writes and reads of one array of `size` bytes."""
    root.mkdir()
    array = np.random.default_rng(1).random(size // 8)
    title = f"{size // 10**6} MB of float64"
    path = root / "array.npy"
    others = {"np.save": Way(lambda: np.save(path, array), lambda: np.load(path).sum(), path)}
    others |= ways(root, array)
    ours, alone = Stored(root / "ours", array, "relaxed"), Alone(root / "alone", array, "relaxed")
    _writes(root, title, array, ours, alone, others, rounds, race)
    alone.close()
    _synced(root, title, array, rounds, race)
    for way in others.values():
        way.clear()
        way.write()
    ours.clear()
    ours.write()
    _reads(title, path, ours, others, rounds, race)
    ours.close()


def _writes(
    root: Path,
    title: str,
    array: np.ndarray[Any, Any],
    ours: Stored,
    alone: Alone,
    others: dict[str, Way],
    rounds: int,
    race: Race,
) -> None:
    clear = {_OURS: ours.clear, _ALONE: alone.clear}
    clear |= {name: way.clear for name, way in others.items()}
    writes = {_OURS: ours.write, _ALONE: alone.write}
    writes |= {name: way.write for name, way in others.items()}
    seconds = race(writes, rounds=rounds, before=Even(root, array.nbytes, clear))
    show(f"{title}: write, nothing synced", seconds, base=_OURS, unit=1e3, label="ms")
    for name in (_OURS, _ALONE):
        bars(seconds, "write", name, {"np.save": 1 / 0.85})
    loop = root / "loop.npy"
    seconds = race({_OURS: ours.overwrite, "np.save": lambda: np.save(loop, array)}, rounds=rounds)
    show(f"{title}: overwritten in a loop", seconds, base=_OURS, unit=1e3, label="ms")
    loop.unlink()


def _synced(root: Path, title: str, array: np.ndarray[Any, Any], rounds: int, race: Race) -> None:
    ours, alone = Stored(root / "full", array, "full"), Alone(root / "afull", array, "full")
    path = root / "synced.npy"

    def save() -> None:
        with path.open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())

    clear = {_OURS: ours.clear, _ALONE: alone.clear}
    clear["np.save and fsync"] = lambda: path.unlink(missing_ok=True)
    writes = {_OURS: ours.write, _ALONE: alone.write, "np.save and fsync": save}
    seconds = race(writes, rounds=rounds, before=Even(root, array.nbytes, clear))
    show(f"{title}: write, synced", seconds, base=_OURS, unit=1e3, label="ms")
    for name in (_OURS, _ALONE):
        bars(seconds, "full, write", name, {"np.save and fsync": 1 / 0.9})
    ours.close()
    alone.close()
    path.unlink()


def _reads(
    title: str, path: Path, ours: Stored, others: dict[str, Way], rounds: int, race: Race
) -> None:
    def checked() -> object:
        mapped = np.load(path, mmap_mode="r")
        xxh3_64_intdigest(mapped)
        return mapped.sum()

    def forget(name: str) -> None:
        if "first" in name:
            ours.forget()

    first, again = "memories, first read", "memories, later reads"
    reads: dict[str, Callable[[], object]] = {
        first: lambda: ours.read().sum(),
        "np.load, mapped, and a checksum": checked,
        again: lambda: ours.read().sum(),
        "np.load, mapped": lambda: np.load(path, mmap_mode="r").sum(),
    }
    reads |= {name: way.read for name, way in others.items() if name != "np.save"}
    seconds = race(reads, rounds=rounds, before=forget)
    show(f"{title}: read and added up", seconds, base=first, unit=1e3, label="ms")
    bars(seconds, "read", first, {"np.load, mapped, and a checksum": 1.0})
    bars(seconds, "read", again, {"np.load, mapped": 1.0})
    first, again = "memories, first copy", "memories, later copies"
    copies: dict[str, Callable[[], object]] = {
        first: lambda: ours.read(copy=True),
        again: lambda: ours.read(copy=True),
        "np.load": lambda: np.load(path),
    }
    seconds = race(copies, rounds=rounds, before=forget)
    show(f"{title}: a private copy", seconds, base=first, unit=1e3, label="ms")
    for name in (first, again):
        bars(seconds, "copy", name, {"np.load": 1.0})
