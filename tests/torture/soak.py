"""One process that does everything at random for a given time, and a check of what it holds.

It checks no results, though each value names its key: other tests prove those. Whatever was done,
an emptied manager must hold what it held before. What grows from round to round is a leak: it
should have been released.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memories import (
    DistributedMemoryManager,
    KeyNotFoundError,
    MemoryManager,
    MigrationSettings,
    Rule,
    TierFullError,
)

TIERS = ("hot", "warm", "cold", "glacier")
CAPACITIES = ("3 MB", "5 MB", "60 MB")
RULES = (
    Rule(prefix="old/", move_to="cold", after=1.0),
    Rule(prefix="few/", quota={"hot": "50 kB"}),
)
LIBC = ctypes.CDLL(None)
TRIM = getattr(LIBC, "malloc_trim", None)  # The allocator's own reserve is no leak.


class Mallinfo(ctypes.Structure):
    """What glibc says of all arenas of `malloc` together, as `mallinfo2` returns it."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def native_bytes() -> int:
    """Return the bytes that `malloc` has given out and that are not freed; 0 if it cannot say.

    That is every buffer of NumPy, SQLite, compressors and the clients of buckets, and each object
    of Python above 512 bytes. Unlike RSS it knows nothing of holes between them.
    """
    mallinfo = getattr(LIBC, "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


class Held(NamedTuple):
    """What the process holds."""

    objects: int  # Those that the collector knows.
    blocks: int  # All small ones: strings, bytes and numbers, too.
    native: int  # Bytes of all that is larger, and of what is none of Python's.
    rss: int
    descriptors: int
    threads: int
    disk: int

    @classmethod
    def now(cls, directory: Path) -> Held:
        """Measure it."""
        for _ in range(2):
            gc.collect()
        if TRIM is not None:
            TRIM(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            objects=len(gc.get_objects()),
            blocks=sys.getallocatedblocks(),
            native=native_bytes(),
            rss=pages * os.sysconf("SC_PAGE_SIZE"),
            descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            threads=threading.active_count(),
            disk=disk_bytes(directory),
        )


def disk_bytes(directory: Path) -> int:
    """Return what files below `directory` take."""
    total = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


class Soak:
    """Does operations of a manager, and of one over nodes if there are any, at random."""

    def __init__(self, directory: Path, nodes: list[str], seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.directory, self.nodes = directory, nodes
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.fresh = 0  # Names that were never used before are what leaks are made of.
        self.manager = self.open()
        named = [name for name in dir(self) if name.startswith("do_")]
        self.operations: list[Callable[[], None]] = [getattr(self, name) for name in named]

    def open(self) -> MemoryManager:
        """Return a manager on the store of the soak, as the nodes are there."""
        options: dict[str, Any] = {
            "storage_path": self.directory / "store",
            "migration": MigrationSettings(interval_seconds=0.05),
            "rules": RULES,
        }
        if self.nodes:
            return DistributedMemoryManager(
                *CAPACITIES,
                True,
                nodes=self.nodes,
                replication_factor=2,
                near_cache=True,
                **options,
            )
        return MemoryManager(*CAPACITIES, True, **options)

    def round(self, seconds: float) -> None:
        """Do whatever comes to mind for so many seconds, and empty the store after that."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            operation = self.random.choice(self.operations)
            self.done[operation.__name__] += 1
            try:
                operation()
            except (KeyNotFoundError, TierFullError) as error:
                self.refused[type(error).__name__] += 1
        self.empty()

    def empty(self) -> None:
        """Remove every key, and let what works in the background come to rest."""
        if isinstance(self.manager, DistributedMemoryManager):
            for key in list(self.manager.scan_distributed()):
                with suppress(KeyNotFoundError):
                    self.manager.delete_distributed(key)
        self.manager.clear(purge=True)
        self.manager.cleanup()
        self.manager = self.open()
        for path in self.directory.glob("*.zip"):
            path.unlink()
        assert {} == dict(self.manager)
        self.manager._hierarchy.catalog.journal.sync()

    def key(self) -> str:
        """Return a name: one of a few, or one that there was never before."""
        if self.random.random() < 0.5:
            return self.random.choice(("", "old/", "few/")) + f"k{self.random.randrange(60)}"
        self.fresh += 1
        return f"{self.random.choice(('', 'old/', 'few/'))}fresh/{self.fresh}"

    def known(self) -> str:
        """Return the name of a key that is there, if there is any."""
        keys = list(self.manager.scan(self.random.choice(("k", "old/", "few/", "fresh/"))))
        return self.random.choice(keys) if keys else self.key()

    def value(self) -> Any:
        """Return something to store."""
        size = int(10 ** self.random.uniform(0, 5.3))
        return self.random.choice(
            (
                lambda: np.full(max(1, size // 8), float(size)),
                lambda: self.random.randbytes(size),
                lambda: "text " * (size // 5),
                lambda: {"rows": list(range(min(size, 200))), "name": str(size)},
                lambda: size,
                lambda: {1, 2, size},
            )
        )()

    # What is done. Names begin with `do_`; most often what a program does most often.

    def do_store(self) -> None:
        options: dict[str, Any] = {}
        if self.random.random() < 0.3:
            options["ttl"] = 10 ** self.random.uniform(-2, 2)
        if self.random.random() < 0.1:
            options["metadata"] = {"number": self.random.randrange(5)}
        if self.random.random() < 0.05:
            options["pin"] = True
        if self.random.random() < 0.1:
            options["volatile"] = True
        tier = self.random.choice(("auto", "auto", *TIERS))
        for _ in range(self.random.randrange(1, 30)):
            self.manager.store(self.key(), self.value(), tier, **options)

    do_store_more = do_store

    def do_store_and_delete(self) -> None:
        tier = self.random.choice(("auto", "auto", "hot", "warm", "cold"))
        for _ in range(self.random.randrange(1, 200)):
            key = self.key()
            self.manager.store(key, 1, tier)
            self.manager.retrieve(key)
            self.manager.delete(key)

    def do_read(self) -> None:
        keys = list(self.manager)
        for key in self.random.choices(keys, k=50) if keys else ():
            self.manager.retrieve(key, None)

    do_read_more = do_read

    def do_read_as_a_mapping(self) -> None:
        self.random.choice(
            (
                lambda: self.manager.get(self.known()),
                lambda: self.known() in self.manager,
                lambda: len(self.manager),
                lambda: list(self.manager.items()),
                lambda: dict(self.manager),
                lambda: self.manager.retrieve_many([self.known()]),
                lambda: list(self.manager.find(number=3)),
            )
        )()

    def do_read_a_part(self) -> None:
        key = self.known()
        if isinstance(self.manager.retrieve(key, None), np.ndarray):
            self.manager.retrieve(key, region=np.s_[:3])
            self.manager.retrieve(key, copy=True)

    def do_hold_a_view(self) -> None:
        view = self.manager.retrieve(self.known(), None)
        self.manager.delete_prefix("fresh/")
        del view

    def do_delete(self) -> None:
        self.manager.delete(self.known())

    def do_delete_many(self) -> None:
        self.manager.delete_prefix(self.random.choice(("fresh/", "old/", "few/", "k1")))

    def do_change(self) -> None:
        key = self.known()
        self.random.choice(
            (
                lambda: self.manager.modify(key, lambda old: (type(old).__name__,)),
                lambda: self.manager.pop(key),
                lambda: self.manager.setdefault(self.key(), 1),
                lambda: self.manager.update({key: 2}),
                self.manager.popitem,
            )
        )()

    def do_move(self) -> None:
        key = self.known()
        if self.manager.explain(key).pinned:
            self.manager.unpin(key)
        self.random.choice(
            (
                lambda: self.manager.migrate(key, self.random.choice(TIERS)),
                lambda: self.manager.promote(key),
                lambda: self.manager.demote(key),
                lambda: self.manager.prefetch(list(self.manager)[:20]),
                lambda: self.manager.pin(key),
            )
        )()

    def do_look(self) -> None:
        self.random.choice(
            (
                self.manager.stats,
                self.manager.get_memory_usage,
                self.manager.telemetry,
                self.manager.advise,
                lambda: self.manager.explain(self.known()),
                lambda: repr(self.manager),
                lambda: self.manager.report(self.directory / "report.html"),
            )
        )()

    def do_remember(self) -> None:
        @self.manager.cache(version=self.random.randrange(3), ttl=self.random.choice((None, 0.05)))
        def square(number: int) -> int:
            return number * number

        for _ in range(20):
            number = self.random.randrange(30)
            assert number * number == square(number)

    def do_make_durable(self) -> None:
        self.manager.flush()

    def do_sample(self) -> None:
        self.manager.enable_analytics(0.05, 100)
        self.manager.get_analytics()

    def do_record(self) -> None:
        with self.manager.record_trace(self.directory / "trace.jsonl"):
            self.do_read()

    def do_snapshot(self) -> None:
        path = self.directory / f"{self.random.randrange(2)}.zip"
        self.manager.create_snapshot(path, prefix=self.random.choice(("", "fresh/")))
        self.manager.restore_snapshot(
            path,
            mode=self.random.choice(("replace", "merge", "keep")),
            verify=self.random.choice(("full", "lazy")),
            wait=self.random.random() < 0.5,
        )

    def do_check(self) -> None:
        problems = self.manager.check(repair=self.random.random() < 0.3)
        assert not problems, problems

    def do_read_beside(self) -> None:
        self.manager.flush()
        with MemoryManager(
            *CAPACITIES, True, storage_path=self.directory / "store", read_only=True
        ) as reader:
            for key in list(reader)[:20]:
                reader.retrieve(key, None)

    def do_another(self) -> None:
        with MemoryManager(*CAPACITIES, on_full="evict") as other:
            for number in range(50):
                other.store(f"k{number}", self.value())
            assert 0 < len(dict(other))

    def do_use_threads(self) -> None:
        def work(seed: int) -> None:
            source = random.Random(seed)
            for _ in range(50):
                key = f"fresh/thread/{source.randrange(20)}"
                with suppress(KeyNotFoundError, TierFullError):
                    if source.random() < 0.5:
                        self.manager.store(key, source.randrange(100), ttl=0.2)
                    elif source.random() < 0.5:
                        self.manager.retrieve(key)
                    else:
                        self.manager.delete(key)

        threads = [threading.Thread(target=work, args=(self.fresh + n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def do_reopen(self) -> None:
        if self.random.random() < 0.3:
            self.manager.cleanup()
            self.manager = self.open()

    def do_distribute(self) -> None:
        if not isinstance(self.manager, DistributedMemoryManager):
            return
        keys = [self.key() for _ in range(20)]
        for key in keys:
            self.manager.store_distributed(key, self.value())
        for key in keys:
            self.manager.retrieve_distributed(key)
        self.manager.store_many_distributed(dict.fromkeys(keys[:5], b"many"))
        for key in set(keys[::2]):
            self.manager.delete_distributed(key)
        self.manager.get_node_status()
