"""A Valkey Cluster whose nodes fail, hang, fill up and lag: promises that hold, and error messages.

An acknowledged write is on the primary and on `replication_factor - 1` of its replicas, as far as
these are there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.support.nodes.fixtures import fail_after
from tests.support.nodes.linearizability import Recorder
from tests.support.waiting import until

from memories import DistributedMemoryManager
from memories.cluster.client import scripts
from memories.cluster.client.connection import Connection
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.register_format import RegisterKind, pack_register, register_name
from memories.cluster.valkey_cluster.slots import slot_of
from memories.cluster.versions import RegisterVersion
from memories.errors import (
    CorruptDataError,
    InvalidOptionError,
    ReplicationError,
    UnavailableError,
)
from memories.foundation.logging import RateLimit, logger

# A Cluster repeats a call that has met one of these limits.
pytestmark = [pytest.mark.server, pytest.mark.usual_limits("HEDGE", "CONNECT", "LATE")]
TIERS = (0.01, 0.05, 0.1)
FAILOVER_SECONDS = 12.0


def manager_of(
    names: list[str], factor: int = 2, *, strict: bool = False
) -> DistributedMemoryManager:
    """Return a manager that asks the nodes at every read."""
    return DistributedMemoryManager(
        *TIERS,
        nodes=names,
        replication_factor=factor,
        strict_replication=strict,
        near_cache=False,
    )


@pytest.fixture
def manager(cluster_nodes: LocalGroup) -> Iterator[DistributedMemoryManager]:
    """A manager over three primaries and their three replicas."""
    with manager_of(cluster_nodes.names) as manager:
        yield manager


def key_of_shard(number: int) -> str:
    """Return a key that the primary with that number serves."""
    for attempt in range(1000):
        key = f"k{attempt}"
        if slot_of(register_name(key)) * 3 // 16_384 == number:
            return key
    raise AssertionError("no key falls there")


def role_of(server: LocalServer) -> bytes:
    """Return the role that a server reports."""
    role = server.call("ROLE")
    assert isinstance(role, list)
    word: bytes = role[0]
    return word


def in_step(server: LocalServer) -> bool:
    """Return whether a server is a replica that gets every write."""
    replication = server.call("INFO", "replication")
    assert isinstance(replication, bytes)
    return b"master_link_status:up" in replication


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_values_survive_the_failure_of_their_primary(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup, fault: str
) -> None:
    """Reads go to the replica at once, and writes go on as soon as it has taken over."""
    values = {f"v{number}": number for number in range(60)}
    manager.store_many_distributed(values)
    manager.store_distributed("large", bytes(9_000_000))
    victim, heir = cluster_nodes.servers[0], cluster_nodes.servers[3]
    fail_after(2.0, cluster_nodes.servers)
    getattr(victim, fault)()
    try:
        longest = 0.0
        for key, value in values.items():
            began = time.monotonic()
            assert value == manager.retrieve_distributed(key)
            longest = max(longest, time.monotonic() - began)
        assert longest < 60.0
        assert bytes(9_000_000) == manager.retrieve_distributed("large")
        until(lambda: role_of(heir) == b"master")
        for key in values:
            assert values[key] == manager.retrieve_distributed(key)
        other_shard = key_of_shard(1)
        manager.store_distributed(other_shard, "served by others")
        # No node is left for a second copy of the writes to this primary.
        manager.store_distributed(key_of_shard(0), "alone")
        assert "alone" == manager.retrieve_distributed(key_of_shard(0))
        manager.store_distributed("large", bytes(8_000_000))
        with manager_of([server.name for server in cluster_nodes.servers[1:]]) as new:
            new.store_distributed(key_of_shard(0), "alone, too")
        with manager_of(cluster_nodes.names, strict=True) as strict:
            assert "alone, too" == strict.retrieve_distributed(key_of_shard(0))
            with pytest.raises(ReplicationError, match="0 of the 1 replicas"):
                strict.store_distributed(key_of_shard(0), "alone")
    finally:
        victim.resume() if fault == "pause" else victim.restart()
    until(lambda: in_step(victim))
    manager.store_distributed(key_of_shard(0), "in two places again")
    assert "in two places again" == manager.retrieve_distributed(key_of_shard(0))


def test_a_history_with_a_failover_is_linearizable(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup
) -> None:
    """Nothing acknowledged is lost with its primary, and nothing old comes back."""
    key = key_of_shard(2)
    recorder = Recorder((UnavailableError,))
    ended = threading.Event()

    def read(name: str) -> None:
        while not ended.is_set():
            recorder.read(lambda: manager.retrieve_distributed(key), name)
            time.sleep(0.01)

    readers = [threading.Thread(target=read, args=(f"r{number}",)) for number in range(2)]
    victim, heir = cluster_nodes.servers[2], cluster_nodes.servers[5]
    fail_after(2.0, cluster_nodes.servers)
    acknowledged = 0
    for reader in readers:
        reader.start()
    try:
        for turn in range(30):
            if turn == 15:
                victim.kill()
                until(lambda: role_of(heir) == b"master")
                victim.restart()
                until(lambda: in_step(victim))
            acknowledged += recorder.write(turn, partial(manager.store_distributed, key, turn), "w")
        until(lambda: len(recorder.history) > 100)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert acknowledged >= 25
    recorder.check()


@pytest.mark.usual_limits
def test_a_replica_that_restarted_empty_does_not_call_a_key_absent(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves reads before it has copied its primary; a slow primary made clients ask it."""
    key = key_of_shard(1)
    manager.store_distributed(key, "there")
    monkeypatch.setattr("memories.cluster.valkey_cluster.read.READ_SECONDS", 0.5)
    primary, replica = cluster_nodes.servers[1], cluster_nodes.servers[4]
    fail_after(600.0, cluster_nodes.servers)

    def refused() -> bool:
        with pytest.raises(UnavailableError) as caught:
            manager.retrieve_distributed(key)
        return "has not copied its primary yet" in str(caught.value)

    primary.pause()
    try:
        replica.restart()
        until(refused)
        with pytest.raises(UnavailableError):
            list(manager.scan_distributed())
    finally:
        primary.resume()
    until(lambda: in_step(replica))
    until(lambda: manager.retrieve_distributed(key) == "there")


@pytest.mark.usual_limits
def test_a_primary_that_came_back_empty_as_a_replica_does_not_call_a_key_absent(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose slot map is old still asks it as the primary."""
    monkeypatch.setattr("memories.cluster.valkey_cluster.read.READ_SECONDS", 0.5)
    key = key_of_shard(2)
    manager.store_distributed(key, "there")
    victim, heir = cluster_nodes.servers[2], cluster_nodes.servers[5]
    fail_after(2.0, cluster_nodes.servers)
    victim.kill()
    until(lambda: role_of(heir) == b"master")
    others = [server for server in cluster_nodes.servers if server is not victim]
    fail_after(600.0, others)
    heir.pause()
    try:
        victim.restart()
        until(lambda: role_of(victim) == b"slave")
        with pytest.raises(UnavailableError):
            manager.retrieve_distributed(key)
        with pytest.raises(UnavailableError):
            list(manager.scan_distributed())
    finally:
        heir.resume()
    until(lambda: in_step(victim))
    until(lambda: manager.retrieve_distributed(key) == "there")


def test_keys_are_not_listed_without_those_of_a_slot_that_no_node_serves(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup
) -> None:
    """A Cluster may be set to go on without some slots; a list must not say that it is whole."""
    keys = {key_of_shard(number) for number in range(3)}
    for key in keys:
        manager.store_distributed(key, "there")
    assert keys == set(manager.scan_distributed())
    for server in cluster_nodes.servers:
        server.call("CONFIG", "SET", "cluster-require-full-coverage", "no")
    for server in cluster_nodes.servers:
        server.call("CLUSTER", "DELSLOTS", 0)
    shards = manager._service.shards  # type: ignore[attr-defined]
    until(lambda: shards.refresh() or not shards.slot_map.whole)
    with pytest.raises(UnavailableError, match="no node serves some slots"):
        list(manager.scan_distributed())
    assert "there" == manager.retrieve_distributed(key_of_shard(2))


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_stores_go_on_without_a_replica(
    manager: DistributedMemoryManager,
    cluster_nodes: LocalGroup,
    fault: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A third of all stores failed until it was back, and no new manager could be opened."""
    monkeypatch.setattr(logger, "filters", [RateLimit()])
    monkeypatch.setattr("memories.cluster.valkey_cluster.redundancy._WARN_SECONDS", 3600.0)
    key, primary, replica = key_of_shard(1), cluster_nodes.servers[1], cluster_nodes.servers[4]
    manager.store_distributed(key, "two copies")
    assert 0 == manager.get_node_status()[primary.name]["missing_copies"]
    fail_after(2.0, cluster_nodes.servers)
    getattr(replica, fault)()
    try:
        began = time.monotonic()
        manager.store_distributed(key, "one copy")
        assert time.monotonic() - began < 50.0
        began = time.monotonic()
        for number in range(20):
            manager.store_distributed(key, number)
        assert time.monotonic() - began < 30.0  # Only the first one waits 2 s for the replica.
        manager.store_distributed("large", bytes(8_000_000))
        state = manager.get_node_status()[primary.name]
        assert 1 == state["missing_copies"]
        assert 20 < state["short_writes"]
        assert 1 == caplog.text.count(f"{primary.name}: values are on 1 of 2 nodes")
        with manager_of(cluster_nodes.names) as new:
            assert 19 == new.retrieve_distributed(key)
            new.store_distributed(key, "by a new manager")
    finally:
        replica.resume() if fault == "pause" else replica.restart()
    until(lambda: in_step(replica))
    until(lambda: manager.get_node_status()[primary.name]["missing_copies"] == 0)
    until(lambda: not manager._service.redundancy._found)  # type: ignore[attr-defined]
    before = manager.get_node_status()[primary.name]["short_writes"]
    manager.store_distributed(key, "two copies again")
    assert before == manager.get_node_status()[primary.name]["short_writes"]


def test_a_write_that_a_living_replica_lacks_is_in_doubt(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup
) -> None:
    """The replica could take over, and would not have it: a primary that is cut off sees this."""
    key, primary, replica = key_of_shard(1), cluster_nodes.servers[1], cluster_nodes.servers[4]
    manager.store_distributed(key, "before")
    primary.call("ACL", "SETUSER", "default", "-psync", "-sync")
    try:
        primary.call("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: not in_step(replica))
        with pytest.raises(ReplicationError, match="the primary has it"):
            manager.store_distributed(key, "doubtful")
        assert manager.retrieve_distributed(key) in ("before", "doubtful")
    finally:
        primary.call("ACL", "SETUSER", "default", "+psync", "+sync")
    until(lambda: in_step(replica))
    manager.store_distributed(key, "after")
    assert "after" == manager.retrieve_distributed(key)


@pytest.mark.usual_limits
def test_a_primary_that_the_others_do_not_see_acknowledges_nothing_alone(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been replaced by a replica that this client does not reach."""
    monkeypatch.setattr("memories.cluster.valkey_cluster.write.WRITE_SECONDS", 3.0)
    key, replica = key_of_shard(1), cluster_nodes.servers[4]
    manager.store_distributed(key, "before")
    others = [cluster_nodes.servers[number] for number in (0, 2, 3, 5)]
    for server in (replica, *others):
        server.pause()
    try:
        with pytest.raises(UnavailableError):
            manager.store_distributed(key, "alone")
    finally:
        for server in (replica, *others):
            server.resume()
    until(lambda: all(in_step(server) for server in cluster_nodes.servers[3:]))


def test_a_new_cluster_that_hides_its_replicas_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers show a replica once its first copy is known, up to 10 s later."""
    monkeypatch.setattr("memories.cluster.local.group.is_formed", lambda *args: True)
    with LocalGroup(tmp_path, 3, replicas=1) as group, manager_of(group.names) as manager:
        manager.store_distributed("key", 1)
        assert 6 == len(manager.get_node_status())
        until(lambda: {0} == {one["missing_copies"] for one in manager.get_node_status().values()})


def test_a_write_that_a_replica_lacks_is_in_doubt_if_that_is_strict(
    cluster_nodes: LocalGroup,
) -> None:
    """WAIT counts the replicas; the error says that the primary has it, and how many lack it."""
    key = key_of_shard(1)
    replica = cluster_nodes.servers[4]
    with manager_of(cluster_nodes.names, strict=True) as manager:
        manager.store_distributed(key, "before")
        replica.pause()
        try:
            began = time.monotonic()
            with pytest.raises(ReplicationError, match="the primary has it"):
                manager.store_distributed(key, "doubtful")
            assert time.monotonic() - began < 60.0
            assert manager.retrieve_distributed(key) in ("before", "doubtful")
        finally:
            replica.resume()
        until(lambda: in_step(replica))
        manager.store_distributed(key, "after")
        assert "after" == manager.retrieve_distributed(key)


def test_a_full_primary_refuses_and_keeps_what_it_has(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup
) -> None:
    """A node that replies with an error works: it is asked as before."""
    full = cluster_nodes.servers[0]
    key = key_of_shard(0)
    manager.store_distributed(key, "kept")
    full.call("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(UnavailableError, match="OOM"):
            manager.store_distributed(key, "refused")
        assert "kept" == manager.retrieve_distributed(key)
        manager.store_distributed(key_of_shard(1), "taken")
    finally:
        full.call("CONFIG", "SET", "maxmemory", 0)
    manager.store_distributed(key, "taken again")
    assert "taken again" == manager.retrieve_distributed(key)


def test_connections_that_the_server_kills_are_replaced(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup
) -> None:
    """CLIENT KILL, a restarted load balancer: callers do not notice."""
    for turn in range(10):
        manager.store_distributed(f"k{turn}", turn)
        for server in cluster_nodes.servers[:3]:
            server.call("CLIENT", "KILL", "TYPE", "normal")
        assert turn == manager.retrieve_distributed(f"k{turn}")


def test_a_slot_that_is_being_moved_is_followed(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup
) -> None:
    """ASK while it moves and MOVED afterwards, and the value is there all the time."""
    key = key_of_shard(0)
    name = register_name(key)
    slot = slot_of(name)
    source, target = cluster_nodes.servers[0], cluster_nodes.servers[1]
    ids = [server.call("CLUSTER", "MYID") for server in (source, target)]
    manager.store_distributed(key, "at home")
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])  # type: ignore[arg-type]
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])  # type: ignore[arg-type]
    try:
        assert "at home" == manager.retrieve_distributed(key)
        source.call("MIGRATE", "127.0.0.1", target.port, name, 0, 2000)
        assert "at home" == manager.retrieve_distributed(key)
        manager.store_distributed(key, "under way")
        assert "under way" == manager.retrieve_distributed(key)
    finally:
        for server in (target, source):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", ids[1])  # type: ignore[arg-type]
    assert "under way" == manager.retrieve_distributed(key)
    manager.store_distributed(key, "arrived")
    assert "arrived" == manager.retrieve_distributed(key)
    cluster_nodes.servers[0].kill()  # The next test gets a cluster with every slot at home.


def test_repair_reports_damage_and_a_new_value_replaces_it(
    manager: DistributedMemoryManager, cluster_nodes: LocalGroup
) -> None:
    """If all copies are damaged, repair only reports the key; a new value is still accepted."""
    key = key_of_shard(0)
    manager.store_distributed(key, b"x" * 500)
    primary, name = cluster_nodes.servers[0], register_name(key)
    for place in (3, 300):  # In the version, and in the value.
        there = primary.call("GETRANGE", name, place, place)
        assert isinstance(there, bytes)
        primary.call("SETRANGE", name, place, bytes([there[0] ^ 1]))
        until(lambda: [key] == manager.repair().unreadable)
        with pytest.raises(CorruptDataError, match=key):
            manager.retrieve_distributed(key)
        manager.store_distributed(key, b"y" * 500)
        assert b"y" * 500 == manager.retrieve_distributed(key)
        assert [] == manager.repair().unreadable


def test_a_cluster_with_too_few_replicas_is_refused(
    cluster_nodes: LocalGroup, plain_nodes: LocalGroup
) -> None:
    """At once and by name, not at the first write."""
    with pytest.raises(InvalidOptionError, match="2 replicas of every primary"):
        manager_of(cluster_nodes.names, factor=3)
    with pytest.raises(InvalidOptionError, match="one kind"):
        manager_of([cluster_nodes.names[0], plain_nodes.names[0]])
    with manager_of(cluster_nodes.names[:1]) as manager:
        assert sorted(cluster_nodes.names) == sorted(manager.get_node_status())
        with pytest.raises(InvalidOptionError, match="valkey-cli"):
            manager.add_node(plain_nodes.names[0])


def test_an_evicting_node_is_refused(tmp_path: Path) -> None:
    """It would lose values without a word."""
    folder = tmp_path / "evicting"
    folder.mkdir()
    arguments = ("--maxmemory-policy", "allkeys-lru")
    with LocalGroup(folder, 3, replicas=0, arguments=arguments) as group:
        with pytest.raises(InvalidOptionError, match="allkeys-lru"):
            manager_of(group.names, factor=1)
        with DistributedMemoryManager(
            *TIERS, nodes=group.names, replication_factor=1, allow_eviction=True
        ) as manager:
            manager.store_distributed("k", 1)
            assert 1 == manager.retrieve_distributed("k")


def test_a_write_that_is_sent_again_by_another_connection_is_waited_for(
    cluster_nodes: LocalGroup,
) -> None:
    """WAIT counts the replicas that have the writes of its own connection: without one, all."""
    key, primary, replica = key_of_shard(1), cluster_nodes.servers[1], cluster_nodes.servers[4]
    name, version = register_name(key), RegisterVersion(1 << 50, 1)
    value = b"".join(pack_register(name, version, RegisterKind.VALUE, [memoryview(b"n")]))
    store = scripts.SLOT_STORE.evaluated([name], value, b"")
    replica.pause()
    try:
        for _ in range(2):
            with Connection(primary.address) as connection:
                assert [1, 0] == connection.pipeline([store, ("WAIT", 1, 100)])
    finally:
        replica.resume()
