"""The cold store against its peers, side by side in one run.

Not a test: it prints ratios, and the bars beside them. It takes under 3 minutes, `--quick` less;
`--whole` adds a gigabyte and a million keys (more minutes, 8 GB of disk); `--only` runs parts.
Like durability is compared with like. Large values go through the manager, and where that says
something also to the store alone, as bytes. A missing peer is named.
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

from _cold_fields import fields
from _cold_large import large
from _cold_peers import bar, bars, fastest, small_peers
from _race import machine, show
from _race import race as race_by

from memories import MemoryManager
from memories.backends.disk import DiskBackend
from memories.model.record import Record
from memories.model.tiers import TierName

clock: Callable[[], float] = time.perf_counter


def race(
    candidates: dict[str, Callable[[], object]],
    *,
    rounds: int = 5,
    before: Callable[[str], object] = lambda name: None,
) -> dict[str, float]:
    return race_by(candidates, rounds=rounds, clock=clock, before=before)


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
    """Race puts and gets of 1 KB values in random order, nothing synced at once."""
    root.mkdir()
    value = os.urandom(1024)
    keys = shuffled(count)
    backend, version = DiskBackend(root / "ours"), Versions()
    peers = small_peers(root, full=False)
    asked = {peer.name: keys[: int(count * peer.share)] for peer in peers}

    def put_ours() -> None:
        for key in keys:
            backend.write(record(key, version()), [memoryview(value)])

    def get_ours() -> None:
        for key in keys:
            backend.read(backend.lookup(key))

    def get_through_the_manager() -> None:
        for key in keys:
            manager.retrieve(key)

    def per_value(seconds: dict[str, float]) -> dict[str, float]:
        return {name: value / len(asked.get(name, keys)) for name, value in seconds.items()}

    def put_through_the_manager() -> None:
        for key in keys:
            manager.store(key, value, "cold")

    manager = MemoryManager(
        "1 MB", "1 MB", storage_path=root / "manager", migration=False, prefetch="off"
    )
    base = "memories, the store alone"
    puts: dict[str, Callable[[], object]] = {
        base: put_ours,
        "memories, through a manager": put_through_the_manager,
    }
    puts.update({peer.name: partial(peer.put, asked[peer.name], value) for peer in peers})
    seconds = per_value(race(puts, rounds=3))
    show(f"1 KB puts, {count:,} keys", seconds, base=base, unit=1e6, label="us")
    for ours in (base, "memories, through a manager"):
        bars(seconds, "put", ours, {"diskcache": 0.2})
    wait_for_idle(backend)
    wait_for_idle(manager._hierarchy.catalog.journal)
    base = "memories, verified and decoded"
    gets = {base: get_through_the_manager, "memories, the store alone": get_ours}
    gets.update({peer.name: partial(peer.get, asked[peer.name]) for peer in peers})
    seconds = per_value(race(gets, rounds=3))
    show(f"1 KB gets, {count:,} keys", seconds, base=base, unit=1e6, label="us")
    bars(seconds, "get", base, {"diskcache": 0.2, "lmdb, no sync": 2.5})
    manager.cleanup()
    backend.close()
    for peer in peers:
        peer.close()


def small_full(root: Path, count: int) -> None:
    """Race puts of 1 KB values of which each is synced before it returns."""
    root.mkdir()
    value, keys = os.urandom(1024), shuffled(count)
    backend, version = DiskBackend(root / "ours", durability="full"), Versions()
    peers = small_peers(root, full=True)

    def put_ours() -> None:
        for key in keys:
            backend.write(record(key, version()), [memoryview(value)])

    puts: dict[str, Callable[[], object]] = {"memories, full": put_ours}
    puts.update({peer.name: partial(peer.put, keys, value) for peer in peers})
    seconds = {name: taken / count for name, taken in race(puts, rounds=3).items()}
    show("1 KB puts, synced", seconds, base="memories, full", unit=1e6, label="us")
    name, best = fastest(seconds, [peer.name for peer in peers])
    print(f"\nno bar: {seconds['memories, full'] / best:.2f} times the fastest, {name}")
    backend.close()
    for peer in peers:
        peer.close()


def shuffled(count: int) -> list[str]:
    keys = [f"tile/{number}" for number in range(count)]
    random.Random(1).shuffle(keys)
    return keys


def wait_for_idle(backend: DiskBackend) -> None:
    """Wait until the background has nothing to do."""
    while True:
        time.sleep(2.0)
        index = backend._index
        if not any(index.tables) and len(index.runs) < 2:
            return


def many(root: Path, counts: list[int]) -> None:
    """Show that opening, looking up and RAM do not depend on the number of keys."""
    opened, backends, keys = {}, {}, {}
    chance = random.Random(2)
    for count in counts:
        name, path = f"{count:,} keys", root / f"{count}"
        with DiskBackend(path) as backend:
            for number in range(count):
                backend.write(record(f"tile/{number}", number + 1), [memoryview(b"x" * 64)])
            wait_for_idle(backend)
        before = resident()
        started = time.perf_counter()
        backends[name] = DiskBackend(path)
        opened[name] = time.perf_counter() - started
        grown = resident() - before
        keys[name] = [f"tile/{chance.randrange(count)}" for _ in range(20_000)]
        before = resident()
        find_all(backends[name], keys[name])
        found = resident() - before
        print(
            f"\n{name}: {grown / count:.1f} bytes of anonymous RAM per key after opening,", end=""
        )
        print(f" {(grown + found) / count:.1f} after 20,000 look-ups")
    base, last = (f"{count:,} keys" for count in (counts[0], counts[-1]))
    show("open", opened, base=base, unit=1e3, label="ms")
    ratios = {}
    for verb, action in (("find", find_all), ("get", get_all)):
        seconds = race({name: partial(action, backends[name], keys[name]) for name in backends})
        per_key = {name: value / 20_000 for name, value in seconds.items()}
        show(verb, per_key, base=base, unit=1e6, label="us")
        ratios[verb] = per_key
    print()
    bar(f"open {last}, against 20 ms", opened[last], 0.02, 1.0)
    for verb, per_key in ratios.items():
        bar(f"{verb} among {last}, against {base}", per_key[last], per_key[base], 1.5)
    for backend in backends.values():
        backend.close()


def find_all(backend: DiskBackend, keys: list[str]) -> None:
    for key in keys:
        backend.lookup(key)


def get_all(backend: DiskBackend, keys: list[str]) -> None:
    for key in keys:
        found = backend.lookup(key)
        assert found is not None
        backend.read(found)


def resident() -> int:
    """Return this process's anonymous bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


PARTS = ("small", "synced", "large", "fields", "many")


def run(part: str, root: Path, *, quick: bool, whole: bool) -> None:
    if part == "small":
        small(root / part, 100_000 if whole else 5_000 if quick else 10_000)
    elif part == "synced":
        small_full(root / part, 100)
    elif part == "fields":
        fields(root / part, 4096 if whole else 1024 if quick else 2048, 3, race)
    elif part == "large":
        for size in [8 * 10**6] + ([] if quick else [100 * 10**6]) + ([10**9] if whole else []):
            large(root / f"{size}", size, 3 if size > 10**8 else 5, race)
            shutil.rmtree(root / f"{size}")
    else:
        many(root, [10_000, 1_000_000 if whole else 20_000 if quick else 100_000])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer values")
    parser.add_argument("--whole", action="store_true", help="1 GB and a million keys, too")
    parser.add_argument("--only", choices=PARTS, action="append", help="may be given repeatedly")
    parser.add_argument("--cpu", action="store_true", help="CPU time, for a busy machine")
    options = parser.parse_args()
    if options.cpu:
        global clock
        clock = time.process_time
    root = Path(tempfile.mkdtemp(prefix="memories-cold-"))
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    try:
        for part in options.only or PARTS:
            started = time.perf_counter()
            run(part, root, quick=options.quick, whole=options.whole)
            print(f"\n({part}: {time.perf_counter() - started:.0f} s)", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
