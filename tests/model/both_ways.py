"""The short and the long way of a change, with the same operations: no caller sees a difference.

`BothWays` is two managers of one kind under clocks that show the same time; one of them takes the
long way for every change. `BothWaysMachine` calls both with the same arguments. The answers of each
call are compared, and what lies where after each step. Everything else is compared when a rule asks
for it: a question settles what the short way has put off, and then there would be nothing to find.

`play` runs the history that follows from a number. It is the same on every machine, while those of
hypothesis also depend on its version and on the modules that are imported, even if derandomized.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.model.composed import SHARED, World
from tests.support.values import identical

from memories import MemoryManager, MigrationSettings, Rule
from memories.core import wiring
from memories.model.events import Event
from memories.model.tiers import TierName
from memories.policies.registry import names
from memories.testing.clock import ManualClock

KEYS = ["a", "b", "c/d", "c/e", "é", "x" * 200, "brief/k", "pinned/k", "low/k", "full/k", "\x01"]
TIERS = ["hot", "warm", "cold"]
SIZES = {
    "tiny": ("2 kB", "3 kB", "200 kB"),  # Each holds a few values.
    "small": ("20 kB", "30 kB", "500 kB"),
    "roomy": ("1 MB", "1 MB", "20 MB"),
    "no hot": (0, "20 kB", "500 kB"),
}
RULES = [
    Rule(prefix="brief/", ttl=20),
    Rule(prefix="pinned/", pin=True),
    Rule(prefix="low/", max_tier="warm"),
    Rule(prefix="c/", quota={"hot": "1 kB", "warm": "8 kB"}),
    Rule(prefix="full/", tier="warm", move_to="cold", after=30),
]
VALUES: dict[str, Callable[[int], Any]] = {
    "none": lambda number: None,
    "int": lambda number: number,
    "large int": lambda number: 10**30 + number,
    "float": lambda number: number / 7,
    "text": lambda number: f"é{number}",
    "long text": lambda number: f"{number} " * 300,
    "bytes": lambda number: b"%d" % number,
    "1 KB": lambda number: b"%04d" % number * 256,
    "tuple": lambda number: (number, "two", None),
    "bytearray": lambda number: bytearray(b"%d" % number) * 20,
    "dict": lambda number: {"number": number, "list": [number, None, b"x" * 10]},
    "nested": lambda number: {"array": np.arange(20) + number, "more": [{"deep": number}]},
    "list": lambda number: [number] * 20,
    "set": lambda number: {number, "two"},
    "array": lambda number: np.arange(5) + number,
    "1 KB array": lambda number: np.arange(128.0) + number,
    "large array": lambda number: np.arange(2000) * number,
    "part of an array": lambda number: (np.arange(60) + number)[::3],
    "no codec": lambda number: (one for one in [number]),
}


class Answer(NamedTuple):
    """What a call gave: a value, or an error."""

    value: Any
    error: str = ""


class Side:
    """One of the two managers, and the events that its observers got."""

    def __init__(self, options: dict[str, Any], *, long: bool) -> None:
        self.long = long
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="memories-ways-", dir=SHARED))
        self.clock = ManualClock()
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.snapshots = 0
        # Hits of the front are credited when enough arrivals were settled, and in equal parts, so
        # that those of one key are an estimate (decision 043). Which values leave, and in which
        # order, follows from the hits: there is a front only where no value has to leave.
        self.has_front = options["sizes"] == "roomy"
        self.manager = self.open()

    def open(self) -> MemoryManager:
        """Open the store; nothing moves but by a step."""
        with patch.object(wiring, "SystemClock", lambda: self.clock):
            manager = MemoryManager(
                *SIZES[self.options["sizes"]],
                storage_path=self.folder / "store",
                migration=MigrationSettings(interval_seconds=3600),
                prefetch="off",
                rules=RULES if self.options["rules"] else [],
                eviction_policy=self.options["policy"],
                on_full=self.options["on_full"],
                write_through=self.options["write_through"],
            )
        if self.long:
            manager._hierarchy.residency.enabled = False
        maintenance = World.journal(manager)._maintenance
        assert maintenance is not None
        maintenance.stop()  # Upkeep would begin at another moment in each.
        migrator = manager._services.migrator
        assert migrator is not None
        migrator.stop()  # Its thread would settle what waits; a step calls it.
        if not self.has_front:
            manager._hierarchy.catalog.hide_from_front(lambda key: True)
        # Reads are shown to the migrator milliseconds later, many at once (decision 045). What is
        # stored in between may take the room for them, and differs: each is shown at once here.
        manager._hierarchy.events.reads_at_once = 1
        manager._hierarchy.events.subscribe(lambda event: self.events[event.key].append(event))
        return manager

    @property
    def estimates_hits(self) -> bool:
        """Return whether the front has answered reads since the store was opened."""
        return self.manager._hierarchy.catalog.front.hits > 0

    def close(self) -> None:
        """Remove everything."""
        try:
            self.manager.cleanup(flush=False)
        finally:
            shutil.rmtree(self.folder)

    def answer(self, call: Callable[[Side], Any]) -> Answer:
        """Return what a call gives, errors included."""
        try:
            return Answer(call(self))
        except Exception as error:
            text = f"{type(error).__name__}: {error}".replace(str(self.folder), "<folder>")
            return Answer(None, text)

    def entries(self) -> dict[str, Any]:
        """Return what lies in RAM now; this settles nothing."""
        return {
            key: (one.version, one.tier, one.size, one.stored_at, one.terms, one.backed)
            for key, one in self.manager._hierarchy.catalog.entries.items()
        }

    def check_budgets(self) -> None:
        """See that each tier is charged with at least what it holds, and never beyond its limit."""
        held: Counter[TierName] = Counter()
        for entry in self.manager._hierarchy.catalog.entries.values():
            held[entry.tier] += entry.size
        for name, tier in self.manager._hierarchy.tiers.volatile.items():
            used, effective = tier.budget.used, tier.budget.effective
            assert held[name] <= used <= effective, (name, held[name], used, effective)

    def at_rest(self) -> dict[str, Any]:
        """Return all that is known of every key, and in which order keys would leave each tier."""
        hierarchy = self.manager._hierarchy
        hierarchy.catalog.credit_front_hits()
        entries = hierarchy.catalog.entries
        found: dict[str, Any] = {
            "keys": list(self.manager),
            "length": len(self.manager),
            "stats": counted(self.manager),
            "usage": used(self.manager),
            "counts": dict(+hierarchy.catalog.counts),
            "backing": dict(+hierarchy.catalog.backing),
            "quotas": dict(+hierarchy.catalog.rules._held),
            "soonest": hierarchy.next_expiry(),
            "unwritten": sorted(hierarchy.unwritten_keys()),
        }
        for key in found["keys"]:
            at = hierarchy.lookup(key)
            record = hierarchy.catalog.record(key)
            found[key] = {
                "tier": at.tier, "version": at.version, "size": at.size, "terms": at.terms,
                "stored at": at.stored_at, "kind": type(at).__name__,
                "record": None if record is None else (record.version, record.tier, record.terms),
            }  # fmt: skip
            if not self.has_front:
                found[key]["explained"] = asdict(self.manager.explain(key))
            if key in entries and not self.has_front:
                entry = entries[key]
                tier = hierarchy.tiers.volatile[entry.tier]
                found[key] |= {
                    "hits": (entry.hits, entry.arrived_hits), "backed": entry.backed,
                    "idle since": tier.hit_clock.time_of(entry.stamp),
                    "offered": entry.link is not None,
                }  # fmt: skip
        return found


def counted(manager: MemoryManager) -> dict[str, Any]:
    """Return all counters, without the bytes on the disk: upkeep decides about these.

    Which keys are credited with the hits of a front depends on when it is emptied.
    """
    stats = manager.stats()
    has_front = manager._hierarchy.catalog.front.hidden is None
    tiers = {
        name: replace(tier, used_bytes=0, effective_bytes=0)
        if name.durable
        else replace(tier, hits=0 if has_front else tier.hits)
        for name, tier in stats.tiers.items()
    }
    return {**asdict(replace(stats, tiers=tiers)), "hits": stats.memory_hits}


def used(manager: MemoryManager) -> dict[str, float]:
    """Return how full the tiers in RAM are."""
    usage = manager.get_memory_usage()
    return {name: usage[name] for name in ("hot", "warm")}


def differences(one: Any, other: Any) -> Any:
    """Return the two, or where they are dicts only those items in which they differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one, other
    return {
        key: differences(one.get(key), other.get(key))
        for key in {*one, *other}
        if not identical(one.get(key), other.get(key))
    }


def differences_of_lists(one: list[Any], other: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return what the two have after the part at their beginning that is the same."""
    same = next(
        (at for at, (first, second) in enumerate(zip(one, other, strict=False)) if first != second),
        min(len(one), len(other)),
    )
    return one[same:], other[same:]


class BothWays:
    """Two managers that get the same calls."""

    def __init__(self, **options: Any) -> None:
        self.short, self.long = Side(options, long=False), Side(options, long=True)
        self.made = 0

    def close(self) -> None:
        """Close and remove both."""
        try:
            self.short.close()
        finally:
            self.long.close()

    def call(self, call: Callable[[Side], Any]) -> Answer:
        """Call both, and compare the answers."""
        expected, found = self.long.answer(call), self.short.answer(call)
        assert expected.error == found.error, (expected, found)
        assert identical(expected.value, found.value), differences(expected.value, found.value)
        return found

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        for side in (self.short, self.long):
            side.clock.advance(seconds)

    def compare_now(self) -> None:
        """Compare what lies where, without a question that would settle anything."""
        gc.collect()  # A view in a cycle, of an error and a frame, is charged until then.
        expected, found = self.long.entries(), self.short.entries()
        assert expected == found, differences(expected, found)
        for side in (self.short, self.long):
            side.check_budgets()

    def compare(self) -> None:
        """Compare everything that can be seen of both."""
        expected, found = self.long.at_rest(), self.short.at_rest()
        for name in {*expected, *found}:
            same = expected.get(name) == found.get(name)
            assert same, (name, differences(expected.get(name), found.get(name)))
        self.compare_events()

    def compare_events(self) -> None:
        """Compare the events of each key, in their order."""
        for key in {*self.long.events, *self.short.events}:
            expected, found = self.long.events[key], self.short.events[key]
            assert expected == found, (key, differences_of_lists(expected, found))
        self.long.events.clear()
        self.short.events.clear()

    def compare_departures(self, tier: str) -> None:
        """Empty a tier, and compare in which order the values leave.

        Once the front has answered reads, only which values leave: when it was emptied is not
        promised, and the hits that were credited then decide about the order.
        """
        left: list[list[tuple[str, str]]] = []
        for side in (self.long, self.short):
            side.manager.stats()  # What came before is in its place.
            order: list[tuple[str, str]] = []

            def note(event: Event, order: list[tuple[str, str]] = order) -> None:
                order.append((type(event).__name__, event.key))

            side.manager._hierarchy.events.subscribe(note)
            try:
                side.manager._hierarchy.drain(TierName(tier), 0)
            finally:
                side.manager._hierarchy.events.unsubscribe(note)
            left.append(order)
        if self.short.estimates_hits or self.long.estimates_hits:
            left = [sorted(order) for order in left]
        assert left[0] == left[1], differences_of_lists(*left)


QUESTIONS: dict[str, Callable[[MemoryManager], Any]] = {
    "none": lambda manager: None,
    "usage": used,
    "length": len,
    "keys": list,
    "stats": counted,
    "tiers": lambda manager: [manager.get_tier(key) for key in manager],
}


class Choice(NamedTuple):
    """What an argument may be: for hypothesis, and picked by a generator of random numbers."""

    strategy: st.SearchStrategy[Any]
    pick: Callable[[Random], Any]


def one_of(*values: Any) -> Choice:
    """Return the choice of one of `values`."""
    return Choice(st.sampled_from(values), lambda chance: chance.choice(values))


def between(least: int, most: int) -> Choice:
    """Return the choice of a number."""
    return Choice(st.integers(least, most), lambda chance: chance.randint(least, most))


def set_of(choice: Choice, most: int) -> Choice:
    """Return the choice of up to `most` values."""
    return Choice(
        st.sets(choice.strategy, max_size=most),
        lambda chance: {choice.pick(chance) for _ in range(chance.randint(0, most))},
    )


def list_of(least: int, most: int, *choices: Choice) -> Choice:
    """Return the choice of a list of tuples."""
    return Choice(
        st.lists(
            st.tuples(*[choice.strategy for choice in choices]), min_size=least, max_size=most
        ),
        lambda chance: [
            tuple([choice.pick(chance) for choice in choices])
            for _ in range(chance.randint(least, most))
        ],
    )


def some_of(**choices: Choice) -> Choice:
    """Return the choice of a dict with some of these keys."""
    return Choice(
        st.fixed_dictionaries(
            {}, optional={name: choice.strategy for name, choice in choices.items()}
        ),
        lambda chance: {
            name: choice.pick(chance) for name, choice in choices.items() if chance.random() < 0.3
        },
    )


questions = one_of(*sorted(QUESTIONS))
keys = one_of("a", "a", "a", "b", "b", *KEYS)
kinds = one_of(*sorted(VALUES))
tiers = one_of(*TIERS)
tiers_or_auto = one_of("auto", *TIERS)
truths = one_of(False, True)
deeds = one_of("store", "store", "store", "store into warm", "delete", "exists", "retrieve")
BEGINNING = {
    "sizes": one_of(*sorted(SIZES)),
    "rules": truths,
    "policy": one_of("auto", "auto", "auto", *names()),
    "on_full": one_of("raise", "raise", "evict"),
    "write_through": one_of(False, False, False, True),
}
STEPS: list[tuple[str, dict[str, Choice]]] = []  # The rules, and the arguments of each.

Step = Callable[..., None]


def strategies(choices: dict[str, Choice]) -> dict[str, Any]:
    """Return what hypothesis draws from."""
    return {name: choice.strategy for name, choice in choices.items()}


def step(**choices: Choice) -> Callable[[Step], Step]:
    """Make a method a rule of the machine, and a step of `play`."""

    def register(method: Step) -> Step:
        STEPS.append((method.__name__, choices))
        made: Step = rule(**strategies(choices))(method)
        return made

    return register


class BothWaysMachine(RuleBasedStateMachine):
    """What may be asked of both."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: BothWays | None = None

    @initialize(**strategies(BEGINNING))
    def begin(self, **options: Any) -> None:
        gc.collect()
        gc.freeze()  # So that a collection after each step takes little time.
        self.ways = BothWays(**options)
        for number, key in enumerate(KEYS):
            self.store(key, sorted(VALUES)[number])

    def teardown(self) -> None:
        try:
            self.compare_all()
        finally:
            self.end()

    def compare_all(self) -> None:
        """Compare everything, at the end."""
        if self.ways is not None:
            self.ways.compare()
            for tier in ("hot", "warm"):
                self.ways.compare_departures(tier)
            self.ways.compare()

    def end(self) -> None:
        """Remove both managers."""
        if self.ways is not None:
            self.ways.close()
            gc.unfreeze()

    @invariant()
    def what_lies_where_is_the_same_at_every_instant(self) -> None:
        if self.ways is not None:
            self.ways.compare_now()

    def both(self, call: Callable[[MemoryManager], Any]) -> Answer:
        assert self.ways is not None
        return self.ways.call(lambda side: call(side.manager))

    def maker(self, kind: str) -> Callable[[], Any]:
        """Return what makes a value that no other call has made, the same one at each call."""
        assert self.ways is not None
        self.ways.made += 1
        number = self.ways.made
        return lambda: VALUES[kind](number)

    # -- changes that may take the short way ------------------------------------------------------

    @step(key=keys, kind=kinds)
    def store(self, key: str, kind: str) -> None:
        make = self.maker(kind)
        self.both(lambda manager: manager.store(key, make()))

    def do_many(self, steps: list[tuple[str, str, str]], question: str) -> None:
        """Do much at once, so that much waits to be settled; ask one question at the end."""
        for deed, key, kind in steps:
            if deed == "store":
                self.store(key, kind)
            elif deed == "store into warm":
                self.store_into(key, kind, "warm")
            elif deed == "delete":
                self.delete(key)
            elif deed == "exists":
                self.exists(key)
            else:
                self.retrieve(key, 6)
            self.what_lies_where_is_the_same_at_every_instant()
        self.both(QUESTIONS[question])

    # One of forty rules is chosen for each step; much should happen between two of the others.
    many = step(steps=list_of(4, 8, deeds, keys, kinds), question=questions)(do_many)
    more = step(steps=list_of(4, 8, deeds, keys, kinds), question=questions)(do_many)
    most = step(steps=list_of(4, 16, deeds, keys, kinds), question=questions)(do_many)
    often = step(steps=list_of(4, 16, deeds, keys, kinds), question=questions)(do_many)
    again = step(steps=list_of(4, 30, deeds, keys, kinds), question=questions)(do_many)

    @step(key=keys, kind=kinds, tier=tiers)
    def store_into(self, key: str, kind: str, tier: str) -> None:
        make = self.maker(kind)
        self.both(lambda manager: manager.store(key, make(), tier))

    @step(
        key=keys,
        kind=kinds,
        tier=tiers_or_auto,
        options=some_of(
            ttl=one_of(0.5, 10.0),
            metadata=one_of({"unit": "K"}, {"number": 7}),
            pin=truths,
            min_tier=tiers,
            max_tier=tiers,
            volatile=truths,
            copy=truths,
            if_version=between(0, 60),
            evictable=truths,
        ),
    )
    def store_with_options(self, key: str, kind: str, tier: str, options: dict[str, Any]) -> None:
        make = self.maker(kind)
        self.both(lambda manager: manager.store(key, make(), tier, **options))

    @step(key=keys, kind=kinds)
    def store_if_unchanged(self, key: str, kind: str) -> None:
        """Store over the version that is there."""
        make = self.maker(kind)

        def call(manager: MemoryManager) -> None:
            found = manager._hierarchy.catalog.lookup(key)
            manager.store(key, make(), if_version=0 if found is None else found.version)

        self.both(call)

    @step(key=keys)
    def delete(self, key: str) -> None:
        self.both(lambda manager: manager.delete(key))

    @step(key=keys)
    def exists(self, key: str) -> None:
        self.both(lambda manager: (manager.exists(key), key in manager))

    @step(key=keys, times=between(1, 6))
    def retrieve(self, key: str, times: int) -> None:
        for _ in range(times):
            self.both(lambda manager: manager.retrieve(key, "absent"))

    @step(key=keys, copy=truths)
    def retrieve_as(self, key: str, copy: bool) -> None:
        self.both(lambda manager: manager.retrieve(key, copy=copy))

    # -- other changes ----------------------------------------------------------------------------

    @step(some=set_of(keys, 4), kind=kinds, tier=tiers_or_auto)
    def store_many(self, some: set[str], kind: str, tier: str) -> None:
        make = self.maker(kind)
        self.both(lambda manager: manager.store_many({key: make() for key in sorted(some)}, tier))

    @step(some=set_of(keys, 4))
    def retrieve_many(self, some: set[str]) -> None:
        self.both(lambda manager: manager.retrieve_many(sorted(some)))

    @step(key=keys, kind=kinds)
    def modify(self, key: str, kind: str) -> None:
        make = self.maker(kind)
        self.both(lambda manager: manager.modify(key, lambda old: make()))

    @step(key=keys, kind=kinds)
    def setdefault(self, key: str, kind: str) -> None:
        make = self.maker(kind)
        self.both(lambda manager: manager.setdefault(key, make()))

    @step(key=keys)
    def pop(self, key: str) -> None:
        self.both(lambda manager: manager.pop(key, "absent"))

    @step()
    def popitem(self) -> None:
        self.both(lambda manager: manager.popitem())

    @step(prefix=one_of("c/", "a", "x", "brief"))
    def delete_prefix(self, prefix: str) -> None:
        self.both(lambda manager: manager.delete_prefix(prefix))

    @step()
    def clear(self) -> None:
        self.both(lambda manager: manager.clear())

    @step(key=keys, tier=tiers)
    def migrate(self, key: str, tier: str) -> None:
        self.both(lambda manager: manager.migrate(key, tier))

    @step(key=keys)
    def promote(self, key: str) -> None:
        self.both(lambda manager: manager.promote(key))

    @step(key=keys)
    def demote(self, key: str) -> None:
        self.both(lambda manager: manager.demote(key))

    @step(key=keys, pinned=truths)
    def pin(self, key: str, pinned: bool) -> None:
        self.both(lambda manager: manager.pin(key) if pinned else manager.unpin(key))

    @step(
        key=keys,
        terms=some_of(
            ttl=one_of(None, 0.5, 10.0),
            metadata=one_of(None, {"unit": "K"}),
            pin=truths,
            min_tier=one_of(None, "warm"),
            max_tier=one_of(None, "warm", "cold"),
            evictable=truths,
        ),
    )
    def set_terms(self, key: str, terms: dict[str, Any]) -> None:
        self.both(lambda manager: manager.set_terms(key, **terms))

    @step(key=keys, ttl=one_of(None, 0.5, 10.0))
    def touch(self, key: str, ttl: float | None) -> None:
        self.both(lambda manager: manager.touch(key, ttl))

    @step(key=keys, new=keys)
    def copy(self, key: str, new: str) -> None:
        self.both(lambda manager: manager.copy(key, new))

    @step(key=keys, new=keys)
    def rename(self, key: str, new: str) -> None:
        self.both(lambda manager: manager.rename(key, new))

    @step(some=set_of(keys, 4))
    def delete_many(self, some: set[str]) -> None:
        self.both(lambda manager: manager.delete_many(sorted(some)))

    @step()
    def flush(self) -> None:
        self.both(lambda manager: manager.flush())

    @step(tier=one_of("hot", "warm"), share=one_of(0.0, 0.1, 0.4))
    def pressure(self, tier: str, share: float) -> None:
        """Empty a tier, or a part of it, into those below."""
        assert self.ways is not None
        if share and self.ways.short.has_front:
            return  # Estimated hits would decide which part; see `compare_departures`.

        def call(manager: MemoryManager) -> None:
            name = TierName(tier)
            configured = manager._hierarchy.tiers[name].budget.configured
            manager._hierarchy.drain(name, int(share * configured))

        self.both(call)

    @step(seconds=one_of(0.0, 0.005, 0.3, 1.0, 6.0, 12.0, 40.0))
    def wait(self, seconds: float) -> None:
        """Let time pass, and nothing else."""
        assert self.ways is not None
        self.ways.advance(seconds)

    @step(seconds=one_of(0.0, 1.0, 6.0, 12.0, 40.0), times=between(1, 2))
    def tick(self, seconds: float, times: int) -> None:
        """Let time pass, and the migrator look."""
        assert self.ways is not None
        if self.ways.short.has_front:
            return
        self.ways.advance(seconds)

        def call(manager: MemoryManager) -> int:
            migrator = manager._services.migrator
            assert migrator is not None
            for _ in range(times):
                migrator.tick()
            return migrator.failures

        self.both(call)

    @step(mode=one_of("replace", "merge", "keep"), key=keys, kind=kinds)
    def snapshot(self, mode: str, key: str, kind: str) -> None:
        """Save everything, change something, and restore."""
        assert self.ways is not None
        make = self.maker(kind)

        def call(side: Side) -> None:
            side.snapshots += 1
            path = side.folder / f"snapshot-{side.snapshots}"
            side.manager.create_snapshot(path)
            side.manager.store(key, make())
            side.manager.restore_snapshot(path, mode=mode, wait=True)  # type: ignore[arg-type]

        self.ways.call(call)

    @step()
    def reopen(self) -> None:
        """Close both, which writes what is only in RAM, and open them again."""
        assert self.ways is not None

        def call(side: Side) -> None:
            side.manager.cleanup()
            side.manager = side.open()

        answer = self.ways.call(call)
        if answer.error:  # The values do not fit on the disk.
            self.both(lambda manager: manager.clear())

    # -- questions --------------------------------------------------------------------------------

    @step(key=keys)
    def get_tier(self, key: str) -> None:
        self.both(lambda manager: manager.get_tier(key))

    @step(key=keys)
    def explain(self, key: str) -> None:
        assert self.ways is not None
        if not self.ways.short.has_front:
            self.both(lambda manager: asdict(manager.explain(key)))

    @step(prefix=one_of("", "c/", "x"))
    def scan(self, prefix: str) -> None:
        self.both(lambda manager: list(manager.scan(prefix)))

    @step(prefix=one_of("", "c/", "x"))
    def level(self, prefix: str) -> None:
        self.both(lambda manager: list(manager.scan(prefix, "/")))

    @step(key=keys)
    def info(self, key: str) -> None:
        assert self.ways is not None
        if not self.ways.short.has_front:
            self.both(lambda manager: replace(manager.info(key), stored=None))

    @step()
    def find(self) -> None:
        self.both(lambda manager: list(manager.find(unit="K")))

    @step()
    def items(self) -> None:
        self.both(lambda manager: dict(manager.items()))

    @step()
    def telemetry(self) -> None:
        def call(manager: MemoryManager) -> Any:
            found = dict(manager.telemetry())
            return {
                name: found[name]
                for name in ("stored", "stored_bytes", "moves", "removed", "latencies")
            }

        self.both(call)

    @step()
    def compare(self) -> None:
        assert self.ways is not None
        self.ways.compare()

    @step(tier=one_of("hot", "warm"))
    def departures(self, tier: str) -> None:
        assert self.ways is not None
        self.ways.compare_departures(tier)
        self.ways.compare()


def picked(chance: Random, choices: dict[str, Choice]) -> dict[str, Any]:
    """Return arguments."""
    return {name: choice.pick(chance) for name, choice in choices.items()}


def history(number: int, length: int) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """Return the options of two managers, and so many steps; they follow from the number."""
    chance = Random(number)
    options = picked(chance, BEGINNING)
    steps = [chance.choice(STEPS) for _ in range(length)]
    return options, [(name, picked(chance, choices)) for name, choices in steps]


def play(options: dict[str, Any], steps: list[tuple[str, dict[str, Any]]]) -> None:
    """Do the steps in both ways, and compare."""
    machine = BothWaysMachine()
    machine.begin(**options)
    try:
        machine.what_lies_where_is_the_same_at_every_instant()
        for at, (name, arguments) in enumerate(steps):
            try:
                getattr(machine, name)(**arguments)
                machine.what_lies_where_is_the_same_at_every_instant()
            except BaseException as error:
                error.add_note(f"in step {at}, {name} {arguments}, with {options}")
                raise
        machine.compare_all()
    finally:
        machine.end()
