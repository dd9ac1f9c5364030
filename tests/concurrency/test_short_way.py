"""Eight threads that store and delete small values in tiers with room for a few of them.

Each thread has keys of its own, of which it knows what they hold, and all share some more. Most
changes take the short way; whatever finds no room takes the long one, and evicts.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.forking import in_child
from tests.support.wholeness import assert_whole

from memories import KeyNotFoundError, MemoryManager, MigrationSettings
from memories.model.events import Event, Removed, Stored
from memories.model.tiers import TierName

SECONDS = 1.0  # At least; until each thread has done something.
THREADS = 8
OWN, SHARED = 6, 5  # Keys of each thread, and of all.


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Change threads every few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def tiny(path: Path, **options: Any) -> MemoryManager:
    """Open a manager whose tiers in RAM hold a few values."""
    migration = MigrationSettings(interval_seconds=0.01)
    return MemoryManager(
        "6 kB", "10 kB", "20 MB", storage_path=path, migration=migration, **options
    )


def together(works: list[Callable[[], None]]) -> None:
    """Run each in a thread, and raise what any of them raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


class Worker:
    """One thread: what it does, and what its keys hold then."""

    def __init__(self, manager: MemoryManager, number: int, until: float) -> None:
        self.manager = manager
        self.until = until
        self.chance = random.Random(number)
        self.own = [f"own/{number}/{one}" for one in range(OWN)]
        self.held: dict[str, Any] = {}
        self.stored = self.deleted = 0
        self.story: defaultdict[str, list[str]] = defaultdict(list)  # What happened to each key.

    def __call__(self) -> None:
        """Store and delete until the time is over, and once at least."""
        while time.monotonic() < self.until or not self.stored:
            if self.chance.random() < 0.25:
                self.change(f"shared/{self.chance.randrange(SHARED)}")
            else:
                self.change(self.chance.choice(self.own))

    def change(self, key: str) -> None:
        """Store a key or delete it, and look at it."""
        if self.chance.random() < 0.3:
            try:
                self.manager.delete(key)
            except KeyNotFoundError:
                assert key not in self.held
            else:
                self.deleted += 1
                self.held.pop(key, None)
                self.story[key].append("removed")
            return
        value = self.chance.choice([b"%d" % self.stored, "x" * self.stored, [self.stored] * 9])
        if len(value) > 400:
            value = value[:400]
        self.manager.store(key, value)
        self.stored += 1
        if key in self.own:
            self.held[key] = value
            self.story[key].append("stored")
            assert value == self.manager.retrieve(key)
            assert self.manager.exists(key)


def test_eight_threads_in_tiny_tiers(tmp_path: Path) -> None:
    """Budgets hold at every instant, no key is lost, all is counted, events are in order."""
    manager = tiny(tmp_path / "store")
    hierarchy = manager._hierarchy
    story: defaultdict[str, list[str]] = defaultdict(list)

    def note(event: Event) -> None:
        if isinstance(event, Stored | Removed):
            story[event.key].append(type(event).__name__.lower())

    hierarchy.events.subscribe(note)
    until = time.monotonic() + SECONDS
    workers = [Worker(manager, number, until) for number in range(THREADS)]
    looks = 0

    def watch() -> None:
        nonlocal looks
        while time.monotonic() < until or looks <= 10:
            looks += 1
            look(manager)
            time.sleep(0.001)

    together([*workers, watch])
    stats = manager.stats()
    assert sum(worker.stored for worker in workers) == stats.stored
    assert sum(worker.deleted for worker in workers) == sum(stats.removed.values())
    for worker in workers:
        for key in worker.own:
            assert worker.story[key] == story[key], key
            assert worker.held.get(key, "absent") == manager.retrieve(key, "absent"), key
    held = {key for worker in workers for key in worker.held}
    assert held == {key for key in manager if key.startswith("own")}
    assert len(list(manager)) == len(manager) == sum(t.keys for t in manager.stats().tiers.values())
    assert manager._services.migrator is not None
    manager._services.migrator.stop()
    assert_whole(manager)
    manager.cleanup()


def look(manager: MemoryManager) -> None:
    """See that each tier is charged with what it holds, and not beyond its limit."""
    hierarchy = manager._hierarchy
    for name, percent in manager.get_memory_usage().items():
        assert 0 <= percent <= 100, name
    with hierarchy.catalog.lock:  # Nothing comes or leaves meanwhile.
        held: Counter[TierName] = Counter()
        versions = []
        for entry in hierarchy.catalog.entries.values():
            held[entry.tier] += entry.size
            versions.append(entry.version)
        for name, tier in hierarchy.tiers.volatile.items():
            assert held[name] <= tier.budget.used <= tier.budget.configured, name
        assert len(versions) == len(set(versions)), "two values have one version"


def test_no_store_commits_while_a_key_is_locked(tmp_path: Path) -> None:
    """modify() is atomic for its key: no thread stores it while the function runs."""
    manager = tiny(tmp_path / "store")
    manager.store("a", 0)
    entries = manager._hierarchy.catalog.entries
    until = time.monotonic() + SECONDS
    modified = 0

    def version() -> int:
        return entries["a"].version

    def change(value: int) -> int:
        before = version()
        for _ in range(20):
            assert before == version()
        return value + 1

    def modify() -> None:
        nonlocal modified
        while time.monotonic() < until or modified <= 10:
            manager.modify("a", change)
            modified += 1

    def store() -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            manager.store("a", number)

    together([modify, store, store, store])
    manager.cleanup()


def test_a_reader_never_sees_an_older_version(tmp_path: Path) -> None:
    """A store by the short way first takes the old value out of the front cache."""
    manager = MemoryManager("1 MB", "1 MB", "20 MB", storage_path=tmp_path / "store")
    manager.store("a", 0)
    until = time.monotonic() + SECONDS

    def store() -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            manager.store("a", number)
            assert number == manager.retrieve("a")
            time.sleep(0.0005)  # After a few reads it is in the front.

    def read() -> None:
        latest = 0
        while time.monotonic() < until:
            found = manager.retrieve("a")
            assert latest <= found
            latest = found

    together([store, read, read, read])
    manager.cleanup()


def test_a_fork_in_the_middle_of_stores(tmp_path: Path) -> None:
    """The child can read and cannot write, and never hangs; the parent goes on."""
    manager = tiny(tmp_path / "store")
    manager.store("kept", b"value", "cold")
    until = time.monotonic() + SECONDS
    workers = [Worker(manager, number, until) for number in range(3)]

    def child() -> object:
        try:
            manager.store("by the child", 1)
        except Exception as error:
            return type(error).__name__, manager.retrieve("kept"), manager.exists("nothing")
        return "stored"

    answers = set()

    def fork() -> None:
        while time.monotonic() < until or not answers:
            answers.add(in_child(child))

    together([*workers, fork])
    assert {repr(("ForkedError", b"value", False))} == answers
    for worker in workers:
        for key, value in worker.held.items():
            assert value == manager.retrieve(key)
    manager.cleanup()
