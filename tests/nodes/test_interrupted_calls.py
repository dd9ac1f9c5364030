"""Ctrl-C at any line of a call on the nodes: it is done or not done, and the next ones work.

Every call is run once to see the lines of ours that it executes, and then again and again, ended at
one line after another. `make test` takes a sample of the lines, `make torture` all.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.nodes.test_replicas import manager_of
from tests.support.interrupting import Interrupter, places
from tests.support.waiting import until

from memories import DistributedMemoryManager, EncryptionKey, MemoriesError
from memories.cluster.client.fanout import RequestRound
from memories.cluster.client.node import Node
from memories.cluster.local import LocalGroup
from memories.sealing.master_key import create_file

pytestmark = pytest.mark.server

ABSENT = "<absent>"
SAMPLE = 31  # In `make test` every so many lines, and fewer of the slower calls of a Cluster.
LARGE = 5_000_000  # In chunks.


class Case(NamedTuple):
    """A call, and the values that its keys may have after an interrupt."""

    call: Callable[[], object]
    may_hold: dict[str, list[Any]]


class Bench:
    """A manager whose calls are interrupted, a second one, and the expected values."""

    def __init__(
        self,
        manager: DistributedMemoryManager,
        other: DistributedMemoryManager,
        before: list[threading.Thread],
    ) -> None:
        self.manager, self.other = manager, other
        self._before = before  # Threads that other tests have left, and that may end at any time.
        self.sample = SAMPLE if hasattr(manager._service, "members") else 4 * SAMPLE
        self.open_another: Callable[..., AbstractContextManager[DistributedMemoryManager]]
        self.held: dict[str, Any] = {}
        self.number = 0
        for number in range(3):
            self.store(f"bystander{number}", {"number": number})
        self.store("bystander/large", os.urandom(LARGE // 4))
        # An interrupted call may start the threads of the disk store: they run from here on.
        manager.store("local", 1, "cold")
        self.threads = self.others()

    def store(self, key: str, value: Any) -> None:
        self.manager.store_distributed(key, value)
        self.held[key] = value

    def fresh(self) -> tuple[str, Any, Any]:
        self.number += 1
        return f"key{self.number}", f"old {self.number}", [f"new {self.number}"]

    def check_outcome(self, case: Case) -> None:
        """Check the outcome of an interrupted call: both managers see the same allowed value."""
        for key, allowed in case.may_hold.items():
            found = self.other.retrieve_distributed(key, ABSENT)
            assert found in allowed, f"{key} holds {found!r:.80}"
            until(lambda key=key, found=found: self.seen(key) == found)  # type: ignore[misc]
            self.held[key] = found
        self.held = {key: value for key, value in self.held.items() if value != ABSENT}

    def seen(self, key: str) -> Any:
        return self.manager.retrieve_distributed(key, ABSENT)

    def check(self) -> None:
        for key, value in self.held.items():
            assert value == self.manager.retrieve_distributed(key), key
        for node in nodes_of(self.manager):
            # No other thread may use them while they are looked at.
            idle, node.pool._idle = node.pool._idle, []
            for connection in idle:
                assert not connection.pending, f"{node.name} has a reply to come"
                assert not connection.ready(), f"{node.name} has half a reply"
            node.pool._idle.extend(idle)
            assert is_free(node._lock) and is_free(node.pool._lock)
            assert node.usable, f"{node.name} counts as failing: {node.last_error}"
        near, workers = self.manager._near, self.manager._service.workers
        for lock in (near._lock, *near._insert_locks, workers._lock):
            assert is_free(lock)
        until(lambda: not workers._tasks.qsize())
        assert self.threads == self.others(), "a thread is left"
        self.store("after", self.number)

    def others(self) -> list[str]:
        """Return the threads of both managers that do not end by themselves."""
        names = [thread.name for thread in threading.enumerate() if thread not in self._before]
        passing = ("memories-nodes", "memories-helper", "memories-nodes-opening")
        return sorted(one for one in names if one not in passing)

    def tidy(self) -> None:
        """Forget the keys of the case, so that the nodes stay small."""
        for key in [key for key in self.held if not key.startswith("bystander")]:
            self.manager.delete_distributed(key)
            del self.held[key]


def nodes_of(manager: DistributedMemoryManager) -> Iterable[Node]:
    service: Any = manager._service
    return list(
        service.members.all_members() if hasattr(service, "members") else service.shards.all_nodes()
    )


def is_free(lock: Any) -> bool:
    with_it: bool = lock.acquire(timeout=10)
    if with_it:
        lock.release()
    return with_it


def storing(bench: Bench) -> Case:
    key, _, new = bench.fresh()
    return Case(lambda: bench.manager.store_distributed(key, new), {key: [ABSENT, new]})


def overwriting(bench: Bench) -> Case:
    key, old, new = bench.fresh()
    bench.store(key, old)
    bench.manager.retrieve_distributed(key)  # So that there is a local copy.
    return Case(lambda: bench.manager.store_distributed(key, new), {key: [old, new]})


def storing_large(bench: Bench) -> Case:
    key, old, new = bench.fresh()[0], os.urandom(LARGE // 4), os.urandom(LARGE)
    bench.store(key, old)
    return Case(lambda: bench.manager.store_distributed(key, new), {key: [old, new]})


def retrieving(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old)
    return Case(lambda: bench.manager.retrieve_distributed(key), {key: [old]})


def retrieving_large(bench: Bench) -> Case:
    key, old = bench.fresh()[0], os.urandom(LARGE)
    bench.store(key, old)
    return Case(lambda: bench.manager.retrieve_distributed(key), {key: [old]})


def deleting(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old)
    return Case(lambda: bench.manager.delete_distributed(key), {key: [old, ABSENT]})


def storing_many(bench: Bench) -> Case:
    key, old, new = bench.fresh()
    mapping = {f"{key}/{number}": new for number in range(5)}
    bench.store(f"{key}/3", old)
    may: dict[str, list[Any]] = {name: [ABSENT, new] for name in mapping}
    may[f"{key}/3"] = [old, new]
    return Case(lambda: bench.manager.store_many_distributed(mapping), may)


def retrieving_many(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    names = [f"{key}/{number}" for number in range(5)]
    for name in names:
        bench.store(name, old)
    call = bench.manager.retrieve_many_distributed
    return Case(lambda: call(names), {name: [old] for name in names})


def scanning(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old)
    return Case(lambda: list(bench.manager.scan_distributed()), {key: [old]})


def looking(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old)

    def call() -> None:
        bench.manager.get_node_status()
        bench.manager.version_distributed(key)

    return Case(call, {key: [old]})


def repairing(bench: Bench) -> Case:
    key, old, new = bench.fresh()
    bench.store(key, old)
    bench.store(key, new)
    return Case(bench.manager.repair, {key: [new]})


CASES: list[Callable[[Bench], Case]] = [
    storing, overwriting, storing_large, retrieving, retrieving_large, deleting, storing_many,
    retrieving_many, scanning, looking, repairing,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no stall of a busy machine count as a node that fails."""
    for name in ("latency.CONNECT_SECONDS", "latency.PATIENCE_SECONDS", "fanout.PATIENCE_SECONDS"):
        monkeypatch.setattr(f"memories.cluster.client.{name}", 8.0)


@pytest.fixture(params=["plain", "cluster"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    group: LocalGroup = request.getfixturevalue(f"{request.param}_nodes")
    before = threading.enumerate()
    with (
        manager_of(group.names, near_cache=True) as manager,
        manager_of(group.names) as other,
    ):
        until(lambda: manager._near.fresh_until > time.monotonic())
        yield Bench(manager, other, before)


@pytest.fixture
def sealed_bench(plain_nodes: LocalGroup, tmp_path: Path) -> Iterator[Bench]:
    key_file = tmp_path / "key"
    create_file(key_file, "prod")

    def open_one(**options: Any) -> AbstractContextManager[DistributedMemoryManager]:
        key = EncryptionKey.from_file(key_file)
        return manager_of(plain_nodes.names, encryption=key, **options)

    before = threading.enumerate()
    with open_one(near_cache=True) as manager, open_one() as other:
        until(lambda: manager._near.fresh_until > time.monotonic())
        bench = Bench(manager, other, before)
        bench.open_another = open_one
        yield bench


def opening(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old)

    def call() -> None:
        with bench.open_another() as another:
            assert old == another.retrieve_distributed(key)

    return Case(call, {key: [old]})


def rotating(bench: Bench) -> Case:
    key, old, _ = bench.fresh()
    bench.store(key, old)

    def call() -> None:
        bench.manager.rotate_key()
        with bench.open_another() as another:
            assert old == another.retrieve_distributed(key)

    return Case(call, {key: [old]})


def interrupt(
    bench: Bench, make: Callable[[Bench], Case], error: Any, *, every: int, within: str = ""
) -> int:
    """End a call at every so many of its lines; return how often it was ended."""
    struck, interrupter = 0, Interrupter(error, within)
    whole = make(bench)
    interrupter.run(whole.call)
    bench.check_outcome(whole)
    first = 1 + sum(make.__name__.encode()) % every
    for line in places(interrupter.trail)[first::every]:
        one = make(bench)
        try:
            try:
                struck += interrupter.run(one.call, line)
            except MemoriesError as refused:
                raise AssertionError("another error came of it") from refused
            bench.check_outcome(one)
            bench.check()
            bench.tidy()
        except BaseException as fault:
            fault.add_note(f"after line {line} of {make.__name__}: {interrupter.struck}")
            raise
    return struck


@pytest.mark.parametrize("make", CASES)
def test_an_interrupt_at_some_lines(bench: Bench, make: Callable[[Bench], Case]) -> None:
    """The call is done or not done, no connection is half read, and nothing is left behind."""
    slower = 3 if make is repairing else 1
    assert interrupt(bench, make, KeyboardInterrupt, every=slower * bench.sample)


@pytest.mark.parametrize(
    "every", [5, pytest.param(1, marks=pytest.mark.torture)], ids=["some lines", "every line"]
)
@pytest.mark.parametrize(
    "make", [storing, storing_large, retrieving_many, scanning, opening, rotating]
)
def test_an_interrupt_of_encryption(
    sealed_bench: Bench, make: Callable[[Bench], Case], every: int
) -> None:
    """The same at the lines that encrypt and decrypt, open with a key, and wrap it anew."""
    assert interrupt(sealed_bench, make, KeyboardInterrupt, every=every, within="seal")


def test_repeated_interrupts_do_not_make_a_node_count_as_slow(bench: Bench) -> None:
    """After three interrupts no node may count as failing."""
    interrupter = Interrupter()
    interrupter.run(retrieving(bench).call)
    waits = [at for at, line in enumerate(interrupter.trail, 1) if "transport.py" in line]
    call = retrieving(bench).call
    for _ in range(4):
        interrupter.run(call, waits[-1])
    assert all(node.usable and node._given_up == math.inf for node in nodes_of(bench.manager))
    bench.check()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_no_node_is_to_blame_for_an_error_of_this_process(
    bench: Bench, error: type[BaseException]
) -> None:
    """What was asked when it came has no answer, and that is no timeout."""
    node = next(iter(nodes_of(bench.manager)))
    for _ in range(3):
        with pytest.raises(error), RequestRound(time.monotonic) as round_:
            round_.ask(node, [("PING",)])
            raise error
    assert node.usable
    assert node._given_up == math.inf
    bench.check()


@pytest.mark.torture
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize("make", CASES)
def test_an_interrupt_at_every_line(
    bench: Bench, make: Callable[[Bench], Case], error: type[BaseException]
) -> None:
    """The same at all lines, and for other errors that may occur at any line."""
    assert interrupt(bench, make, error, every=1)


@pytest.mark.parametrize("chore", ["maintenance", "listener"])
@pytest.mark.parametrize(
    "every", [0, pytest.param(1, marks=pytest.mark.torture)], ids=["some lines", "every line"]
)
def test_maintenance_recovers_at_any_line(bench: Bench, chore: str, every: int) -> None:
    """The next turn repairs it: nodes are probed, and writes of other managers are reported."""
    service: Any = bench.manager._service
    listener = service._listener
    service._maintenance.stop()
    listener._thread.stop()
    bench.threads = bench.others()
    work = service.maintain if chore == "maintenance" else listener._listen
    interrupter = Interrupter(MemoryError)
    interrupter.run(work)
    for line in places(interrupter.trail)[:: every or 2 * bench.sample]:
        service._checked_at = 0.0  # So that all of it is done.
        for subscription in list(listener._subscriptions.values())[:1]:
            subscription.connection.close()  # So that it connects again, too.
        interrupter.run(work, line)
        bench.number += 1
        bench.other.store_distributed("bystander0", bench.number)
        bench.held["bystander0"] = bench.number
        work()
        try:
            listener._listen()
            listener._listen()
            bench.check()
            assert {node.name for node in service.nodes()} == set(listener._subscriptions)
        except BaseException as fault:
            fault.add_note(f"after line {line} of {chore}: {interrupter.struck}")
            raise
