"""A read in cold or glacier promotes the value with the copy that the read has made."""

from __future__ import annotations

import errno
import random
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.wholeness import assert_whole

from memories import MemoryManager, MigrationSettings
from memories.core import wiring
from memories.engine.tier import VolatileTier
from memories.model.events import Event, Failed
from memories.testing.faults import FailingFiles

LATE = MigrationSettings(interval_seconds=60.0)  # The background does nothing.


def opened(path: Path, **options: Any) -> MemoryManager:
    given: dict[str, Any] = {"storage_path": path, "migration": LATE, "prefetch": "off"}
    return MemoryManager("400 kB", "1600 kB", "100 MB", **given | options)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with opened(tmp_path) as made:
        yield made
        assert_whole(made)


def test_the_read_itself_promotes_an_array(manager: MemoryManager) -> None:
    """The entry shares the memory that the reader got, and keeps its backing copy."""
    array = np.arange(10_000.0)
    manager.store("a", array, "cold")
    first = manager.retrieve("a")
    assert "warm" == manager.get_tier("a")
    again = manager.retrieve("a")
    assert np.shares_memory(first, again)
    assert np.array_equal(array, again)
    assert not first.flags.writeable
    assert manager.explain("a").durable
    manager.demote("a")
    assert "cold" == manager.get_tier("a")
    assert 0 < manager.stats().tiers["warm"].used_bytes, "the reader still has its memory"
    del first, again
    assert 0 == manager.stats().tiers["warm"].used_bytes


@pytest.mark.parametrize("value", [b"bytes " * 4000, "text " * 4000], ids=["bytes", "str"])
def test_so_it_does_with_what_no_reader_can_change(manager: MemoryManager, value: Any) -> None:
    """Every reader gets the same object, so that the copy is for all."""
    manager.store("a", value, "cold")
    first = manager.retrieve("a")
    assert "warm" == manager.get_tier("a")
    assert manager.retrieve("a") is first
    assert value == first


@pytest.mark.parametrize("value", [np.arange(10_000.0), b"small"], ids=["array", "bytes"])
def test_what_was_fetched_from_the_archive_is_not_fetched_again(tmp_path: Path, value: Any) -> None:
    """A request takes a tenth of a second and costs money, however small the value is."""
    with opened(tmp_path, glacier_memory_enabled=True) as manager:
        manager.store("a", value, "glacier")
        manager.retrieve("a")
        assert "warm" == manager.get_tier("a")
        manager.demote("a")
        assert "cold" == manager.get_tier("a")
        assert np.array_equal(value, manager.retrieve("a"))
        assert_whole(manager)


def test_the_policy_is_asked_once_about_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal teaches the policy something, and the background must not repeat the question."""
    asked: list[str] = []

    def refuse(self: VolatileTier, key: str, size: int, *, hits: int) -> bool:
        asked.append(key)
        return False

    with opened(tmp_path) as manager:
        migrator = manager._services.migrator
        assert migrator is not None
        for key, value in {"array": np.zeros(10_000), "list": [np.zeros(10_000)]}.items():
            manager.store(key, value, "cold")
        monkeypatch.setattr(VolatileTier, "admits", refuse)
        for key in ("array", "list", "array"):
            manager.retrieve(key)
        manager._hierarchy.events.flush()
        migrator.tick()
        assert ["array", "array", "list"] == asked
        assert "cold" == manager.get_tier("list")


def test_what_is_small_large_or_bound_stays(manager: MemoryManager) -> None:
    """So does what a reader could change, and a value that only a region is read of."""
    array = np.arange(10_000.0)
    values = {"small": array[:100], "large": np.zeros(140_000), "list": [array, "text"]}
    for key, value in values.items():
        manager.store(key, value, "cold")
    manager.store("bound", array, "cold", min_tier="cold")
    manager.store("pinned", array, "cold", pin=True)
    manager.store("part", array, "cold")
    manager.retrieve("part", region=np.s_[:10])
    for key in ("small", "large", "list", "bound", "pinned"):
        manager.retrieve(key)
    for key in manager:
        assert "cold" == manager.get_tier(key), key


def test_a_reader_and_one_that_moves_nothing_promote_nothing(tmp_path: Path) -> None:
    """They only read."""
    with opened(tmp_path) as manager:
        manager.store("a", np.arange(10_000.0), "cold")
    for options in ({"read_only": True}, {"migration": MigrationSettings(promote=False)}):
        with opened(tmp_path, **options) as manager:
            manager.retrieve("a")
            assert "cold" == manager.get_tier("a")


@pytest.mark.parametrize("policy", ["auto", "lru"])
def test_ram_answers_what_lru_would_answer(tmp_path: Path, policy: str) -> None:
    """A walk over 200 tiles, kept by hand, fresh and over what the first run has left."""
    chance, at, keys = random.Random(4), 0, list[int]()
    for _ in range(300):
        at = (at + chance.choice((-1, 1, 2))) % 192
        keys += range(at, at + 8)
    room, held, wanted = 2_000_000 // 80_400, OrderedDict[int, None](), 0
    for key in keys:
        wanted += key in held
        held[key] = None
        held.move_to_end(key)
        if len(held) > room:
            held.popitem(last=False)
    for _ in range(2):
        with opened(tmp_path, eviction_policy=policy) as manager:
            for key in keys:
                if f"{key}" not in manager:
                    manager.store(f"{key}", np.full(10_000, float(key)))
                else:
                    assert key == manager.retrieve(f"{key}")[-1]
            tiers = manager.stats().tiers
            assert tiers["hot"].hits + tiers["warm"].hits >= 0.85 * wanted  # Hot stays as it was.
            assert_whole(manager)


def test_a_victim_that_cannot_be_written_spoils_no_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: the value stays in cold, observers learn of the error."""
    files = FailingFiles(code=errno.ENOSPC, kinds=frozenset(["create", "write", "writev"]))
    monkeypatch.setattr(wiring, "DiskBackend", partial(wiring.DiskBackend, files=files))
    seen: list[Event] = []
    with opened(tmp_path, eviction_policy="lru") as manager:
        manager.store("a", np.arange(10_000.0), "cold")
        for number in range(24):
            manager.store(f"ram {number}", np.zeros(10_000))
        manager._hierarchy.events.subscribe(seen.append)
        files.arm(1, count=10**9)
        assert np.array_equal(np.arange(10_000.0), manager.retrieve("a"))
        assert "cold" == manager.get_tier("a")
        assert [event for event in seen if isinstance(event, Failed)]
        files.arm(0)
        manager.retrieve("a")
        assert manager.get_tier("a") in ("hot", "warm")
        assert_whole(manager)


def test_small_values_come_up_together(tmp_path: Path) -> None:
    """One by one, a few hundred in a second would come, and a program waits for the disk for long.

    What was pinned or stored again since its read stays where it is.
    """
    with opened(tmp_path) as manager:
        migrator = manager._services.migrator
        assert migrator is not None
        values = {f"v/{n}": np.full(200, n) for n in range(900)}
        manager.store_many(values, "cold")
        manager.store("pinned", [b"later"], "cold", pin=True)
        assert len(manager.retrieve_many([*values, "pinned"])) == 901
        manager.store("v/7", b"newer", "cold")
        migrator.tick()
        assert 600 < sum("cold" != manager.get_tier(key) for key in values)
        assert "cold" == manager.get_tier("pinned")
        for key, value in values.items():
            if key != "v/7":
                assert np.array_equal(value, manager.retrieve(key))
        assert b"newer" == manager.retrieve("v/7")
        assert all(manager.explain(key).durable for key in values)
        assert_whole(manager)
