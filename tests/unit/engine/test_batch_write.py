"""Many small values at once: the result is that of the calls one by one, also where one fails."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.values import identical
from tests.support.wholeness import assert_whole

from memories import (
    InvalidKeyError,
    InvalidOptionError,
    MemoryManager,
    Rule,
    StorageError,
    TierFullError,
    UnsupportedTypeError,
)
from memories.core import wiring
from memories.engine.batch_write import BATCH_KEYS, MAX_VALUE, BatchOutcome, BatchWriter
from memories.model.entry import Entry
from memories.model.events import Event
from memories.model.tiers import Cause, TierName
from memories.testing.clock import ManualClock
from memories.testing.faults import FailingFiles, flip

MANY = 2 * BATCH_KEYS + 10


class OneByOne(BatchWriter):
    """Leaves everything, so that the caller does all of it in the single way."""

    def store(self, *_: Any) -> int:
        return 0

    def write_back(self, entries: Sequence[Entry], *_: Any) -> list[Entry]:
        return list(entries)

    def demote(self, entries: Sequence[Entry], *_: Any) -> BatchOutcome:
        return BatchOutcome([], entries)

    def move(self, entries: Sequence[Entry], *_: Any) -> BatchOutcome:
        return BatchOutcome([], entries)

    def remove(self, keys: Sequence[str], *_: Any) -> tuple[int, list[str]]:
        return 0, list(keys)


def opened(path: Path, **options: Any) -> MemoryManager:
    given: dict[str, Any] = {"storage_path": path, "migration": False, "prefetch": "off"}
    return MemoryManager("1 MB", "1 MB", "20 MB", **given | options)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with opened(tmp_path) as made:
        yield made
        assert_whole(made)


def small(count: int) -> dict[str, bytes]:
    return {f"k{number}": b"value %d " % number * 20 for number in range(count)}


# -- equivalence ----------------------------------------------------------------------------------

keys = st.sampled_from(
    [f"{prefix}{number}" for prefix in ("a/", "b/", "cold/") for number in "123"]
)
values = st.one_of(
    st.binary(max_size=2000),
    st.integers(0, 9).map(lambda number: [number, {"of": "a list"}]),
    st.integers(1, 400).map(lambda count: np.arange(count)),
    st.just(b"large" * (MAX_VALUE // 4)),
)
tiers = st.sampled_from(["auto", "hot", "warm", "cold", "glacier"])
step = st.one_of(
    st.tuples(st.just("store_many"), st.dictionaries(keys, values, max_size=6), tiers),
    st.tuples(st.just("store"), keys, values, tiers, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0])),
    st.tuples(st.just("pin"), keys),
    st.tuples(st.just("drain"), st.sampled_from([TierName.HOT, TierName.WARM]), st.booleans()),
    st.tuples(st.just("rise")),
    st.tuples(st.just("delete_prefix"), st.sampled_from(["a/", "b/", "", "c"])),
    st.tuples(st.just("flush")),
    st.tuples(st.just("clear")),
)


class World:
    """A manager, and all that can be seen of it."""

    def __init__(self, path: Path, *, one_by_one: bool) -> None:
        self.clock = ManualClock()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wiring, "SystemClock", lambda: self.clock)
            self.manager = MemoryManager(
                "12 kB", "40 kB", "1 MB", True, storage_path=path / "store",
                glacier_url=str(path / "archive"), migration=False, prefetch="off",
                rules=[Rule(prefix="cold/", tier="cold"), Rule(prefix="b/", quota={"hot": "6 kB"})],
            )  # fmt: skip
        self.events: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        hierarchy = self.manager._hierarchy
        if one_by_one:
            hierarchy.mover.batch.__class__ = OneByOne
        hierarchy.events.subscribe(self.observe)

    def observe(self, event: Event) -> None:
        seen = {name: getattr(event, name) for name in event.__struct_fields__}
        left_out = ("at", "seconds", "key")
        shown = tuple(sorted((name, str(seen[name])) for name in seen.keys() - set(left_out)))
        self.events[event.key].append((type(event).__name__, *shown))

    def take(self, what: tuple[Any, ...]) -> object:
        """Take a step, and return what came of it."""
        manager, (name, *rest) = self.manager, what
        try:
            if name == "wait":
                self.clock.advance(rest[0])
            elif name == "store":
                key, value, tier, brief = rest
                manager.store(key, value, tier, ttl=10.0 if brief else None)
            elif name == "rise":
                self.rise()
            elif name == "drain":
                used = manager._hierarchy.tiers[rest[0]].budget.used
                manager._hierarchy.drain(rest[0], used // 2 if rest[1] else 0)
            else:
                return getattr(manager, name)(*rest)
        except (KeyError, TierFullError) as error:
            return type(error)
        return None

    def rise(self) -> None:
        """Move everything from warm to hot, as the migrator does, if there is room for all."""
        hierarchy = self.manager._hierarchy
        hierarchy.settlement.settle()
        warm = [one for one in hierarchy.catalog.entries.values() if one.tier is TierName.WARM]
        if sum(one.size for one in warm) > hierarchy.tiers[TierName.HOT].budget.headroom:
            return
        for entry in hierarchy.try_move_batch(warm, TierName.HOT, Cause.HIT).left:
            with suppress(TierFullError):  # A quota is used up.
                hierarchy.try_move(entry, TierName.HOT, Cause.HIT)

    def seen(self) -> dict[str, Any]:
        manager = self.manager
        stats = manager.stats()
        return {
            "tiers": {key: manager.get_tier(key) for key in manager},
            "keys": len(manager),
            "used": {name: tier.used_bytes for name, tier in stats.tiers.items() if name != "cold"},
            "live": manager._hierarchy.catalog.journal.usage().live,
            "stored": (stats.stored, stats.stored_bytes),
            "moves": (stats.moves, stats.moved_bytes),
            "removed": (stats.removed, stats.removed_bytes),
            "written": stats.written,
            "events": {key: list(events) for key, events in self.events.items()},
        }


@settings(max_examples=12, deadline=None)
@given(st.lists(step, min_size=1, max_size=12))
def test_a_batch_ends_as_the_single_calls_do(steps: list[tuple[Any, ...]]) -> None:
    """Same values, tiers, charges, counters and events per key, whatever was in between."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        worlds = [World(Path(name) / str(one), one_by_one=one) for one in (False, True)]
        batched, single = worlds
        for world in worlds:
            stack.callback(world.manager.cleanup)
        for what in steps:
            assert single.take(what) == batched.take(what), what
            assert single.seen() == batched.seen(), what
        held = [dict(world.manager) for world in worlds]
        assert held[0].keys() == held[1].keys()
        assert all(identical(value, held[0][key]) for key, value in held[1].items())
        for world in worlds:
            assert_whole(world.manager)


def test_many_values_are_stored_read_moved_and_removed(manager: MemoryManager) -> None:
    """More than a batch holds, in every order."""
    values = small(MANY)
    manager.store_many(values, "cold")
    assert values == manager.retrieve_many(reversed(values))
    assert MANY == len(manager)
    assert MANY - 100 == manager.delete_prefix("k") - 100
    manager.store_many(values, "warm")
    manager.flush()
    manager._hierarchy.drain(TierName.WARM, 0)
    assert Counter({"cold": MANY}) == Counter(map(manager.get_tier, manager))
    manager.clear()
    assert 0 == len(manager) == manager._hierarchy.catalog.journal.usage().live


def test_few_appends_serve_many_values(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what makes them fast; a lock, a look-up and a `write` each would not be."""
    files = manager._hierarchy.catalog.journal._files
    writes = 0

    def counted(write: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal writes
            writes += 1
            return write(*arguments)

        return call

    monkeypatch.setattr(files, "write", counted(files.write), raising=False)
    monkeypatch.setattr(files, "writev", counted(files.writev), raising=False)
    manager.store_many(small(MANY), "cold")
    manager.store_many({f"warm{number}": number for number in range(MANY)}, "warm")
    manager._hierarchy.flush()
    manager.delete_prefix("")
    assert 9 <= writes < 30


# -- failures -------------------------------------------------------------------------------------


class Reused(Mapping[str, np.ndarray]):
    """A mapping that makes its values in one buffer."""

    def __init__(self) -> None:
        self.buffer = np.zeros(10)

    def __getitem__(self, key: str) -> np.ndarray:
        self.buffer[:] = float(key)
        return self.buffer

    def __iter__(self) -> Iterator[str]:
        return map(str, range(20))

    def __len__(self) -> int:
        return 20


def test_a_mapping_may_reuse_its_memory(manager: MemoryManager) -> None:
    """A value is stored before the next one is asked for, unless all are there already."""
    manager.store_many(Reused(), "cold")
    for number in range(20):
        assert (manager[str(number)] == number).all()


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("bad", (lambda: 0), UnsupportedTypeError),
        ("", b"value", InvalidKeyError),
        ("huge", bytes(21_000_000), TierFullError),
    ],
)
def test_values_before_one_that_fails_are_stored(
    manager: MemoryManager, key: str, value: Any, error: type[Exception]
) -> None:
    """And none behind it, as if each had been stored for itself."""
    before, after = small(300), {f"after{number}": b"value" for number in range(300)}
    with pytest.raises(error):
        manager.store_many({**before, key: value, **after}, "cold")
    assert before == dict(manager)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("torn", [False, True])
def test_a_disk_that_fails_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, torn: bool
) -> None:
    """Some of the first values are stored, what is in RAM stays there, and reopening agrees."""
    files = FailingFiles(code=code, torn=torn, kinds=frozenset(("write", "writev")))
    monkeypatch.setattr(wiring, "DiskBackend", partial(wiring.DiskBackend, files=files))
    manager = opened(tmp_path)
    manager.store_many(small(5), "warm")
    cold = {f"cold{number}": bytes([number % 256]) * 300 for number in range(MANY)}
    manager.store("first", b"opens the log", "cold")
    files.arm(2, count=10_000)
    with pytest.raises(StorageError):
        manager.store_many(cold, "cold")
    stored = [key for key in manager if key.startswith("cold")]
    assert sorted(stored) == sorted(list(cold)[: len(stored)])
    assert BATCH_KEYS <= len(stored) < MANY
    with pytest.raises(StorageError, match="5 values could not be written"):
        manager.flush()
    assert_whole(manager)
    files.arm(0)
    manager.flush()
    held = dict(manager)
    assert {**small(5), **{key: cold[key] for key in stored}, "first": b"opens the log"} == held
    manager.cleanup()
    with opened(tmp_path) as again:
        assert held == dict(again)


@pytest.mark.parametrize("way", ["retrieve one", "retrieve", "store", "delete"])
def test_a_damaged_index_is_read_around(tmp_path: Path, way: str) -> None:
    """The short way finds it damaged, and leaves the keys to the one that makes it anew."""
    held: dict[str, bytes] = small(300)
    with opened(tmp_path) as manager:
        manager.store_many(held, "cold")
    for run in tmp_path.rglob("*.run"):
        at = run.read_bytes().find(b"k150")
        if at >= 0:  # Whether it is one run or two depends on when upkeep came.
            flip(run, at)
    with opened(tmp_path) as manager:
        match way:
            case "retrieve one":
                assert held["k150"] == manager.retrieve("k150")
            case "retrieve":
                assert held == manager.retrieve_many(held)
            case "store":
                held |= dict.fromkeys(list(held)[100:200], b"new")
                manager.store_many(dict.fromkeys(list(held)[100:200], b"new"), "cold")
            case "delete":
                assert 100 == manager.delete_many(list(held)[100:200])
                held = {key: held[key] for key in [*list(held)[:100], *list(held)[200:]]}
        assert held == dict(manager)
        assert len(held) == len(manager)
        assert_whole(manager)
    with opened(tmp_path) as manager:
        assert held == dict(manager)
        assert [] == manager.check()


def test_a_full_disk_refuses_the_values_that_do_not_fit(tmp_path: Path) -> None:
    """A batch writes what single stores would have written."""
    values = {f"k{number}": np.random.default_rng(number).bytes(3000) for number in range(400)}
    with MemoryManager(
        "1 MB", "1 MB", "1 MB", storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        with pytest.raises(TierFullError):
            manager.store_many(values, "cold")
        assert list(values)[: len(manager)] == sorted(manager, key=lambda key: int(key[1:]))
        assert len(manager) > 200
        assert_whole(manager)


def test_terms_forbid_in_a_batch_what_they_forbid_alone(tmp_path: Path) -> None:
    """A rule keeps its keys out of cold, and a pin keeps a key where it is."""
    with opened(tmp_path, rules=[Rule(prefix="fast/", max_tier="warm")]) as manager:
        with pytest.raises(InvalidOptionError):
            manager.store_many({"a": b"1", "fast/b": b"2", "c": b"3"}, "cold")
        assert ["a"] == list(manager)
        manager.store_many({"fast/b": b"2", "pinned": b"3", "d": b"4"}, "warm")
        entries = [manager._hierarchy.catalog.entries[key] for key in ("fast/b", "pinned", "d")]
        manager.pin("pinned")
        outcome = manager._hierarchy.try_move_batch(entries, TierName.COLD, Cause.RULE)
        assert ["d"] == [entry.key for entry in outcome.done]
        assert ["fast/b", "pinned"] == [entry.key for entry in outcome.left]
        assert ["warm", "warm", "cold"] == [manager.get_tier(entry.key) for entry in entries]


def test_a_busy_key_is_waited_for(manager: MemoryManager) -> None:
    """Another thread works on a key in the middle of the batch."""
    hierarchy, held, go_on = manager._hierarchy, threading.Event(), threading.Event()

    def hold() -> None:
        with hierarchy.locks.lock("k7"):
            held.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    threading.Timer(0.1, go_on.set).start()
    manager.store_many(small(20), "cold")
    thread.join(60)
    assert small(20) == dict(manager)
    assert [f"k{number}" for number in range(20)] == sorted(
        manager, key=lambda key: hierarchy.lookup(key).version
    )


class MovedMeanwhile(BatchWriter):
    """Another thread moves the values between the listing of the entries and their batch."""

    def write_back(self, entries: Sequence[Entry], *to: Any) -> list[Entry]:
        for entry in entries:
            self.move([entry], self._tiers.volatile[TierName.WARM], Cause.IDLE)
        return super().write_back(entries, *to)


def test_a_value_that_moves_during_a_flush_is_written(tmp_path: Path) -> None:
    """The normal end writes all values that are only in RAM, also those that migration moves."""
    with opened(tmp_path) as manager:
        for key, value in small(20).items():
            manager.store(key, value, "hot")
        manager._hierarchy.mover.batch.__class__ = MovedMeanwhile
    with opened(tmp_path) as manager:
        assert small(20) == dict(manager)
