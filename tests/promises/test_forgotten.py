"""A removed key is forgotten everywhere, and what is remembered of keys is bounded in bytes."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, FunctionType, ModuleType

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.waiting import until

from memories import MemoryManager, MigrationSettings
from memories.foundation.bounded_dict import BYTES_PER_KEY, BoundedDict
from memories.model.events import Moved
from memories.model.tiers import TierName
from memories.observe.move_log import LATEST

TIERS = ("auto", "hot", "warm", "cold", "glacier")
OFTEN = MigrationSettings(interval_seconds=0.02)


@pytest.fixture(scope="module", autouse=True)
def all_objects_are_seen() -> Iterator[None]:
    """Show these tests also what was there before them: a module may hold a key."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


def holders(prefix: str) -> Counter[str]:
    """Return the kinds of objects in this process that refer to a key with `prefix`."""
    found: Counter[str] = Counter()
    gc.collect()
    for holder in gc.get_objects():
        # Not `isinstance`, which asks an object that stands for another for its class.
        if not issubclass(type(holder), FrameType | FunctionType | ModuleType):
            for held in gc.get_referents(holder):
                if type(held) is str and held.startswith(prefix) and held != prefix:
                    found[type(holder).__qualname__] += 1
    return found


def use(manager: MemoryManager, keys: list[str]) -> None:
    """Store, read, move, fetch ahead, list and explain `keys`, in all tiers."""
    for number, key in enumerate(keys):
        manager.store(key, np.arange(50.0) + number, TIERS[number % len(TIERS)])
    for number, key in enumerate(keys):
        for _ in range(number % 6):
            manager.retrieve(key)
        if number % 7 == 0:
            manager.promote(key)
        if number % 11 == 0:
            manager.demote(key)
    manager.prefetch(keys[::5])
    assert len(keys) == len(list(manager.scan()))
    manager.explain(keys[0])
    manager._services.telemetry.document()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # Of objects of torch that are looked at.
@pytest.mark.parametrize("policy", ["auto", "lru", "s3fifo", "mq"])
def test_nothing_refers_to_a_removed_key(make: Make, policy: str) -> None:
    """Names that carry a time or a number come and go for ever, and each was kept somewhere."""
    manager = make("200 kB", "300 kB", eviction_policy=policy, migration=OFTEN)
    for turn in range(2):
        keys = [f"removed/{policy}/{turn}/{number}" for number in range(800)]
        use(manager, keys)
        for key in keys[1:]:
            manager.delete(key)
        assert 1 == manager.delete_prefix("removed/")
        del keys, key
    # What was noted of them is read by threads of their own; a checkpoint lets tombstones go.
    manager._hierarchy.catalog.journal._writer.checkpoint()  # type: ignore[union-attr]

    def left() -> Counter[str]:
        found = holders("removed/")
        found[Moved.__qualname__] = max(0, found[Moved.__qualname__] - LATEST)
        return +found

    until(lambda: not left())


def test_shadow_caches_hold_what_is_stored_and_no_more(make: Make) -> None:
    """400,000 keys came and went, and 300 MB of them stayed: a sample forgets what is gone."""
    manager = make("2 GB", "2 GB", migration=OFTEN)
    for number in range(6_000):
        manager.store(f"key/{number}", number)
        manager.delete(f"key/{number}")
    manager._hierarchy.settlement.settle()
    for name in (TierName.HOT, TierName.WARM):
        victims = manager._hierarchy.tiers[name].victims
        victims.drain_notes()
        policy = victims.policy  # type: ignore[attr-defined]
        policy.check()
        assert [0] * 4 == [len(shadow) for shadow in policy._shadows]


def test_one_removal_is_not_heard_after_the_next_store(make: Make) -> None:
    """What is stored again under the name of a removed key is a new key, and is learnt about."""
    manager = make("2 GB", "2 GB")
    for _ in range(3):
        manager.store("again", 1)
        manager.delete("again")
    manager.store("again", 1)
    manager._hierarchy.settlement.settle()
    victims = manager._hierarchy.tiers[TierName.HOT].victims
    victims.drain_notes()
    assert [1] * 4 == [len(shadow) for shadow in victims.policy._shadows]  # type: ignore[attr-defined]


def test_objects_of_the_collector_stay_as_many(tmp_path: Path) -> None:
    """Anything that is kept for a removed key, in any place, shows as one more object."""
    with MemoryManager("5 MB", "5 MB", "50 MB", storage_path=tmp_path / "store") as manager:
        migrator = manager._services.migrator
        assert migrator is not None

        def objects() -> int:
            manager._hierarchy.catalog.journal._writer.checkpoint()  # type: ignore[union-attr]
            while migrator._promotions:  # Up to a thousand records wait, for keys that went.
                migrator.tick()
            gc.collect()
            return len(gc.get_objects())

        for turn in range(4):
            for number in range(2000):
                key = f"{turn}/{number}"
                manager.store(key, [number], "cold" if number % 4 == 0 else "auto")
                manager.retrieve(key)
                manager.delete(key)
            if turn == 1:
                before = objects()
        # What other threads have yet to read of the last keys goes by itself.
        until(lambda: objects() - before < 1000)


def test_what_is_remembered_is_bounded_in_bytes() -> None:
    """A bound on the number of keys allows for gigabytes, as soon as keys are long."""
    recent: BoundedDict[str, int] = BoundedDict(1000)
    for number in range(1000):
        recent.set(f"short/{number}", number)
    assert 1000 == len(recent)
    for number in range(1000):
        recent.set(f"{number:04}".ljust(4096), number)
        recent.check()
    assert BYTES_PER_KEY * 1000 // 4096 >= len(recent) > 30
    assert 999 == recent.pop("0999".ljust(4096))
    recent.set("again", 1)
    recent.set("again", 2)
    recent.check()
    assert 2 == recent.get("again")
