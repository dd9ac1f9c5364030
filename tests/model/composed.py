"""Everything a caller may do, in any order, against a dict: kills and other machines included.

`World` is a manager on a directory and a bucket, under a clock that stands still, and the model of
what it holds; `ComposedMachine` is the state machine over it. After each step the manager is
compared with the model, and its catalog, journal and archive with each other; the other views (a
read-only reader, a fresh machine on the bucket, a snapshot restored elsewhere) are compared as
often as the machine looks at them, and all of them at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.values import identical

from memories import KeyNotFoundError, MemoryManager, MigrationSettings, Rule, TierFullError
from memories.backends.bucket import BucketBackend
from memories.backends.bucket.local_db import LocalDb
from memories.backends.disk import DiskBackend
from memories.backends.disk.compaction import _empty_segment, run_upkeep
from memories.backends.disk.log import Log
from memories.core import wiring
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.snapshot.reader import open_snapshot
from memories.testing.clock import ManualClock

# Files in RAM, if there is such a place: nothing here cuts the power, and waiting for syncs costs
# more than all else.
SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SIZES = ("20 kB", "30 kB", "150 kB")  # Of hot, warm and cold: most stores push something down.
MOST_STEPS = 12  # Of one action, after which it is killed.
SMALL_BYTES, PACK_BYTES = 12_000, 40_000  # In the archive, where frames travel in packs.
RULES = (
    Rule(prefix="brief/", ttl=20),
    Rule(prefix="old/", move_to="glacier", after=30),
    Rule(prefix="c/", quota={"hot": "8 kB"}),
)
KEYS = ["a", "b", "c/d", "c/e", "é", "x" * 200, "../up", "brief/k", "old/k"]
TIERS = ["hot", "warm", "cold", "glacier"]
COUNTS = [0, 5, 200, 1200, 4000]  # Numbers in an array, of eight bytes each.
MODES = ["replace", "merge", "keep"]


class Item(NamedTuple):
    """What a key holds."""

    value: Any
    ends: float | None = None
    metadata: tuple[tuple[str, Any], ...] = ()

    def same(self, other: Item | None) -> bool:
        """Return whether `other` is the same in every respect."""
        return (
            other is not None
            and identical(self.value, other.value)
            and (self.ends, self.metadata) == (other.ends, other.metadata)
        )


class Saved(NamedTuple):
    """A snapshot: its file, what it holds, and whether it refers to the archive."""

    path: Path
    items: dict[str, Item]
    refers: bool


def made(count: int, number: int) -> Any:
    """Return a value that no other call has made."""
    if count == 0:
        return {"number": number, "name": f"é{number}", "list": [number, None, b"x" * 10]}
    return np.random.default_rng(number).integers(0, 2**60, count)


class World:
    """A manager, where its data lie, and the model of them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memories-model-", dir=SHARED))
        self.clock = ManualClock()
        self.model: dict[str, Item] = {}
        # What a kill may leave of a key in the place of what the model says; None is absence.
        self.perhaps: dict[str, list[Item | None]] = {}
        self.saved: list[Saved] = []
        self.made = self.places = 0
        self.store, self.bucket = self.place("store"), self.place("bucket")
        self.manager = self.open()

    # -- the parts -------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Return a path where nothing lies yet."""
        self.places += 1
        return self.folder / f"{name}-{self.places}"

    def new(self, count: int) -> Any:
        """Return a value that was never stored before."""
        self.made += 1
        return made(count, self.made)

    def open(
        self, store: Path | None = None, bucket: Path | None = None, **options: Any
    ) -> MemoryManager:
        """Open a manager under the clock of this world; nothing moves but by a step of it.

        No opening is in the same moment as another: that tells versions of one number apart.
        """
        self.clock.advance(0.02)
        with patch.object(wiring, "SystemClock", lambda: self.clock):
            manager = MemoryManager(
                *SIZES,
                True,
                storage_path=store or self.store,
                glacier_url=bucket or self.bucket,
                migration=MigrationSettings(interval_seconds=3600),
                rules=RULES,
                **options,
            )
        if not options.get("read_only"):
            # Pending files are copied when a step says so, not when a thread gets to it.
            imports = self.journal(manager)._imports
            assert imports is not None
            imports.start = lambda done: imports._callbacks.append(done)  # type: ignore[method-assign]
        archive = self.archive(manager)
        archive._limits = replace(archive._limits, small_bytes=SMALL_BYTES)
        archive._packs._pack_bytes = PACK_BYTES
        return manager

    @staticmethod
    def journal(manager: MemoryManager) -> DiskBackend:
        """Return the cold tier's store."""
        return cast(DiskBackend, manager._services.backends[0])

    @staticmethod
    def archive(manager: MemoryManager) -> BucketBackend:
        """Return the glacier tier's store."""
        return cast(BucketBackend, manager._services.backends[1])

    def close(self) -> None:
        """Remove everything."""
        self.manager.cleanup()
        shutil.rmtree(self.folder)

    # -- the model -------------------------------------------------------------------------------

    def expire(self) -> None:
        """Forget what has outlived its time."""
        now = self.clock.wall()
        self.model = {key: one for key, one in self.model.items() if not ended(one, now)}

    def wrote(self, key: str, item: Item, *, durable: bool, volatile: bool = False) -> None:
        """Learn of a store: what overwrites a durable value is durable, unless it is volatile."""
        held = key in self.model and None not in self.perhaps.get(key, [])
        if durable or (held and not volatile):
            self.perhaps.pop(key, None)
        else:
            self.perhaps[key] = [None]
        self.model[key] = item

    def amended(self, key: str, ends: float | None, metadata: tuple[tuple[str, Any], ...]) -> None:
        """Learn of other terms: they are durable where the value is, and here or nowhere else."""
        item = self.model[key]._replace(ends=ends, metadata=metadata)
        if self.journal(self.manager).is_pending(key):
            self.perhaps.setdefault(key, [None])
        self.model[key] = item

    def removed(self, key: str) -> None:
        """Learn of a removal, which is durable where the value was."""
        del self.model[key]
        self.perhaps.pop(key, None)

    def expected(self, key: str) -> list[Item | None]:
        """Return what may be found of a key after a kill."""
        now = self.clock.wall()
        found = [self.model.get(key), *self.perhaps.get(key, [])]
        return [None if one is None or ended(one, now) else one for one in found]

    # -- comparing -------------------------------------------------------------------------------

    def item(self, manager: MemoryManager, key: str) -> Item | None:
        """Return what a manager says of a key."""
        try:
            terms = manager._hierarchy.lookup(key).terms
            return Item(manager.retrieve(key), terms.expires_at, tuple(terms.metadata.items()))
        except KeyNotFoundError:
            return None

    def compare(self, view: str, manager: MemoryManager, items: Mapping[str, Item]) -> None:
        """Compare all that a manager holds with what it should hold."""
        now = self.clock.wall()
        items = {key: one for key, one in items.items() if not ended(one, now)}
        expected = sorted(items, key=str.encode)
        assert expected == list(manager), view
        for key in KEYS:
            found = self.item(manager, key)
            if key in items:
                assert items[key].same(found), (view, key, items[key], found)
            else:
                assert found is None, (view, key)

    @staticmethod
    def archived(manager: MemoryManager) -> dict[str, Record]:
        """Return the records of what the journal says the archive holds, too."""
        return {
            record.key: record
            for record in World.journal(manager).scan()
            if record.archived or record.tier is TierName.GLACIER
        }

    @staticmethod
    def agree(manager: MemoryManager) -> None:
        """Compare catalog, journal and archive with each other."""
        journal, catalog = World.journal(manager), manager._hierarchy.catalog
        for entry in list(catalog.entries.values()):
            record = journal.lookup(entry.key)
            if entry.backed is None:
                assert record is None, (entry, record)
            else:
                assert record is not None and entry.version == record.version, (entry, record)
                assert entry.backed is record.tier, (entry, record)
        said = {key: (one.version, one.terms) for key, one in World.archived(manager).items()}
        held = {one.key: (one.version, one.terms) for one in World.archive(manager).records()}
        assert said == held, "journal and archive"

    def look(self) -> None:
        """Compare the manager with the model, and its parts with each other."""
        self.agree(self.manager)
        with self.undisturbed():
            self.compare("own", self.manager, self.model)
        now = self.clock.wall()
        assert all(not ended(one, now) for one in self.model.values())
        for tier in self.manager.stats().tiers.values():
            assert 0 <= tier.used_bytes <= tier.effective_bytes, tier

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let reads leave no trace that migration would follow."""
        yield
        migrator = self.manager._services.migrator
        assert migrator is not None
        self.manager._hierarchy.events.flush()
        migrator._promotions.clear()

    def look_as_reader(self) -> None:
        """Compare what a read-only reader sees beside the writer: what is durable, never older."""
        reader = self.open(read_only=True)
        try:
            for key in KEYS:
                found = self.item(reader, key)
                allowed = self.expected(key)
                assert matches(found, allowed), ("reader", key, allowed, found)
        finally:
            reader.cleanup()

    def look_afresh(self) -> None:
        """Compare what a fresh machine finds in the bucket with what is archived here."""
        self.archive(self.manager).sync()
        bucket, store = self.place("bucket"), self.place("fresh")
        shutil.copytree(self.bucket, bucket)
        forget_writer(bucket)
        fresh = self.open(store, bucket)
        try:
            entries = self.manager._hierarchy.catalog.entries
            archived = self.archived(self.manager)
            items = {key: one for key, one in self.model.items() if key in archived}
            for key in items:
                assert key not in entries or entries[key].version == archived[key].version
            self.compare("fresh", fresh, items)
        finally:
            fresh.cleanup()
            shutil.rmtree(store)
            shutil.rmtree(bucket)

    def look_elsewhere(self, saved: Saved, verify: str = "full") -> None:
        """Compare what a snapshot gives in another store with what it was made of."""
        bucket, store = self.place("bucket"), self.place("elsewhere")
        if saved.refers:
            shutil.copytree(self.bucket, bucket)
            forget_writer(bucket)
        other = self.open(store, bucket)
        try:
            other.restore_snapshot(saved.path, verify=verify)
            now = self.clock.wall()
            items = {key: one for key, one in saved.items.items() if not ended(one, now)}
            self.compare("elsewhere", other, items)
        finally:
            other.cleanup()
            shutil.rmtree(store)
            shutil.rmtree(bucket)

    def look_everywhere(self) -> None:
        """Compare every view there is."""
        self.look()
        self.look_as_reader()
        self.look_afresh()
        for saved in self.saved[-2:]:
            self.look_elsewhere(saved)
        self.look()

    def come_home(self) -> None:
        """Wait for what a restore brings home in the background, unless that waits itself."""
        home = self.manager._lifecycle.tier_restore
        if home is not None and home._thread is not None and home._imported.is_set():
            home._thread.join()

    # -- ends ------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Go on with what lies in the files now, as after a kill.

        The threads are ended where a kill might find them, between two things that they do.
        """
        self.halt()
        self.go_on_with(*self.files())

    def kill_within(self, action: Callable[[], object], steps: int) -> None:
        """Do the same in the middle of an action: after every step of it that lasts.

        A step is a record in the log or a transaction of the archive's map. Of each key the old or
        the new state is there then. Go on with what was there after so many `steps`.
        """
        before = {key: self.expected(key) for key in KEYS}
        self.halt()
        taken: list[tuple[Path, Path]] = []

        def step() -> None:
            if len(taken) < MOST_STEPS:
                taken.append(self.files())

        execute, append = LocalDb._execute, Log.append

        def executed(state: LocalDb, statement: str, values: Any = ()) -> Any:
            result = execute(state, statement, values)
            if statement == "COMMIT" and state.path.is_relative_to(self.store):
                step()
            return result

        def appended(log: Log, *arguments: Any) -> Any:
            result = append(log, *arguments)
            step()
            return result

        with patch.object(LocalDb, "_execute", executed), patch.object(Log, "append", appended):
            action()
        taken.append(self.files())
        chosen = taken.pop(steps % len(taken))
        self.manager.cleanup(flush=False)
        for store, bucket in [(self.store, self.bucket), *taken]:
            if store is not self.store:
                killed = self.open(store, bucket)
                try:
                    self.survivors(killed, before)
                    self.agree(killed)
                finally:
                    killed.cleanup()
            shutil.rmtree(store)
            shutil.rmtree(bucket)
        self.store, self.bucket = chosen
        self.recover(before)

    def files(self) -> tuple[Path, Path]:
        """Return copies of the directory and of the bucket as they are now."""
        store, bucket = self.place("store"), self.place("bucket")
        shutil.copytree(self.store, store)
        shutil.copytree(self.bucket, bucket)
        return store, bucket

    def go_on_with(self, store: Path, bucket: Path) -> None:
        """Give the manager up, and what it writes at its end."""
        self.manager.cleanup(flush=False)
        shutil.rmtree(self.store)
        shutil.rmtree(self.bucket)
        self.store, self.bucket = store, bucket

    def halt(self) -> None:
        """End the threads of the manager."""
        restore = self.manager._lifecycle.tier_restore
        if restore is not None:
            restore.stop()
        services = self.manager._services
        for part in (services.migrator, services.prefetching):
            if part is not None:
                part.stop()
        journal = self.journal(self.manager)
        assert journal._imports is not None and journal._maintenance is not None
        journal._imports.stop()
        journal._maintenance.stop()
        for upkeep in self.archive(self.manager)._maintenance._threads:
            upkeep.stop()

    def recover(self, before: Mapping[str, list[Item | None]] | None = None) -> None:
        """Open again after a kill, and see that of each key one of its possible states is there.

        `before` are the possible states before what the kill has interrupted.
        """
        self.manager = self.open()
        self.model, self.perhaps = self.survivors(self.manager, before), {}
        for key in self.model:
            self.manager.unpin(key)

    def survivors(
        self, manager: MemoryManager, before: Mapping[str, list[Item | None]] | None
    ) -> dict[str, Item]:
        """Return what a manager holds that was opened after a kill."""
        found: dict[str, Item] = {}
        for key in KEYS:
            one, allowed = self.item(manager, key), self.expected(key)
            allowed += before[key] if before is not None else []
            assert matches(one, allowed), ("killed", key, allowed, one)
            if one is not None:
                found[key] = one
        return found


def ended(item: Item, now: float) -> bool:
    return item.ends is not None and item.ends <= now


def matches(found: Item | None, allowed: list[Item | None]) -> bool:
    return any(found is None if one is None else one.same(found) for one in allowed)


def forget_writer(bucket: Path) -> None:
    """Make the lease of a writer so old that no process waits for it."""
    for path in bucket.rglob("lock/writer"):
        os.utime(path, (0, 0))


keys = st.sampled_from(["a", "a", "a", "b", "b", *KEYS])  # What happens to one key is what tells.
tiers = st.sampled_from(TIERS)
counts, numbers = st.sampled_from(COUNTS), st.integers(0, len(KEYS) - 1)


class ComposedMachine(RuleBasedStateMachine):
    """What may be done to a `World`."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def teardown(self) -> None:
        """Look at everything once more, and after a reopening."""
        world = self.world
        try:
            if world.manager._lifecycle.closed:
                return  # A step has failed in the middle of a kill.
            world.look_everywhere()
            world.manager.cleanup()
            world.manager = world.open()
            world.perhaps.clear()
            world.look_everywhere()
        finally:
            world.close()

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        self.world.expire()
        self.world.look()

    @initialize()
    def begin(self) -> None:
        """Have something in every tier, some of it on its way."""
        for key, tier in zip(KEYS, [*TIERS, *TIERS], strict=False):
            self.store(key, 200, tier, None, True, False)
        self.world.archive(self.world.manager).sync()

    # -- values ----------------------------------------------------------------------------------

    @rule(
        key=keys,
        count=counts,
        tier=st.just("auto") | tiers,
        ttl=st.none() | st.just(10.0),
        words=st.booleans(),
        volatile=st.booleans(),
    )
    def store(
        self, key: str, count: int, tier: str, ttl: float | None, words: bool, volatile: bool
    ) -> None:
        """Store anything anywhere."""
        world = self.world
        value, number = world.new(count), world.made
        metadata = {"number": number, "unit": "K"} if words else {}
        volatile = volatile and tier not in ("cold", "glacier")
        world.manager.store(key, value, tier, ttl=ttl, metadata=metadata or None, volatile=volatile)
        ttl = 20.0 if ttl is None and key.startswith("brief/") else ttl
        ends = None if ttl is None else world.clock.wall() + ttl
        item = Item(value, ends, tuple(metadata.items()))
        durable = tier in ("cold", "glacier")
        world.wrote(key, item, durable=durable, volatile=volatile)

    @rule(key=keys, first=counts, second=counts, tier=tiers)
    def overwrite(self, key: str, first: int, second: int, tier: str) -> None:
        """Archive a value, and replace it."""
        world = self.world
        world.manager.store(key, world.new(first), "glacier")
        self.store(key, second, tier, None, False, False)

    @rule(count=counts, tier=st.just("auto") | tiers, some=st.sets(keys, max_size=4))
    def store_many(self, count: int, tier: str, some: set[str]) -> None:
        world = self.world
        values = {key: world.new(count) for key in sorted(some)}
        world.manager.store_many(values, tier)
        for key, value in values.items():
            ends = world.clock.wall() + 20 if key.startswith("brief/") else None
            world.wrote(key, Item(value, ends), durable=tier in ("cold", "glacier"))

    @rule(key=keys, count=counts)
    def modify(self, key: str, count: int) -> None:
        """Replace a value by another one; it stays where it is, under its terms."""
        world = self.world
        if key not in world.model:
            with pytest.raises(KeyNotFoundError):
                world.manager.modify(key, lambda old: old)
            return
        value = world.new(count)
        tier = world.manager.get_tier(key)
        world.manager.modify(key, lambda old: value)
        item = world.model[key]._replace(value=value)
        world.wrote(key, item, durable=tier in ("cold", "glacier"))

    @rule(key=keys)
    def delete_absent(self, key: str) -> None:
        if key not in self.world.model:
            with pytest.raises(KeyNotFoundError):
                self.world.manager.delete(key)

    @rule(at=numbers)
    def delete(self, at: int) -> None:
        key = self.there(at)
        if key is not None:
            self.world.manager.delete(key)
            self.world.removed(key)

    @rule(at=numbers, new=keys, renamed=st.booleans())
    def copy(self, at: int, new: str, renamed: bool) -> None:
        """Give a value another key: besides its own, or instead of it."""
        world, key = self.world, self.there(at)
        if key is None:
            return
        manager = world.manager
        pending = world.journal(manager).is_pending(key)
        durable = manager.info(key).durable or pending
        (manager.rename if renamed else manager.copy)(key, new)
        if key == new:
            return
        perhaps = [None] if None in world.perhaps.get(key, []) else []
        world.wrote(new, world.model[key], durable=durable and not perhaps)
        if renamed:
            world.removed(key)

    @rule(at=numbers, ttl=st.sampled_from([None, 5.0, 30.0]), words=st.booleans())
    def set_terms(self, at: int, ttl: float | None, words: bool) -> None:
        """Change the end and the metadata of a key."""
        world, key = self.world, self.there(at)
        if key is None:
            return
        metadata = {"number": world.made, "unit": "m"} if words else {}
        world.manager.set_terms(key, ttl=ttl, metadata=metadata)
        ends = None if ttl is None else world.clock.wall() + ttl
        world.amended(key, ends, tuple(metadata.items()))

    @rule(at=numbers)
    def touch(self, at: int) -> None:
        """Let a key live on."""
        world, key = self.world, self.there(at)
        if key is not None:
            world.manager.touch(key, ttl=15.0)
            world.amended(key, world.clock.wall() + 15.0, world.model[key].metadata)

    @rule(some=st.sets(keys, max_size=4))
    def delete_many(self, some: set[str]) -> None:
        world = self.world
        gone = some & set(world.model)
        assert len(gone) == world.manager.delete_many(sorted(some))
        for key in gone:
            world.removed(key)

    @rule(prefix=st.sampled_from(["c/", "a", "x", "old", "nothing"]))
    def delete_prefix(self, prefix: str) -> None:
        world = self.world
        gone = [key for key in world.model if key.startswith(prefix)]
        assert len(gone) == world.manager.delete_prefix(prefix)
        for key in gone:
            world.removed(key)

    @rule(purge=st.booleans())
    def clear(self, purge: bool) -> None:
        world = self.world
        world.manager.clear(purge=purge)
        world.model.clear()
        world.perhaps.clear()

    @rule(key=keys, times=st.integers(1, 3), copy=st.none() | st.booleans())
    def read(self, key: str, times: int, copy: bool | None) -> None:
        """Read a value so often that it may rise."""
        world = self.world
        for _ in range(times):
            found = world.manager.retrieve(key, "absent", copy=copy)
            item = world.model.get(key)
            assert identical("absent" if item is None else item.value, found)

    # -- places ----------------------------------------------------------------------------------

    def moved(self, key: str, tier: str) -> None:
        """Learn that a key has come to a tier."""
        journal = self.world.journal(self.world.manager)
        if tier in ("cold", "glacier") and not journal.is_pending(key):
            self.world.perhaps.pop(key, None)

    def there(self, at: int) -> str | None:
        """Return one of the keys that are there, if any is."""
        keys = sorted(self.world.model)
        return keys[at % len(keys)] if keys else None

    @rule(at=numbers, tier=tiers)
    def migrate(self, at: int, tier: str) -> None:
        key, manager = self.there(at), self.world.manager
        if key is None:
            return
        before = manager.get_tier(key)
        try:
            manager.migrate(key, tier)
        except TierFullError:
            assert tier in ("hot", "warm"), "there is always room further down"
            tier = before
        assert tier == manager.get_tier(key)
        self.moved(key, tier)

    @rule(at=numbers, up=st.booleans())
    def step(self, at: int, up: bool) -> None:
        """Promote or demote."""
        key, manager = self.there(at), self.world.manager
        if key is None:
            return
        names = TIERS[::-1] if up else TIERS
        there = names.index(manager.get_tier(key))
        try:
            found = (manager.promote if up else manager.demote)(key)
        except TierFullError:
            assert up, "there is always room further down"
            found = names[there]
        else:
            assert names[min(there + 1, len(names) - 1)] == found
        assert found == manager.get_tier(key)
        self.moved(key, found)

    @rule(at=numbers)
    def pin(self, at: int) -> None:
        """Change the terms of a key, and back: a full tier of pinned keys is another test's."""
        key, manager = self.there(at), self.world.manager
        if key is None:
            return
        manager.pin(key)
        with self.world.undisturbed():
            self.world.agree(self.world.manager)
        manager.unpin(key)

    @rule(tier=st.sampled_from(["hot", "warm", "cold"]), share=st.sampled_from([0.0, 0.5]))
    def pressure(self, tier: str, share: float) -> None:
        """Empty a tier, or half of it, into those below."""
        hierarchy = self.world.manager._hierarchy
        name = TierName(tier)
        hierarchy.drain(name, int(share * hierarchy.tiers[name].budget.used))

    @rule(at=numbers)
    def hover(self, at: int) -> None:
        """Have a key in RAM while its copy goes from cold to glacier."""
        key, manager = self.there(at), self.world.manager
        if key is not None:
            for tier in ("cold", "warm"):
                self.migrate(sorted(self.world.model).index(key), tier)
            manager._hierarchy.drain(TierName.COLD, 0)

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 12.0, 40.0]))
    def tick(self, seconds: float) -> None:
        """Let time pass, and migration look twice: for what expires, for rules, for heat."""
        world = self.world
        world.clock.advance(seconds)
        world.expire()
        migrator = world.manager._services.migrator
        assert migrator is not None
        migrator.tick()
        migrator.tick()
        assert 0 == migrator.failures

    @rule()
    def flush(self) -> None:
        self.world.manager.flush()
        self.world.perhaps.clear()
        self.world.come_home()

    @rule()
    def finish_imports(self) -> None:
        """Copy pending files, and nothing else."""
        world = self.world
        world.journal(world.manager)._importing().finish()
        world.come_home()

    # -- upkeep ----------------------------------------------------------------------------------

    @rule(grace=st.sampled_from([0.0, 5.0]))
    def reclaim(self, grace: float) -> None:
        """Move what lives out of sparse packs and unlink what is dead."""
        self.world.archive(self.world.manager).reclaim(grace)

    @rule()
    def sum_up(self) -> None:
        """Have the archive write what it holds into a manifest."""
        archive = self.world.archive(self.world.manager)
        archive._maintenance.collector.write_manifests(least=1)

    @rule()
    def compact(self) -> None:
        """Empty every segment and pack that has dead bytes, and merge the index."""
        writer = self.world.journal(self.world.manager)._writer
        assert writer is not None
        writer.checkpoint(seal=True)
        run_upkeep(writer, lambda: None, quiet=True)

    @rule(at=numbers)
    def compact_one(self, at: int) -> None:
        """Empty one segment, whatever is dead in it, and have the log tell its history again."""
        writer = self.world.journal(self.world.manager)._writer
        assert writer is not None
        writer.checkpoint(seal=True)
        with writer.upkeep_lock:
            segments = sorted(
                one
                for one in writer.accounting.segments
                if one < writer.index_files.covered.segment
            )
            if segments:
                assert _empty_segment(writer, segments[at % len(segments)], lambda: None)
        writer.rebuild()

    @rule(repair=st.booleans())
    def check(self, repair: bool) -> None:
        assert [] == self.world.manager.check(repair)

    # -- snapshots -------------------------------------------------------------------------------

    @rule(
        archived=st.sampled_from([True, False, "reference"]),
        incremental=st.booleans(),
        portable=st.booleans(),
    )
    def snapshot(self, archived: Any, incremental: bool, portable: bool) -> None:
        world = self.world
        base = world.saved[-1] if incremental and world.saved else None
        path = world.place("snapshot")
        items = dict(world.model)
        if archived is False:
            items = {k: v for k, v in items.items() if world.manager.get_tier(k) != "glacier"}
        world.manager.create_snapshot(
            path,
            include_glacier=archived,
            base=None if base is None else base.path,
            portable=portable,
        )
        with open_snapshot(path) as file:
            refers = bool(file.references)
        world.saved.append(Saved(path, items, refers))

    @rule(
        at=numbers,
        mode=st.sampled_from(MODES),
        verify=st.sampled_from(["full", "lazy"]),
        wait=st.booleans(),
    )
    def restore(self, at: int, mode: str, verify: str, wait: bool) -> None:
        self.restore_one(at, mode, verify, wait=wait)

    def restore_one(self, at: int, mode: str, verify: str, *, wait: bool) -> None:
        """Restore one of the snapshots, if there is any, and learn what that changes."""
        world = self.world
        if not world.saved:
            return
        saved = world.saved[at % len(world.saved)]
        world.manager.restore_snapshot(saved.path, mode=mode, verify=verify, wait=wait)
        world.come_home()
        now = world.clock.wall()
        items = {key: one for key, one in saved.items.items() if not ended(one, now)}
        if mode == "keep":
            items = {key: one for key, one in items.items() if key not in world.model}
        gone = set(world.model) - set(items) if mode == "replace" else set()
        journal, entries = world.journal(world.manager), world.manager._hierarchy.catalog.entries
        for key in [*items, *gone]:
            before = [world.model.get(key), *world.perhaps.pop(key, [])]
            record = journal.lookup(key)
            if key in gone:
                del world.model[key]
                done = journal._overlay() is None
            else:
                world.model[key] = items[key]
                done = record is not None and not journal.is_pending(key)
                if done and key in entries:
                    done = entries[key].version == record.version  # type: ignore[union-attr]
            if not done:
                world.perhaps[key] = [*before, None]

    @rule(at=numbers, verify=st.sampled_from(["full", "lazy"]))
    def restore_elsewhere(self, at: int, verify: str) -> None:
        saved = self.world.saved
        if saved:
            self.world.look_elsewhere(saved[at % len(saved)], verify)

    @rule(
        key=keys,
        count=counts,
        fate=st.sampled_from(["delete", *TIERS]),
        archived=st.sampled_from([True, "reference"]),
        incremental=st.booleans(),
        mode=st.none() | st.sampled_from(MODES),
        grace=st.none() | st.sampled_from([0.0, 5.0]),
    )
    def come_back(
        self,
        key: str,
        count: int,
        fate: str,
        archived: Any,
        incremental: bool,
        mode: str | None,
        grace: float | None,
    ) -> None:
        """Save an archived value, or refer to it; lose or replace it; restore it, or do not."""
        world = self.world
        if incremental:
            self.snapshot(archived, False, False)
        self.store(key, count, "glacier", None, True, False)
        if grace is not None:
            self.reclaim(grace)
        self.snapshot(archived, incremental, False)
        if fate == "delete":
            world.manager.delete(key)
            world.removed(key)
        else:
            self.store(key, count, fate, None, False, False)
        if grace is not None:
            self.reclaim(grace)
        if mode is not None:
            self.restore_one(-1, mode, "full", wait=True)
        if grace is not None:
            self.reclaim(grace)
        self.look_afresh()

    @rule()
    def release(self) -> None:
        """Release what snapshots keep in the archive; those that refer to it are lost."""
        world = self.world
        for identity in world.manager.snapshots_in_archive():
            world.manager.release_snapshot(identity)
        world.saved = [saved for saved in world.saved if not saved.refers]

    # -- other views, and ends -------------------------------------------------------------------

    @rule()
    def look_as_reader(self) -> None:
        self.world.look_as_reader()

    @rule()
    def look_afresh(self) -> None:
        self.world.look_afresh()

    @rule()
    def reopen(self) -> None:
        world = self.world
        world.manager.cleanup()
        world.manager = world.open()
        world.perhaps.clear()

    @rule()
    def kill(self) -> None:
        self.world.kill()
        self.world.recover()

    @rule(
        what=st.sampled_from(
            ["store", "store", "store", "delete", "migrate", "pin", "restore", "copy", "rename"]
        ),
        at=numbers,
        count=counts,
        tier=st.just("auto") | tiers,
        mode=st.sampled_from(MODES),
        verify=st.sampled_from(["full", "lazy"]),
        volatile=st.booleans(),
        steps=st.integers(1, 8),
    )
    def kill_within(
        self,
        what: str,
        at: int,
        count: int,
        tier: str,
        mode: str,
        verify: str,
        volatile: bool,
        steps: int,
    ) -> None:
        """Kill it in the middle of a change: of each key the old or the new state is there."""
        world, key = self.world, self.there(at)
        if key is None:
            return
        actions: dict[str, Callable[[], None]] = {
            "store": lambda: self.store(key, count, tier, None, False, volatile),
            "delete": lambda: self.delete(at),
            "migrate": lambda: self.migrate(at, "glacier" if tier == "auto" else tier),
            "pin": lambda: self.pin(at),
            "restore": lambda: self.restore_one(at, mode, verify, wait=False),
            "copy": lambda: self.copy(at, KEYS[count % len(KEYS)], False),
            "rename": lambda: self.copy(at, KEYS[count % len(KEYS)], True),
        }
        world.kill_within(actions[what], steps)

    @rule(killed=st.booleans())
    def move_house(self, killed: bool) -> None:
        """Lose the machine, and go on with a new one that adopts the archive."""
        world = self.world
        archived = set(world.archived(world.manager))
        world.archive(world.manager).sync()
        if killed:
            world.kill()
            forget_writer(world.bucket)
        else:
            world.manager.cleanup()
        shutil.rmtree(world.store)
        world.store = world.place("store")
        world.manager = world.open()
        world.model = {key: one for key, one in world.model.items() if key in archived}
        world.perhaps.clear()

    @rule(
        count=counts,
        overwritten=st.sets(keys, max_size=2),
        deleted=st.sets(keys, max_size=2),
        grace=st.none() | st.just(5.0),  # A process that returns within it knows of the removal.
    )
    def visit(
        self, count: int, overwritten: set[str], deleted: set[str], grace: float | None
    ) -> None:
        """Close the store, let another machine change the archive, and come back."""
        world = self.world
        archived = set(world.archived(world.manager))
        world.manager.cleanup()
        world.perhaps.clear()
        other = world.open(world.place("other"))
        world.expire()
        try:
            for key in sorted(overwritten):
                if key in archived or key not in world.model:
                    value = world.new(count)
                    other.store(key, value, "glacier")
                    ends = world.clock.wall() + 20 if key.startswith("brief/") else None
                    world.model[key] = Item(value, ends)
                    archived.add(key)
            for key in sorted(deleted & archived & set(world.model)):
                other.delete(key)
                del world.model[key]
            if grace is not None:
                other.flush()
                world.archive(other).reclaim(grace)
        finally:
            other.cleanup()
        world.manager = world.open()
