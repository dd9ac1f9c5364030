"""Ctrl-C at any line of a call: it is done or not done, all else is whole, and work goes on.

Every call of the face is run once to count the lines of ours that it executes, and then again and
again, ended at one line after another. `make test` takes a sample of the lines, `make torture` all.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from tests.support.interrupting import Interrupter
from tests.support.values import identical
from tests.support.wholeness import assert_whole

from memories import BusyError, MemoriesError, MemoryManager
from memories.backends.disk import compaction
from memories.model.tiers import Cause, TierName
from memories.sealing.master_key import create_file

# What a destructor raises goes nowhere, an interrupt included; the interpreter says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SIZES = ("60 kB", "90 kB", "20 MB")
TIERS = ("hot", "warm", "cold", "glacier")
ABSENT = "<absent>"
SHARED_MEMORY = Path("/dev/shm")
SAMPLE = 131  # In `make test` every so many lines, another first one for each call.
PARTS = 16  # So many interrupts, spread over a call, leave what a few would.
REOPENED_AFTER = 60  # So many interrupts.


class Case(NamedTuple):
    """A call, and what its keys may hold when it was interrupted; some of that only together."""

    call: Callable[[], object]
    may_hold: dict[str, list[Any]]
    together: Sequence[dict[str, Any]] = ()


class Bench:
    """A store whose calls are interrupted, and what it must hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, Any] = {}
        self.number = 0
        self.fill()

    def fill(self) -> None:
        """Open a store that is empty, and put values that no case touches into each tier."""
        self.manager = self.open()
        for tier in TIERS:
            self.store(f"bystander/{tier}", np.arange(300) + self.number, tier)

    def open(self) -> MemoryManager:
        return MemoryManager(
            *SIZES,
            glacier_memory_enabled=True,
            storage_path=self.folder / "store",
            glacier_url=str(self.folder / "bucket"),
            migration=False,
            prefetch="off",
        )

    def reopen(self) -> None:
        self.manager.cleanup()
        self.manager = self.open()
        self.check()

    def renew(self) -> None:
        """Begin with an empty store: what calls leave dead there makes the next ones longer."""
        self.manager.cleanup()
        self.held.clear()
        for name in ("store", "bucket"):
            shutil.rmtree(self.folder / name)
        self.fill()

    def store(self, key: str, value: Any, tier: str) -> None:
        self.manager.store(key, value, tier)
        self.held[key] = value

    def fresh(self) -> tuple[str, str, str]:
        self.number += 1
        return f"key{self.number}", f"old {self.number} " * 40, f"new {self.number} " * 50

    def got(self, key: str) -> Any:
        return self.manager.retrieve(key, ABSENT)

    def check_outcome(self, case: Case) -> None:
        """Check the outcome of an interrupted call: it must be one of those allowed."""
        for key, allowed in case.may_hold.items():
            found = self.got(key)
            assert any(identical(found, one) for one in allowed), f"{key} holds {found!r:.80}"
            self.held[key] = found
        states = [all(same_item(self, *item) for item in one.items()) for one in case.together]
        assert not states or any(states), {key: self.got(key) for key in case.may_hold}
        self.held = {key: value for key, value in self.held.items() if not same(value, ABSENT)}

    def check(self) -> None:
        for key, value in self.held.items():
            assert identical(self.got(key), value), key
        assert sorted(self.held) == sorted(self.manager)
        assert len(self.held) == len(self.manager)
        assert_whole(self.manager)

    def conclude(self, case: Case) -> None:
        """See that all is whole after a case, and forget its keys."""
        self.check_outcome(case)
        self.check()
        self.tidy()

    def tidy(self) -> None:
        """Forget the keys of the case, so that the store stays small."""
        for key in [key for key in self.held if not key.startswith("bystander")]:
            self.manager.delete(key)
            del self.held[key]


def same(value: Any, other: str) -> bool:
    return isinstance(value, str) and value == other


def same_item(bench: Bench, key: str, value: Any) -> bool:
    return identical(bench.got(key), value)


Make = Callable[[Bench], Case]
CASES: dict[str, Make] = {}


def case(name: str) -> Callable[[Make], Make]:
    def keep(make: Make) -> Make:
        CASES[name] = make
        return make

    return keep


def _storing(tier: str) -> Make:
    def make(bench: Bench) -> Case:
        key, _, new = bench.fresh()
        return Case(lambda: bench.manager.store(key, new, tier), {key: [ABSENT, new]})

    return make


def _overwriting(before: str, tier: str) -> Make:
    def make(bench: Bench) -> Case:
        key, old, new = bench.fresh()
        bench.store(key, old, before)
        return Case(lambda: bench.manager.store(key, new, tier), {key: [old, new]})

    return make


def _moving(before: str, tier: str) -> Make:
    def make(bench: Bench) -> Case:
        key, old, _ = bench.fresh()
        bench.store(key, old, before)
        return Case(lambda: bench.manager.migrate(key, tier), {key: [old]})

    return make


def _deleting(before: str) -> Make:
    def make(bench: Bench) -> Case:
        key, old, _ = bench.fresh()
        bench.store(key, old, before)
        return Case(lambda: bench.manager.delete(key), {key: [old, ABSENT]})

    return make


def _renaming(before: str, under: str | None, *, risen: bool = False) -> Make:
    def make(bench: Bench) -> Case:
        key, old, new = bench.fresh()
        other = f"{key}/renamed"
        if under is not None:
            bench.store(other, old, under)
        bench.store(key, new, before)
        if risen:
            bench.manager.migrate(key, "hot")
        left = ABSENT if under is None else old
        states = [{key: new, other: left}, {key: ABSENT, other: new}]
        return Case(
            lambda: bench.manager.rename(key, other),
            {key: [new, ABSENT], other: [left, new]},
            states,
        )

    return make


def _copying(before: str, under: str | None) -> Make:
    def make(bench: Bench) -> Case:
        key, old, new = bench.fresh()
        other = f"{key}/copied"
        if under is not None:
            bench.store(other, old, under)
        bench.store(key, new, before)
        left = ABSENT if under is None else old
        return Case(lambda: bench.manager.copy(key, other), {key: [new], other: [left, new]})

    return make


def _reading(before: str) -> Make:
    def make(bench: Bench) -> Case:
        key, old, _ = bench.fresh()
        bench.store(key, old, before)
        return Case(lambda: bench.manager.retrieve(key), {key: [old]})

    return make


for _before, _under in zip(TIERS, [None, "cold", "warm", "cold"], strict=True):
    CASES[f"rename from {_before} over {_under}"] = _renaming(_before, _under)
    CASES[f"copy from {_before} over {_under}"] = _copying(_before, _under)
CASES["rename from cold over glacier"] = _renaming("cold", "glacier")
CASES["rename a key in RAM with a copy in cold"] = _renaming("cold", None, risen=True)
for _tier in (*TIERS, "auto"):
    CASES[f"store into {_tier}"] = _storing(_tier)
for _before in TIERS:
    CASES[f"delete from {_before}"] = _deleting(_before)
    CASES[f"retrieve from {_before}"] = _reading(_before)
    for _tier in TIERS:
        CASES[f"store into {_tier} over {_before}"] = _overwriting(_before, _tier)
        if _tier != _before:
            CASES[f"migrate from {_before} to {_tier}"] = _moving(_before, _tier)


@case("rename a large value in cold")
def _(bench: Bench) -> Case:
    key, _, _ = bench.fresh()
    value, other = os.urandom(400_000), f"{key}/renamed"
    bench.store(key, value, "cold")
    return Case(
        lambda: bench.manager.rename(key, other),
        {key: [value, ABSENT], other: [ABSENT, value]},
        [{key: value, other: ABSENT}, {key: ABSENT, other: value}],
    )


@case("set_terms of a key in RAM with a copy in cold")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old, "cold")
    bench.manager.migrate(key, "warm")
    terms = {"ttl": 600, "metadata": {"x": 1}, "evictable": True}
    return Case(lambda: bench.manager.set_terms(key, **terms), {key: [old]})


@case("store a large value into cold over another")
def _(bench: Bench) -> Case:
    key, _, _ = bench.fresh()
    old, new = os.urandom(400_000), os.urandom(400_000)
    bench.store(key, old, "cold")
    return Case(lambda: bench.manager.store(key, new, "cold"), {key: [old, new]})


@case("store an array into a full RAM")
def _(bench: Bench) -> Case:
    key, _, _ = bench.fresh()
    values = {f"{key}/{number}": np.full(3000, number) for number in range(6)}
    for name, value in values.items():
        bench.store(name, value, "auto")
    new = np.full(4000, 7)
    may = {name: [value] for name, value in values.items()}
    return Case(lambda: bench.manager.store(key, new, "hot"), {key: [ABSENT, new], **may})


@case("store a volatile value over cold")
def _(bench: Bench) -> Case:
    key, old, new = bench.fresh()
    bench.store(key, old, "cold")
    return Case(lambda: bench.manager.store(key, new, "warm", volatile=True), {key: [old, new]})


@case("modify")
def _(bench: Bench) -> Case:
    key, old, new = bench.fresh()
    bench.store(key, old, "cold")
    return Case(lambda: bench.manager.modify(key, lambda value: new), {key: [old, new]})


@case("pop")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old, "warm")
    return Case(lambda: bench.manager.pop(key), {key: [old, ABSENT]})


@case("setdefault")
def _(bench: Bench) -> Case:
    key, _, new = bench.fresh()
    return Case(lambda: bench.manager.setdefault(key, new), {key: [new, ABSENT]})


@case("store_many")
def _(bench: Bench) -> Case:
    key, _, new = bench.fresh()
    mapping = {f"{key}/{number}": new for number in range(3)}
    may = {name: [ABSENT, new] for name in mapping}
    return Case(lambda: bench.manager.store_many(mapping, "cold"), may)


@case("store_many over values in every tier")
def _(bench: Bench) -> Case:
    key, old, new = bench.fresh()
    names = {f"{key}/{tier}": tier for tier in TIERS}
    for name, tier in names.items():
        bench.store(name, old, tier)
    new_values = dict.fromkeys(names, new)
    return Case(
        lambda: bench.manager.store_many(new_values, "cold"), {name: [old, new] for name in names}
    )


@case("retrieve_many")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    names = {f"{key}/{tier}": tier for tier in TIERS}
    for name, tier in names.items():
        bench.store(name, old, tier)
    return Case(lambda: bench.manager.retrieve_many(names), {name: [old] for name in names})


@case("delete_prefix")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    names = {f"{key}/{tier}": tier for tier in TIERS}
    for name, tier in names.items():
        bench.store(name, old, tier)
    return Case(lambda: bench.manager.delete_prefix(key), {name: [old, ABSENT] for name in names})


@case("flush")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old, "hot")
    bench.store(key + "/large", os.urandom(200_000), "cold")
    return Case(bench.manager.flush, {key: [old]})


def _several(bench: Bench, tier: str) -> dict[str, list[Any]]:
    key, old, _ = bench.fresh()
    for number in range(4):
        bench.store(f"{key}/{number}", old, tier)
    return {f"{key}/{number}": [old] for number in range(4)}


@case("flush several")
def _(bench: Bench) -> Case:
    return Case(bench.manager.flush, _several(bench, "hot"))


@case("drain warm")
def _(bench: Bench) -> Case:
    may_hold = _several(bench, "warm")
    return Case(lambda: bench.manager._hierarchy.drain(TierName.WARM, 0), may_hold)


@case("demote idle values")
def _(bench: Bench) -> Case:
    may_hold, hierarchy = _several(bench, "hot"), bench.manager._hierarchy

    def call() -> None:
        entries = [hierarchy.catalog.entries[key] for key in may_hold]
        hierarchy.try_move_batch(entries, TierName.WARM, Cause.IDLE)

    return Case(call, may_hold)


@case("clear")
def _(bench: Bench) -> Case:
    _several(bench, "hot")
    _several(bench, "cold")
    return Case(bench.manager.clear, {key: [old, ABSENT] for key, old in bench.held.items()})


@case("pin and unpin")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old, "hot")

    def call() -> None:
        bench.manager.pin(key)
        bench.manager.unpin(key)

    return Case(call, {key: [old]})


@case("expiry")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.manager.store(key, old, "cold", ttl=1e-9)
    return Case(lambda: bench.manager.retrieve(key, None), {key: [ABSENT]})


@case("check")
def _(bench: Bench) -> Case:
    return Case(lambda: bench.manager.check(repair=True), {})


@case("name and evict one value")
def _(bench: Bench) -> Case:
    may_hold = _several(bench, "warm")

    def call() -> None:
        bench.manager.victim()
        bench.manager.evict_one()

    return Case(call, may_hold)


@case("promote and demote")
def _(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old, "warm")

    def call() -> None:
        bench.manager.demote(key)
        bench.manager.promote(key)

    return Case(call, {key: [old]})


@case("create_snapshot")
def _(bench: Bench) -> Case:
    path = bench.folder / f"snapshot{bench.number}"
    return Case(lambda: bench.manager.create_snapshot(path), {})


def _restoring(mode: Literal["replace", "merge"]) -> Make:
    def make(bench: Bench) -> Case:
        key, old, new = bench.fresh()
        names = {f"{key}/{tier}": tier for tier in TIERS}
        for name, tier in names.items():
            bench.store(name, old, tier)
        path = bench.folder / f"restored{bench.number}"
        bench.manager.create_snapshot(path)
        for name, tier in names.items():
            bench.store(name, new, tier)

        def call() -> None:
            bench.manager.restore_snapshot(path, mode=mode, wait=True)

        return Case(call, {name: [old, new] for name in names})

    return make


CASES["restore_snapshot, merging"] = _restoring("merge")
CASES["restore_snapshot, replacing"] = _restoring("replace")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.manager.cleanup()


@contextmanager
def after(where: str, interrupter: Interrupter) -> Iterator[None]:
    """Let a failure in the block say after which interrupt it came."""
    try:
        yield
    except BaseException as fault:
        fault.add_note(f"after {where}: {interrupter.struck}")
        raise


def interrupt(bench: Bench, name: str, lines: Iterator[int], error: Any) -> int:
    """End a call at each of `lines`, as far as it has so many; return how often it was ended."""
    struck, interrupter = 0, Interrupter(error)
    for line in lines:
        one = CASES[name](bench)
        try:
            ended = interrupter.run(one.call, line)
        except MemoriesError as refused:
            raise AssertionError(f"line {line}, {interrupter.struck}") from refused
        with after(f"line {line} of {name!r}", interrupter):
            bench.conclude(one)
            struck += 1
            if struck % REOPENED_AFTER == 0:
                bench.reopen()
                bench.renew()
        if not ended and interrupter.lines < line:
            break
    bench.reopen()
    return struck


@pytest.mark.parametrize("name", CASES)
def test_an_interrupt_at_some_lines(bench: Bench, name: str) -> None:
    """The call is done or not done, nothing is left behind, and reopening agrees."""
    first = 1 + sum(name.encode()) % SAMPLE
    assert interrupt(bench, name, iter(range(first, 10**6, SAMPLE)), KeyboardInterrupt)


ENCRYPTED = [
    "store into cold", "store into glacier", "migrate from cold to glacier", "create_snapshot",
]  # fmt: skip


@pytest.mark.parametrize("name", ENCRYPTED)
def test_an_interrupt_in_an_encrypted_store(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a blob, or a data key that was made and not kept, would be a value that is lost."""
    create_file(tmp_path / "key", "test")
    monkeypatch.setenv("MEMORIES_ENCRYPTION", f"file:{tmp_path / 'key'}")
    bench = Bench(tmp_path)
    try:
        assert bench.manager._services.settings.encryption is not None
        first = 1 + sum(name.encode()) % SAMPLE
        assert interrupt(bench, name, iter(range(first, 10**6, 2 * SAMPLE)), KeyboardInterrupt)
    finally:
        bench.manager.cleanup()


LEAVING = [
    "restore_snapshot, merging", "restore_snapshot, replacing", "create_snapshot", "flush",
    "store a large value into cold over another", "migrate from cold to glacier",
]  # fmt: skip


def test_an_interrupted_snapshot_leaves_no_view_open(tmp_path: Path) -> None:
    """It ends with the call, without the garbage collector: while one is open, no file is unlinked.

    The lines are those after the file is complete; the view is closed there.
    """
    manager = MemoryManager("1 MB", "1 MB", "9 MB", storage_path=tmp_path / "s", migration=False)
    manager.store("hot", "value")
    manager.store("cold", "value", "cold")
    pins = manager._hierarchy.catalog.journal._writer.obsolete.pins
    interrupter, struck = Interrupter(), set[str | None]()
    closing = "backends/disk/obsolete_files.py"

    def snapshot() -> None:
        manager.create_snapshot(tmp_path / "snapshot")

    interrupter.run(snapshot)
    gc.disable()
    try:
        for _ in range(20):  # A call takes more lines where upkeep has changed something.
            interrupter.run(snapshot)
            for line in range(interrupter.lines - 60, interrupter.lines + 1):
                interrupter.run(snapshot, line)
                assert not pins, interrupter.struck
                struck.add(interrupter.struck)
            if any(place and place.startswith(closing) for place in struck):
                break
        else:
            pytest.fail(f"no interrupt struck in {closing}")
    finally:
        gc.enable()
    manager.cleanup()


@pytest.mark.parametrize("name", LEAVING)
def test_many_interrupts_leave_few_files(bench: Bench, name: str) -> None:
    """Upkeep removes what they leave, before the disk fills and without a reopening."""
    interrupter, lines = Interrupter(), 0
    for part in range(PARTS):
        one = CASES[name](bench)
        interrupter.run(one.call, part * lines // PARTS)
        with after(f"part {part} of {name!r}", interrupter):
            bench.check_outcome(one)
            bench.tidy()
        lines = lines or interrupter.lines
    writer = bench.manager._hierarchy.catalog.journal._writer
    assert writer is not None
    compaction.run_upkeep(writer, lambda: None, quiet=True)
    left = Counter(path.suffix for path in (bench.folder / "store").rglob("*.*"))
    assert left[".seg"] <= 2
    assert left[".pack"] <= 1
    assert left[".val"] == left[".tmp"] == 0
    bench.reopen()


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_an_interrupted_import_is_finished(bench: Bench, mode: Literal["replace", "merge"]) -> None:
    """What a torn restore left pending is copied, and nothing is held for it."""
    restore_interrupted(bench, mode, iter(range(71, 10**6, 331)))


@pytest.mark.torture
@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_an_import_interrupted_at_every_line(
    bench: Bench, mode: Literal["replace", "merge"]
) -> None:
    """The same at all of them."""
    restore_interrupted(bench, mode, iter(range(1, 10**6)))


def restore_interrupted(
    bench: Bench, mode: Literal["replace", "merge"], lines: Iterator[int]
) -> None:
    """End lazy restores from another file system at each of `lines`, as far as they have so many.

    Interrupts come one after another, so that each finds what the one before it left.
    """
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == bench.folder.stat().st_dev:
        pytest.skip("there is no second file system here")
    interrupter = Interrupter()
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as name:
        for line in lines:
            key, old, new = bench.fresh()
            names = {f"{key}/{tier}": tier for tier in TIERS}
            for one, tier in names.items():
                bench.store(one, old, tier)
            path = Path(name) / key
            bench.manager.create_snapshot(path)
            for one, tier in names.items():
                bench.store(one, new, tier)
            restore = partial(bench.manager.restore_snapshot, path, mode=mode, verify="lazy")
            ended = interrupter.run(restore, line)
            with after(f"line {line}", interrupter):
                case = Case(restore, {one: [old, new] for one in names})
                bench.check_outcome(case)
                assert len(bench.held) == len(bench.manager)
                bench.manager.flush()
                imports = bench.manager._hierarchy.catalog.journal._imports
                assert imports is not None
                if imports._thread is not None:  # It may still be in its last callback.
                    assert imports._thread.join_within(30.0)
                assert imports.overlay is None
                assert not imports._pending
                assert not imports._callbacks
                bench.conclude(case)
            if not ended and interrupter.lines < line:
                break
            path.unlink()
    bench.reopen()


HANDLED = [
    "store into hot over cold", "store into cold over hot", "migrate from warm to glacier",
    "delete from glacier", "store an array into a full RAM", "modify", "flush",
    "store a large value into cold over another",
]  # fmt: skip


def handled(bench: Bench, name: str, lines: Iterator[int]) -> None:
    """At each of `lines` let a signal handler read and change the manager that is at work."""
    called: list[str] = []

    def handler() -> None:
        manager, changed = bench.manager, f"handler/{len(called)}"
        assert identical(manager.retrieve("bystander/cold"), bench.held["bystander/cold"])
        assert identical(manager["bystander/warm"], bench.held["bystander/warm"])
        with suppress(BusyError):
            assert manager.stats().tiers
        for call in (manager.flush, lambda: manager.create_snapshot(bench.folder / "handler")):
            with suppress(BusyError):
                call()
        for key in (changed, *one.may_hold):
            try:
                manager.store(key, "by the handler", "cold")
            except BusyError:
                called.append("refused")
            else:
                called.append("stored")
                allowed = one.may_hold.setdefault(key, [])
                allowed.append("by the handler")

    interrupter = Interrupter(handler)
    for line in lines:
        one = CASES[name](bench)
        interrupter.run(one.call, line)
        with after(f"line {line} of {name!r}", interrupter):
            bench.conclude(one)
        if interrupter.lines < line:
            break
    bench.reopen()
    assert "refused" in called


@pytest.mark.parametrize("name", HANDLED)
def test_a_signal_handler_that_calls_the_manager(bench: Bench, name: str) -> None:
    """It reads, and it stores or raises that its thread is busy; it never waits for itself."""
    handled(bench, name, iter(range(1 + sum(name.encode()) % 41, 10**6, 41)))


def test_a_signal_handler_does_not_end_the_manager_it_interrupts(bench: Bench) -> None:
    """The disk would be closed under the call that goes on, and nothing in RAM be written."""

    def handler() -> None:
        with pytest.raises(BusyError):
            bench.manager.cleanup()

    interrupter = Interrupter(handler)
    for line in count(120, 40):  # The call has begun before.
        key, _, new = bench.fresh()
        bench.store(f"{key}/hot", new, "hot")
        assert not interrupter.run(lambda key=key: bench.store(key, key, "cold"), line)
        if interrupter.struck is None:
            break
    assert line > 200
    bench.reopen()


@pytest.mark.torture
@pytest.mark.parametrize("name", CASES)
def test_a_signal_handler_at_every_line(bench: Bench, name: str) -> None:
    """The same at all of them."""
    handled(bench, name, iter(range(1, 10**6)))


@pytest.mark.torture
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize("name", CASES)
def test_an_interrupt_at_every_line(bench: Bench, name: str, error: type[BaseException]) -> None:
    """The same at all of them, and for what else may end a call anywhere."""
    assert interrupt(bench, name, iter(range(1, 10**6)), error)
