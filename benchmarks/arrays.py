"""What an array costs on its way to the disk and back, beside `numpy.save` and `numpy.load`.

Both sides write without waiting for the disk and read through a page cache that holds the file:
this compares the work done, not the disk. A read ends when every element was added up, so that a
memory map has to deliver, too. `memories` checksums everything and compresses what gains by it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _race import machine, race, show

from memories import MemoryManager

MEGABYTE = 10**6


def smooth(megabytes: int) -> np.ndarray:
    """Return a raster that changes slowly, as most measured ones do."""
    side = int((megabytes * MEGABYTE) ** 0.5)
    x, y = np.meshgrid(np.linspace(0, 9, side), np.linspace(0, 7, side))
    return (100 + 60 * np.sin(x) * np.cos(y)).astype("uint8")


def noise(megabytes: int) -> np.ndarray:
    """Return random floats, which nothing compresses."""
    return np.random.default_rng(3).random(megabytes * MEGABYTE // 8)


def writers(
    array: np.ndarray, manager: MemoryManager, folder: Path
) -> dict[str, Callable[[], object]]:
    """Return the ways to put one array on the disk, each time as something new."""
    numbers = itertools.count()

    def save() -> None:
        path = folder / f"{next(numbers) % 2}.npy"
        path.unlink(missing_ok=True)
        np.save(path, array)

    def store() -> None:
        manager.store(f"w{next(numbers) % 2}", array, tier="cold", min_tier="cold")

    return {"numpy.save": save, 'store(tier="cold")': store}


def readers(
    array: np.ndarray, manager: MemoryManager, folder: Path
) -> dict[str, Callable[[], object]]:
    """Return the ways to add up an array that lies on the disk."""
    path = folder / "read.npy"
    np.save(path, array)
    manager.store("r", array, tier="cold", min_tier="cold")
    return {
        "numpy.load": lambda: np.load(path).sum(),
        "numpy.load, mmap": lambda: np.load(path, mmap_mode="r").sum(),
        "retrieve from cold": lambda: manager.retrieve("r").sum(),
    }


def first_reads(array: np.ndarray, folder: Path, path: Path) -> dict[str, Callable[[], object]]:
    """Return the ways to add it up as the first thing after opening, checksums included."""
    np.save(path, array)
    store = folder / "first"
    with MemoryManager(storage_path=store) as manager:
        manager.store("r", array, tier="cold", min_tier="cold")

    def opened() -> object:
        with MemoryManager(storage_path=store, read_only=True) as manager:
            return manager.retrieve("r").sum()

    return {"numpy.load": lambda: np.load(path).sum(), "open a store, retrieve": opened}


def measure(kind: str, array: np.ndarray, folder: Path, rounds: int) -> None:
    """Print the tables of one array."""
    size = f"{kind}, {array.nbytes / MEGABYTE:.0f} MB"
    with MemoryManager(storage_path=folder / "store") as manager:
        written = race(writers(array, manager, folder), rounds=rounds)
        show(f"write {size}", written, base="numpy.save", unit=1e3, label="ms")
        read = race(readers(array, manager, folder), rounds=rounds)
        show(f"read {size}", read, base="numpy.load", unit=1e3, label="ms")
    first = race(first_reads(array, folder, folder / "first.npy"), rounds=rounds)
    show(f"open and read {size}", first, base="numpy.load", unit=1e3, label="ms")


def main() -> None:
    """Run every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="*", default=[1, 100])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{machine()}; {os.cpu_count()} processors, medians of shuffled rounds")
    for megabytes in options.megabytes:
        for make in (smooth, noise):
            with tempfile.TemporaryDirectory() as folder:
                measure(make.__name__, make(megabytes), Path(folder), options.rounds)


if __name__ == "__main__":
    main()
