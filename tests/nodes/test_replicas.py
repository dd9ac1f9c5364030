"""Values on plain servers while one of them fails in any way that servers fail.

Every test has three real servers and two copies, so any one of them may fail.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.nodes.proxy import NodeProxy
from tests.support.waiting import until

from memories import (
    ClosedError,
    CorruptDataError,
    DistributedMemoryManager,
    ForkedError,
    InvalidOptionError,
    ReplicationError,
    UnavailableError,
    UntrustedDataError,
)
from memories.cluster.client import scripts
from memories.cluster.client.connection import Connection
from memories.cluster.incarnation import INCARNATION_KEY, UP, Incarnation
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.register_format import RegisterKind, pack_register, register_name
from memories.cluster.versions import RegisterVersion
from memories.codecs.registry import encode
from memories.frames.signing import Keyring
from memories.frames.writer import pack

pytestmark = pytest.mark.server
LONGEST_SECONDS = 45.0  # For any call on a value of 1 MB or less, whatever fails.
KEYS = 40


@contextmanager
def manager_of(names: list[str], **options: Any) -> Iterator[DistributedMemoryManager]:
    """Open a small manager over nodes."""
    options = {"near_cache": False, "migration": False, "prefetch": "off"} | options
    manager = DistributedMemoryManager("50MB", "50MB", "50MB", nodes=names, **options)
    try:
        yield manager
    finally:
        manager.cleanup()


@pytest.fixture
def manager(plain_nodes: LocalGroup) -> Iterator[DistributedMemoryManager]:
    """A manager over three servers, without local copies."""
    with manager_of(plain_nodes.names) as manager:
        yield manager


def timed(act: Callable[[], Any]) -> Any:
    """Return the result of `act`, and check that it did not take too long."""
    began = time.monotonic()
    try:
        return act()
    finally:
        assert time.monotonic() - began < LONGEST_SECONDS


def up_to_date(manager: DistributedMemoryManager) -> bool:
    """Return whether every node knows all that is its to know."""
    return all(one["up_to_date"] for one in manager.get_node_status().values())


def check_service(manager: DistributedMemoryManager, expected: dict[str, Any]) -> None:
    """Check that every value is there and that all kinds of calls are answered in time."""
    for key, value in expected.items():
        assert value == timed(lambda key=key: manager.retrieve_distributed(key))
    for number, key in enumerate(list(expected)[:10]):
        expected[key] = f"new {number}"
        timed(lambda key=key: manager.store_distributed(key, expected[key]))
        assert expected[key] == timed(lambda key=key: manager.retrieve_distributed(key))
    with pytest.raises(KeyError):
        timed(lambda: manager.retrieve_distributed("never stored"))
    assert sorted(expected) == list(manager.scan_distributed("key "))


def fill(manager: DistributedMemoryManager) -> dict[str, Any]:
    """Store some values and return them."""
    values = {f"key {number}": number for number in range(KEYS)}
    manager.store_many_distributed(values)
    return dict(values)


def kill(node: LocalServer) -> None:
    node.kill()


def pause(node: LocalServer) -> None:
    node.pause()


def fill_up(node: LocalServer) -> None:
    node.call("CONFIG", "SET", "maxmemory", "1")


def lock_out(node: LocalServer) -> None:
    node.call("CONFIG", "SET", "requirepass", "a secret")
    with Connection(replace(node.address, password="a secret")) as connection:
        connection.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def make_replica(node: LocalServer) -> None:
    node.call("REPLICAOF", "127.0.0.1", "1")  # READONLY from now on.


@pytest.mark.parametrize("fail", [kill, pause, fill_up, lock_out, make_replica])
def test_any_one_node_may_fail(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager, fail: Callable[[LocalServer], None]
) -> None:
    """With two copies one failure has no effect: all values are there, and no call takes long."""
    values = fill(manager)
    victim = plain_nodes.servers[1]
    fail(victim)
    try:
        check_service(manager, values)
        status = timed(manager.get_node_status)
        assert 3 == len(status)
        online = fail in (fill_up, make_replica)
        assert online == status[victim.name]["online"]
        assert "a secret" not in str(status)
    finally:
        if fail is pause:
            victim.resume()


def test_a_partitioned_node_costs_one_hedge_delay(
    plain_nodes: LocalGroup, in_front: Callable[..., NodeProxy]
) -> None:
    """A partitioned node neither answers nor refuses: only a time limit detects it."""
    proxy = in_front(plain_nodes.servers[0].port)
    with manager_of([proxy.name, *plain_nodes.names[1:]]) as manager:
        values = fill(manager)
        proxy.faults.hang = True
        check_service(manager, values)


@pytest.mark.usual_limits
def test_a_slow_node_is_hedged(plain_nodes: LocalGroup, in_front: Callable[..., NodeProxy]) -> None:
    """One slow replica must not make a third of all reads slow."""
    proxy = in_front(plain_nodes.servers[0].port)
    with manager_of([proxy.name, *plain_nodes.names[1:]]) as manager:
        values = fill(manager)
        proxy.faults.delay_seconds = 5.0
        began = time.monotonic()
        for key, value in values.items():
            assert value == manager.retrieve_distributed(key)
        assert time.monotonic() - began < 45  # A third of them would take 65 seconds.


def test_a_node_that_restarted_empty_does_not_vote_until_it_is_up_to_date(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """Its nil is not absence; and when it is back, the next fault may hit another node."""
    values = fill(manager)
    large = np.random.default_rng(1).integers(0, 255, 9_000_000, np.uint8)
    manager.store_distributed("large", large)
    plain_nodes.servers[0].restart()
    check_service(manager, dict(values))
    assert np.array_equal(large, manager.retrieve_distributed("large"))
    until(lambda: up_to_date(manager))
    plain_nodes.servers[1].kill()
    for key in list(values)[10:]:
        assert values[key] == timed(lambda key=key: manager.retrieve_distributed(key))
    assert np.array_equal(large, manager.retrieve_distributed("large"))


def test_a_new_manager_does_not_count_the_nil_of_a_restarted_node(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """A manager that was opened after the restart must detect it as well."""
    values = fill(manager)
    manager.cleanup()
    plain_nodes.servers[2].restart()
    with manager_of(plain_nodes.names) as second:
        for key, value in values.items():
            assert value == second.retrieve_distributed(key)


def test_a_value_that_one_node_missed_and_another_lost_is_found(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """Two nils, one of a node that hung and one of an empty node, prove nothing."""
    missed, lost, _ = plain_nodes.servers
    missed.pause()
    try:
        values = fill(manager)
    finally:
        missed.resume()
    until(lambda: up_to_date(manager))
    lost.restart()
    for key, value in values.items():
        assert value == timed(lambda key=key: manager.retrieve_distributed(key))


def test_a_value_in_doubt_that_was_read_once_stays_readable(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """A reader that got the new value must not get the old one when the node that has it fails."""
    manager.store_distributed("key", "old")
    name = register_name("key")
    newer = RegisterVersion(manager.version_distributed("key") + 1, 1)
    frame = pack(encode("new"), key="key", version=1)
    register = b"".join(pack_register(name, newer, RegisterKind.VALUE, frame.segments))
    for holder in plain_nodes.servers:
        if holder.call("EXISTS", name):
            break
    holder.call("SET", name, register)  # A writer has ended after the first node.
    assert "new" == manager.retrieve_distributed("key")
    holder.kill()
    assert "new" == timed(lambda: manager.retrieve_distributed("key"))


def test_a_node_never_returns_to_an_older_version(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """A write that was delayed on its way must not undo a later one."""
    manager.store_distributed("key", "new")
    name = register_name("key")
    frame = pack(encode("old"), key="key", version=1)
    register = pack_register(name, RegisterVersion(1, 1), RegisterKind.VALUE, frame.segments)
    for node in manager._service.nodes():
        with node.acquire() as connection:
            accepted = Incarnation(UP, connection.run_id, manager._service.members.epoch).accepted  # type: ignore[attr-defined]
            connection.call(
                *scripts.STORE.call([INCARNATION_KEY, name], *accepted, b"".join(register))
            )
    assert "new" == manager.retrieve_distributed("key")


def test_with_too_few_nodes_no_key_counts_as_absent(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """KeyError means absent, never "could not find out"; and nothing is acknowledged."""
    fill(manager)
    plain_nodes.servers[0].kill()
    plain_nodes.servers[1].kill()
    for act in (
        lambda: manager.retrieve_distributed("key 1"),
        lambda: manager.retrieve_distributed("never stored"),
        lambda: manager.store_distributed("key 1", "new"),
        lambda: manager.delete_distributed("key 1"),
        lambda: list(manager.scan_distributed()),
    ):
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
            timed(act)


def test_a_write_on_too_few_nodes_is_reported_as_in_doubt(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """The caller must know that neither the old nor the new value is promised."""
    fill(manager)
    for node in plain_nodes.servers[:2]:
        node.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(ReplicationError, match=r"on 1 of the 2 nodes.*OOM.*in doubt"):
        for number in range(20):
            manager.store_distributed(f"key {number}", "new")


def test_a_large_value_without_room_changes_nothing(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """The old value stays complete until the new one is."""
    old = np.arange(1_000_000)
    manager.store_distributed("large", old)
    for node in plain_nodes.servers[:2]:
        node.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(ReplicationError, match="nothing has changed"):
        manager.store_distributed("large", np.zeros(1_000_000))
    assert np.array_equal(old, manager.retrieve_distributed("large"))


def test_an_evicting_node_is_refused(plain_nodes: LocalGroup) -> None:
    """It would drop acknowledged values without a word."""
    plain_nodes.servers[0].call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with (
        pytest.raises(InvalidOptionError, match=r"allkeys-lru.*allow_eviction=True"),
        manager_of(plain_nodes.names),
    ):
        pass
    with manager_of(plain_nodes.names, allow_eviction=True) as manager:
        fill(manager)


def test_a_wrong_password_is_reported_at_once_and_never_shown() -> None:
    """An error that shows a secret spreads it into logs."""
    with pytest.raises(InvalidOptionError) as caught:
        DistributedMemoryManager(nodes=["redis://me:hunter2@host:99999"])
    assert "hunter2" not in str(caught.value)


def test_if_version_is_refused_with_its_reason(manager: DistributedMemoryManager) -> None:
    """A comparison that two writers could both win would be worse than none."""
    with pytest.raises(InvalidOptionError, match="Cluster"):
        manager.store_distributed("key", 1, if_version=0)


@pytest.mark.parametrize(
    ("nodes", "factor", "reason"),
    [([], 2, "nodes="), ("node:1", 2, "list"), (["a:1"], 0, "factor")],
)
def test_invalid_options_are_refused(nodes: Any, factor: int, reason: str) -> None:
    """A wrong option must not become a wrong number of copies."""
    with pytest.raises(InvalidOptionError, match=reason):
        DistributedMemoryManager(nodes=nodes, replication_factor=factor)


def test_a_reader_gets_the_old_or_the_new_large_value_and_no_mixture(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """Chunks are named by their upload, and the manifest is written last."""
    count, stop = 400_000, threading.Event()
    manager.store_distributed("large", np.zeros(count))
    seen: set[float] = set()
    faults: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                value = manager.retrieve_distributed("large")
                assert value[0] == value[-1] and (value == value[0]).all()
                seen.add(float(value[0]))
        except BaseException as error:
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 9):
        manager.store_distributed("large", np.full(count, float(number)))
        if number % 2:  # Elsewhere the next store begins while readers read.
            until(lambda: faults or number in seen)  # noqa: B023
    stop.set()
    for reader in readers:
        reader.join()
    assert [] == faults


def test_flipped_bits_are_found_and_repaired(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """Memory, disk or network of a node may flip bits; every byte is checked before it is used."""
    values = fill(manager)
    large = np.arange(900_000)
    manager.store_distributed("large", large)
    damage(plain_nodes.servers[0])
    for key, value in values.items():
        assert value == manager.retrieve_distributed(key)
    assert np.array_equal(large, manager.retrieve_distributed("large"))
    report = manager.repair()
    assert [] == report.unreadable
    assert 0 == manager.repair().mended
    plain_nodes.servers[1].kill()  # The repaired copy must be sufficient now.
    assert np.array_equal(large, manager.retrieve_distributed("large"))
    for key, value in values.items():
        assert value == manager.retrieve_distributed(key)


def test_damage_on_every_node_is_reported_and_never_returned(
    plain_nodes: LocalGroup, manager: DistributedMemoryManager
) -> None:
    """Wrong data is worse than none."""
    manager.store_distributed("small", b"x" * 1000)
    manager.store_distributed("large", np.arange(900_000))
    for node in plain_nodes.servers:
        damage(node, "m:r:small")
        damage(node, "m:c:*")
    for key in ("small", "large"):
        with pytest.raises(CorruptDataError, match=key):
            manager.retrieve_distributed(key)
    for node in plain_nodes.servers:
        damage(node, "m:r:large")
    with pytest.raises(CorruptDataError, match="large"):
        manager.retrieve_distributed("large")


def damage(node: LocalServer, names: str = "m:[rc]:*") -> None:
    """Flip one bit in everything of that name that a node holds of ours."""
    for number, name in enumerate(sorted(node.call("KEYS", names))):  # type: ignore[call-overload]
        data = bytearray(node.call("GET", name))  # type: ignore[arg-type]
        data[number * 7 % len(data)] ^= 4
        node.call("SET", name, bytes(data))


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_pickle_planted_on_the_nodes_does_not_run(
    plain_nodes: LocalGroup,
    manager: DistributedMemoryManager,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Write access to a node must not allow to run code here."""
    monkeypatch.chdir(tmp_path)
    stranger = Keyring(tmp_path / "stranger")
    parts = encode(Bomb())
    frame = pack(parts, key="key", version=1, signer=stranger)
    name = register_name("key")
    register = pack_register(name, RegisterVersion(1 << 62, 1), RegisterKind.VALUE, frame.segments)
    for node in plain_nodes.servers:
        node.call("SET", name, b"".join(register))
    with pytest.raises(UntrustedDataError):
        manager.retrieve_distributed("key")
    assert not (tmp_path / "exploded").exists()


def test_a_forked_child_reads_by_its_own_connections_and_cannot_write(
    manager: DistributedMemoryManager,
) -> None:
    """Two processes on one connection would take each other's replies."""
    manager.store_distributed("key", "value")
    pid = os.fork()
    if not pid:
        code = 1
        try:
            assert manager.retrieve_distributed("key") == "value"
            try:
                manager.store_distributed("key", "child")
            except ForkedError:
                code = 0
        finally:
            os._exit(code)
    for _ in range(50):
        assert "value" == manager.retrieve_distributed("key")
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_closed_manager_raises_a_clear_error(manager: DistributedMemoryManager) -> None:
    """Use after the end is a mistake of the caller, and must not hang."""
    manager.cleanup()
    manager.cleanup()
    for act in (
        lambda: manager.retrieve_distributed("key"),
        lambda: manager.store_distributed("key", 1),
        manager.get_node_status,
    ):
        with pytest.raises(ClosedError):
            act()
