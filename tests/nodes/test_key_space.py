"""What users of a store expect of the values on the nodes, on plain servers and on a Cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.nodes.test_replicas import manager_of
from tests.support.waiting import until

from memories import DistributedMemoryManager, InvalidOptionError, KeyNotFoundError
from memories.cluster.local import LocalGroup
from memories.core.distributed_view import DistributedInfo, DistributedView

pytestmark = pytest.mark.server


@pytest.fixture(params=["plain", "cluster"])
def group(request: pytest.FixtureRequest) -> LocalGroup:
    """Nodes of both kinds of replication."""
    name = "plain_nodes" if request.param == "plain" else "cluster_nodes"
    found: LocalGroup = request.getfixturevalue(name)
    return found


@pytest.fixture
def manager(group: LocalGroup) -> Iterator[DistributedMemoryManager]:
    """A manager over these nodes, with local copies."""
    with manager_of(group.names, near_cache=True) as manager:
        yield manager


def names_on(group: LocalGroup, pattern: str) -> list[Any]:
    """Return the names on all nodes that match a pattern."""
    found: list[Any] = []
    for server in group.servers:
        found += server.call("KEYS", pattern)  # type: ignore[call-overload]
    return found


def test_two_applications_share_nodes_by_namespaces(group: LocalGroup) -> None:
    """Neither sees, replaces or removes what the other has; nor does one without a namespace."""
    with (
        manager_of(group.names, near_cache=True) as plain,
        manager_of(group.names, near_cache=True, namespace="one") as one,
        manager_of(group.names, near_cache=True, namespace="two") as two,
        manager_of(group.names, near_cache=True, namespace="one") as other,
    ):
        for manager, value in ((plain, 0), (one, 1), (two, 2)):
            manager.store_distributed("key", value)
            manager.store_distributed(f"of {value}", np.full(400_000, value))
        for manager, value in ((plain, 0), (one, 1), (two, 2)):
            assert value == manager.retrieve_distributed("key")
            assert ["key", f"of {value}"] == list(manager.scan_distributed())
        assert 1 == other.retrieve_distributed("key")
        one.store_distributed("key", "new")  # The local copy of the other one is invalidated.
        until(lambda: other.retrieve_distributed("key") == "new")
        assert 2 == one.clear_distributed()
        assert [] == list(one.scan_distributed()) == list(other.distributed)
        assert [0, 2] == [plain.retrieve_distributed("key"), two.retrieve_distributed("key")]
        assert [] == plain.repair().unreadable
    for wrong in ("a\0b", 5, "x" * 5000):
        with pytest.raises(InvalidOptionError, match="namespace="):
            manager_of(group.names, namespace=wrong).__enter__()


def test_the_values_on_the_nodes_are_a_mapping(manager: DistributedMemoryManager) -> None:
    """The plain names do what those with `_distributed` do."""
    nodes = DistributedView(manager)
    nodes["a"] = 1
    nodes.update({"b": [2], "c": {"d": 3}})
    nodes.store("e", np.arange(5))
    assert ["a", "b", "c", "e"] == list(nodes) == list(manager.distributed.keys())
    assert 4 == len(nodes)
    assert [2] == nodes["b"] == manager.retrieve_distributed("b")
    assert "c" in nodes and "x" not in nodes and 5 not in nodes
    assert nodes.exists("c") and not manager.exists_distributed("x")
    assert {"a": 1, "x": None} == nodes.retrieve_many(["a", "x"], None)
    assert {"a": 1, "x": 0} == manager.retrieve_many_distributed(["a", "x"], 0)
    with pytest.raises(KeyNotFoundError):
        nodes.retrieve_many(["a", "x"])
    with pytest.raises(KeyNotFoundError):
        nodes["x"]
    assert 7 == nodes.get("x", 7)
    assert ("a", 1) == nodes.popitem()
    assert [2] == nodes.pop("b")
    assert 1 == nodes.delete_many(["c", "x"])
    assert [("e", 5)] == [(key, len(value)) for key, value in nodes.items()]
    assert nodes.version("e") > nodes.version("x") == 0
    assert "DistributedView of <DistributedMemoryManager" in repr(nodes)
    nodes.clear()
    assert {} == dict(nodes)
    assert [] == list(manager)  # The tiers are another key space.


@pytest.mark.parametrize("size", [10, 9_000_000])
def test_values_expire_and_leave_nothing(
    manager: DistributedMemoryManager,
    group: LocalGroup,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reads, scans and `exists` agree, from a local copy too; the nodes free the memory."""
    monkeypatch.setattr("memories.cluster.settling.RETAIN_SECONDS", 0.5)
    monkeypatch.setattr("memories.cluster.settling._RETRY_SECONDS", 0.3)
    monkeypatch.setattr("memories.cluster.store._CHUNK_GRACE_MS", 100)
    monkeypatch.setattr("memories.cluster.chunks.REPLACED_SECONDS", 1)
    manager.store_distributed("stays", 1)
    manager.store_distributed("key", bytes(size), ttl=3600)
    manager.store_many_distributed({"many": bytes(size)}, ttl=3600, metadata={"kind": "test"})
    for _ in range(3):
        assert bytes(size) == manager.retrieve_distributed("key")
    assert manager.exists_distributed("key")
    assert 3000 < (manager.info_distributed("many").expires_at or 0) - time.time() < 3600.1
    assert ["key", "many", "stays"] == list(manager.distributed)
    manager.store_many_distributed({"key": bytes(size), "many": bytes(size)}, ttl=0.5)
    manager.retrieve_many_distributed(["key", "many"], None)
    until(lambda: not manager.exists_distributed("many"))
    assert manager.retrieve_distributed("key", None) is None
    assert ["stays"] == list(manager.distributed)
    with pytest.raises(KeyNotFoundError):
        manager.delete_distributed("key")
    until(lambda: not names_on(group, "m:c:*"))
    until(lambda: {b"m:r:stays"} == set(names_on(group, "m:r:*")))
    manager.store_distributed("key", 5, ttl=0.2)
    manager.store_distributed("key", 6)
    time.sleep(0.5)
    assert 6 == manager.retrieve_distributed("key")


def test_metadata_is_stored_with_a_value(manager: DistributedMemoryManager) -> None:
    """It is read without the value, and comes back as it was given."""
    metadata = {"kind": "scene", "band": 4, "tags": ("a", "b")}
    for key, value in (("small", 1), ("large", np.arange(2_000_000))):
        manager.store_distributed(key, value, metadata=metadata)
        info = manager.distributed.info(key)
        assert isinstance(info, DistributedInfo)
        assert (key, metadata, None) == (info.key, info.metadata, info.expires_at)
        assert manager.version_distributed(key) == info.version
        assert abs(info.stored_at - time.time()) < 60
        assert np.array_equal(value, manager.retrieve_distributed(key))
    assert 16_000_000 < info.size < 16_100_000
    assert [] == manager.repair().unreadable
    assert np.array_equal(np.arange(2_000_000), manager.retrieve_distributed("large"))
    manager.store_distributed("large", 1)
    assert {} == manager.info_distributed("large").metadata
    with pytest.raises(KeyNotFoundError):
        manager.info_distributed("absent")
    with pytest.raises(InvalidOptionError, match="ttl"):
        manager.store_distributed("key", 1, ttl=-1)


def test_of_a_region_only_the_touched_chunks_are_received(
    manager: DistributedMemoryManager, group: LocalGroup
) -> None:
    """A row of a large array costs one chunk or two, not the array."""
    array = np.arange(5_000_000).reshape(5000, 1000)
    manager.store_distributed("array", array)
    manager.store_distributed("small", array[:10])
    manager.store_distributed("bytes", bytes(range(256)) * 40_000)

    def sent() -> int:
        return sum(
            int(line.partition(b":")[2])
            for server in group.servers
            for line in server.call("INFO", "stats").split(b"\r\n")  # type: ignore[attr-defined]
            if line.startswith(b"total_net_output_bytes:")
        )

    before = sent()
    assert np.array_equal(
        array[2500:2502], manager.retrieve_distributed("array", region=np.s_[2500:2502])
    )
    assert sent() - before < 20_000_000 < array.nbytes
    assert np.array_equal(array[:, 7], manager.retrieve_distributed("array", region=np.s_[:, 7]))
    assert np.array_equal(array[3:5], manager.retrieve_distributed("small", region=np.s_[3:5]))
    assert bytes([255, 0]) == manager.retrieve_distributed("bytes", region=np.s_[511:513])
    part = manager.retrieve_distributed("array", region=np.s_[1:2], copy=True)
    part[:] = 0
    assert 7 == manager.retrieve_distributed("absent", 7, region=0)
    with pytest.raises(InvalidOptionError, match="region"):
        manager.store_distributed("text", [1])
        manager.retrieve_distributed("text", region=0)


def test_a_value_is_returned_on_a_device_and_in_a_library(
    manager: DistributedMemoryManager,
) -> None:
    """As `retrieve` does."""
    manager.store_distributed("array", np.arange(10))
    for options in ({"like": "numpy"}, {"device": "cpu"}, {"device": "cpu", "like": np}):
        array = manager.retrieve_distributed("array", **options)
        array[:] = 0  # It is the reader's own.
    own = manager.retrieve_distributed("array", copy=True)
    own[:] = 0
    assert 45 == manager.retrieve_distributed("array").sum()
    with pytest.raises(InvalidOptionError, match="region="):
        manager.retrieve_distributed("array", region=0, device="cpu")
    with pytest.raises(InvalidOptionError, match="like="):
        manager.retrieve_distributed("array", like="tensorflow")


def test_deleted_keys_leave_nothing_behind(
    manager: DistributedMemoryManager, group: LocalGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 of them left 10,006 names on the nodes until a repair an hour later."""
    monkeypatch.setattr("memories.cluster.settling.RETAIN_SECONDS", 0.5)
    monkeypatch.setattr("memories.cluster.settling._RETRY_SECONDS", 0.3)
    manager.store_many_distributed({f"key {number}": number for number in range(2000)})
    assert 2000 == manager.clear_distributed()
    manager.store_distributed("key 7", "again")
    until(lambda: {b"m:r:key 7"} == set(names_on(group, "m:r:*")))
    assert ["key 7"] == list(manager.distributed)
    assert "again" == manager.retrieve_distributed("key 7")


def test_a_deleted_key_does_not_come_back_with_an_old_dump(
    plain_nodes: LocalGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tombstone has vanished; a node restarts with what it had before the key was deleted."""
    monkeypatch.setattr("memories.cluster.settling.RETAIN_SECONDS", 0.2)
    monkeypatch.setattr("memories.cluster.settling._RETRY_SECONDS", 0.2)
    old = plain_nodes.servers[0]
    keys = [f"key {number}" for number in range(30)]
    with manager_of(plain_nodes.names) as manager:
        manager.store_many_distributed({**dict.fromkeys(keys, 1), "kept": 2})
        old.call("SAVE")
        assert len(keys) == manager.delete_many_distributed(keys)
        until(lambda: {b"m:r:kept"} == set(names_on(plain_nodes, "m:r:*")))
        old.restart()
        assert {b"m:r:kept"} < set(names_on(plain_nodes, "m:r:*"))
        until(lambda: manager.get_node_status()[old.name]["up_to_date"])
        assert {b"m:r:kept"} == set(names_on(plain_nodes, "m:r:*"))
        assert ["kept"] == list(manager.distributed)
        assert dict.fromkeys(keys) == manager.retrieve_many_distributed(keys, None)
