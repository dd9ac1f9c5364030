"""The cold store against its peers, side by side in one run.

Not a test: it prints ratios, and says what was measured on what. `--quick` takes under a minute;
sizes stay below 2 GB of disk. Values are bytes without a codec, so only the store is measured.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from _race import machine, show
from _race import race as race_by

from memories import MemoryManager
from memories.backends.disk import DiskBackend
from memories.entry import Record, TierName

clock: Callable[[], float] = time.perf_counter


def race(candidates: dict[str, Callable[[], object]], *, rounds: int = 5) -> dict[str, float]:
    return race_by(candidates, rounds=rounds, clock=clock)


def record(key: str, version: int) -> Record:
    return Record(key=key, version=version, tier=TierName.COLD, size=1024, stored_at=1.0)


class Versions:
    """Counts up for ever."""

    def __init__(self) -> None:
        self.latest = 0

    def __call__(self) -> int:
        self.latest += 1
        return self.latest


def small(root: Path, count: int) -> None:
    """Race puts and gets of 1 KB values in random order."""
    import lmdb
    from diskcache import Cache

    value = os.urandom(1024)
    keys = [f"tile/{number}" for number in range(count)]
    random.Random(1).shuffle(keys)
    backend, version = DiskBackend(root / "ours"), Versions()
    environment = lmdb.open(str(root / "lmdb"), map_size=8 << 30, sync=False)
    cache = Cache(str(root / "diskcache"))
    few = keys[: count // 10]

    def put_ours() -> None:
        for key in keys:
            backend.write(record(key, version()), [memoryview(value)])

    def put_lmdb() -> None:
        for key in keys:
            with environment.begin(write=True) as transaction:
                transaction.put(key.encode(), value)

    def put_diskcache() -> None:
        for key in few:
            cache.set(key, value)

    def get_ours() -> None:
        for key in keys:
            backend.read(backend.find(key))

    def get_through_the_manager() -> None:
        for key in keys:
            manager.retrieve(key)

    def get_lmdb() -> None:
        for key in keys:
            with environment.begin() as transaction:
                transaction.get(key.encode())

    def get_diskcache() -> None:
        for key in few:
            cache.get(key)

    def per_value(seconds: dict[str, float]) -> dict[str, float]:
        return {
            name: value / (len(few) if name == "diskcache" else count)
            for name, value in seconds.items()
        }

    puts = {"memories": put_ours, "lmdb, no sync": put_lmdb, "diskcache": put_diskcache}
    show("1 KB puts", per_value(race(puts, rounds=3)), base="memories", unit=1e6, label="us")
    settle(backend)
    manager = MemoryManager(
        "1 MB", "1 MB", storage_path=root / "manager", migration=False, prefetch="off"
    )
    for key in keys:
        manager.store(key, value, "cold")
    settle(manager._hierarchy.catalog.journal)
    gets = {
        "memories, verified and decoded": get_through_the_manager,
        "memories, the store alone": get_ours,
        "lmdb, no sync": get_lmdb,
        "diskcache": get_diskcache,
    }
    base = "memories, verified and decoded"
    print("\nbars: at most 0.2 of diskcache, and 2.5 times lmdb")
    show("1 KB gets", per_value(race(gets, rounds=3)), base=base, unit=1e6, label="us")
    manager.cleanup()
    backend.close()
    cache.close()
    environment.close()


def settle(backend: DiskBackend) -> None:
    """Wait until the background has nothing to do."""
    while True:
        time.sleep(2.0)
        index = backend._index
        if not index.recent and len(index.runs) < 2:
            return


def large(root: Path, size: int, rounds: int) -> None:
    """Race writes and reads of one large array."""
    root.mkdir()
    array = np.random.default_rng(1).random(size // 8)
    view = memoryview(array).cast("B")
    relaxed, version = DiskBackend(root / "relaxed"), Versions()
    full = DiskBackend(root / "full", durability="full")
    path = root / "array.npy"

    def save() -> None:
        path.unlink(missing_ok=True)
        np.save(path, array)

    def save_synced() -> None:
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())

    writes: dict[str, Callable[[], object]] = {
        "memories": lambda: relaxed.write(record("k", version()), [view]),
        "np.save": save,
        "memories, full": lambda: full.write(record("k", version()), [view]),
        "np.save and fsync": save_synced,
    }
    title = f"{size // 10**6} MB of float64"
    show(f"{title}: write", race(writes, rounds=rounds), base="memories", unit=1e3, label="ms")
    save()

    def read() -> object:
        found = relaxed.find("k")
        assert found is not None
        return np.frombuffer(relaxed.read(found)).sum()

    reads: dict[str, Callable[[], object]] = {
        "memories, mapped": read,
        "np.load, mapped": lambda: np.load(path, mmap_mode="r").sum(),
        "np.load": lambda: np.load(path).sum(),
    }
    base = "memories, mapped"
    show(f"{title}: read, sum", race(reads, rounds=rounds), base=base, unit=1e3, label="ms")
    relaxed.close()
    full.close()


def many(root: Path, counts: list[int]) -> None:
    """Show that opening, looking up and RAM do not depend on the number of keys."""
    opened, found = {}, {}
    for count in counts:
        path = root / f"{count}"
        with DiskBackend(path) as backend:
            for number in range(count):
                backend.write(record(f"tile/{number}", number + 1), [memoryview(b"x" * 64)])
            settle(backend)
        before = resident()
        started = time.perf_counter()
        backend = DiskBackend(path)
        opened[f"{count:,} keys"] = time.perf_counter() - started
        grown = (resident() - before) / count
        chance = random.Random(2)
        keys = [f"tile/{chance.randrange(count)}" for _ in range(20_000)]
        found[f"{count:,} keys"] = race({"find": partial(find_all, backend, keys)})["find"] / 20_000
        print(f"\n{count:,} keys: {grown:.1f} bytes of anonymous RAM per key after opening")
        backend.close()
    base = f"{counts[0]:,} keys"
    show("open", opened, base=base, unit=1e3, label="ms")
    show("find", found, base=base, unit=1e6, label="us")


def find_all(backend: DiskBackend, keys: list[str]) -> None:
    for key in keys:
        backend.find(key)


def resident() -> int:
    """Return this process's anonymous bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["small", "large", "many"])
    parser.add_argument("--cpu", action="store_true", help="CPU time, for a busy machine")
    options = parser.parse_args()
    if options.cpu:
        global clock
        clock = time.process_time
    root = Path(tempfile.mkdtemp(prefix="memories-cold-"))
    print(machine())
    try:
        if options.only in (None, "small"):
            small(root, 10_000 if options.quick else 100_000)
        if options.only in (None, "large"):
            for size in [8 * 10**6, 100 * 10**6] + ([] if options.quick else [10**9]):
                large(root / f"{size}", size, 3 if options.quick else 5)
        if options.only in (None, "many"):
            many(root, [10_000, 100_000] if options.quick else [10_000, 1_000_000])
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
