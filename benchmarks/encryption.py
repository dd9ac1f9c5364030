"""What encryption at rest costs: each row beside the same store without it, in turns.

    python benchmarks/encryption.py [--quick] [--directory DIR]

A plain value that is read is mapped, and an encrypted one is decrypted into memory of its own, so
that the row of reads sums the values: all of their bytes are used either way.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xxhash

from memories import EncryptionKey, MemoryManager
from memories.sealing.blob import private_memory
from memories.sealing.master_key import MasterSecret

ROUNDS = 7


def managers(directory: Path) -> dict[str, MemoryManager]:
    """Return a plain and an encrypted manager of two new stores."""
    file = directory / "master.key"
    file.touch(mode=0o600)
    file.write_text(MasterSecret.new("bench").text)
    keys = {"plain": None, "encrypted": EncryptionKey.from_file(file)}
    return {
        name: MemoryManager(1, 1, 20, storage_path=directory / name, encryption=key, prefetch="off",
                            migration=False, compression={"cold": "none"})
        for name, key in keys.items()
    }  # fmt: skip


def compare(
    stores: dict[str, MemoryManager],
    work: Callable[[MemoryManager, int], object],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Return the median seconds of `work` on each store; the stores take turns."""
    taken: dict[str, list[float]] = {name: [] for name in stores}
    for number in range(rounds):
        for name, store in stores.items():
            before()
            started = time.perf_counter()
            work(store, number)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def forget_files(directory: Path) -> None:
    """Let the system drop what it keeps of the files below a directory."""
    os.sync()
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def copied(path: Path, nbytes: int) -> int:
    """Return the sum of a file that is read into new memory, and whose checksum is computed."""
    memory = memoryview(private_memory(nbytes))
    with path.open("rb", buffering=0) as file:
        done = 0
        while done < nbytes:
            done += file.readinto(memory[done : done + (1 << 20)]) or nbytes
    xxhash.xxh3_64_intdigest(memory)
    return int(np.frombuffer(memory, np.uint64).sum())


def beside_a_copy(
    manager: MemoryManager, path: Path, nbytes: int, rounds: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Return the least time of a plain read that copies, and of an encrypted one."""
    taken: tuple[list[float], list[float]] = [], []
    for number in range(rounds):
        began = clock()
        copied(path, nbytes)
        middle = clock()
        int(manager.retrieve(f"large-{number}").view(np.uint64).sum())
        taken[0].append(middle - began)
        taken[1].append(clock() - middle)
    return min(taken[0]), min(taken[1])


def show(row: str, plain: float, encrypted: float) -> None:
    """Print a row of the table."""
    print(f"{row:<36}{plain * 1e3:>10.1f}{encrypted * 1e3:>11.1f}{encrypted / plain:>7.2f}")


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small values, few rounds")
    parser.add_argument("--directory", help="where the stores lie; by default a temporary one")
    options = parser.parse_args()
    rounds, side = (3, 1000) if options.quick else (ROUNDS, 4000)
    random = np.random.default_rng(1)
    large = random.integers(0, 255, (side, side, 8), np.uint8)
    small = {
        f"key-{number}": random.bytes(1000) for number in range(200 if options.quick else 2000)
    }
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        stores = managers(Path(directory))
        rows: dict[str, Callable[[MemoryManager, int], object]] = {
            f"store {large.nbytes >> 20} MiB": lambda m, n: m.store(
                f"large-{n}", large, tier="cold"
            ),
            f"read {large.nbytes >> 20} MiB": lambda m, n: int(
                m.retrieve(f"large-{n}").view(np.uint64).sum()
            ),
            "read a region of 1 MiB": lambda m, n: m.retrieve(
                f"large-{n}", region=np.s_[side // 2 : side // 2 + (1 << 17) // side]
            ).sum(),
            f"store {len(small)} values of 1 KB": lambda m, n: [
                m.store(f"{n}-{key}", value, tier="cold") for key, value in small.items()
            ],
            f"store_many {len(small)} values of 1 KB": lambda m, n: m.store_many(
                {f"many-{n}-{key}": value for key, value in small.items()}, tier="cold"
            ),
            f"read {len(small)} values of 1 KB": lambda m, n: [
                m.retrieve(f"{n}-{key}") for key in small
            ],
            f"retrieve_many {len(small)} values of 1 KB": lambda m, n: m.retrieve_many(
                f"many-{n}-{key}" for key in small
            ),
        }
        print(f"{'':<36}{'plain ms':>10}{'encrypted':>11}{'ratio':>7}")
        for row, work in rows.items():
            show(row, *compare(stores, work, rounds).values())
        row = f"read {large.nbytes >> 20} MiB"
        forget = partial(forget_files, Path(directory))
        from_disk = compare(stores, rows[row], rounds, forget)
        show(f"{row} from the disk itself", *from_disk.values())
        raw = Path(directory) / "raw"
        raw.write_bytes(large.tobytes())
        clocks = {"": time.perf_counter, " (processor)": time.process_time}
        for name, clock in clocks.items():
            taken = beside_a_copy(stores["encrypted"], raw, large.nbytes, rounds, clock)
            show(f"read it, beside a copy{name}", *taken)
        for store in stores.values():
            store.cleanup()


if __name__ == "__main__":
    main()
