"""Nodes that are added and removed while everything stays answerable."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.nodes.test_replicas import manager_of

from memories import InvalidOptionError, UnavailableError
from memories.cluster.local import LocalGroup, LocalServer

pytestmark = pytest.mark.server
KEYS = 600


def registers_on(node: LocalServer) -> int:
    """Return how many registers a node has."""
    return len(node.call("KEYS", "m:r:*"))  # type: ignore[arg-type]


def test_an_added_node_gets_its_share_while_reads_and_writes_go_on(
    plain_nodes: LocalGroup, node: LocalServer
) -> None:
    """With four nodes about a quarter of the keys moves; no call waits or reads an old value."""
    names = plain_nodes.names
    with manager_of(names) as manager, manager_of(names) as other:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)
        large = np.arange(900_000)
        manager.store_distributed("large", large)
        stop, faults = threading.Event(), []

        def use() -> None:
            number = 0
            try:
                while not stop.is_set():
                    key = f"key {number % KEYS}"
                    other.store_distributed(key, number)
                    values[key] = number
                    assert number == other.retrieve_distributed(key)
                    number += 1
            except BaseException as error:
                faults.append(error)

        user = threading.Thread(target=use)
        user.start()
        steps: list[tuple[int, int]] = []
        manager.add_node(node.name, lambda done, total: steps.append((done, total)))
        stop.set()
        user.join()
        assert [] == faults
        assert repr(manager).startswith("<DistributedMemoryManager: ")
        assert "; 4 nodes, 2 copies; " in repr(manager)
        assert steps and steps[-1][0] == steps[-1][1]
        # Two copies of each key over four nodes; all of them on the new one would be KEYS.
        assert KEYS / 4 < registers_on(node) < 3 * KEYS / 4
        for one in (manager, other):
            assert values == one.retrieve_many_distributed(values)
            assert np.array_equal(large, one.retrieve_distributed("large"))
        assert node.name in other.get_node_status()
        copies = sum(map(registers_on, [*plain_nodes.servers, node]))
        assert 2 * (KEYS + 1) <= copies < 2.2 * (KEYS + 1)


def test_a_removed_node_holds_nothing_that_is_needed(
    plain_nodes: LocalGroup, node: LocalServer
) -> None:
    """After it is gone the others have two copies of everything."""
    with manager_of([*plain_nodes.names, node.name]) as manager:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)
        manager.remove_node(node.name)
        node.kill()
        plain_nodes.servers[0].kill()
        assert values == manager.retrieve_many_distributed(values)
        assert set(plain_nodes.names) == set(manager.get_node_status())


def test_fewer_nodes_than_copies_are_refused(plain_nodes: LocalGroup) -> None:
    """The promise of two copies needs two nodes."""
    with manager_of(plain_nodes.names[:2]) as manager:
        with pytest.raises(InvalidOptionError, match="cannot hold 2 copies"):
            manager.remove_node(plain_nodes.names[0])
        with pytest.raises(InvalidOptionError, match="is not a member"):
            manager.remove_node("127.0.0.1:1")
        with pytest.raises(UnavailableError):
            manager.add_node("127.0.0.1:1")
        with pytest.raises(InvalidOptionError, match="replication_factor=1"):
            manager_of(plain_nodes.names[:2], replication_factor=1).__enter__()


def test_an_interrupted_change_is_finished_by_the_next_call(
    plain_nodes: LocalGroup, node: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that moves keys may end; both lists stay in force until another finishes."""
    names = plain_nodes.names
    with manager_of(names) as manager:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)

        class Stop(Exception):
            pass

        def stop(done: int, total: int) -> Any:
            raise Stop

        with pytest.raises(Stop):
            manager.add_node(node.name, stop)
        manager.store_distributed("key 1", "meanwhile")
        values["key 1"] = "meanwhile"  # type: ignore[assignment]
    with manager_of(names) as second:
        assert values == second.retrieve_many_distributed(values)
        with pytest.raises(InvalidOptionError, match="finish that change first"):
            second.remove_node(names[0])
        second.add_node(node.name)
        plain_nodes.servers[0].kill()
        assert values == second.retrieve_many_distributed(values)


def test_old_garbage_is_removed_but_not_new(plain_nodes: LocalGroup, tmp_path: Path) -> None:
    """A writer that dies leaves chunks that nothing names."""
    from memories.cluster.manifest import new_upload

    with manager_of(plain_nodes.names) as manager:
        wall = manager._services.clock.wall()
        old, _ = new_upload(1, wall - 7 * 3600)
        young, _ = new_upload(1, wall)
        for upload in (old, young):
            plain_nodes.servers[0].call("SET", upload.names()[0], "chunk")
        manager.store_distributed("large", np.arange(900_000))
        assert 1 == manager.repair().orphans
        assert 1 == plain_nodes.servers[0].call("EXISTS", young.names()[0])
        assert np.array_equal(np.arange(900_000), manager.retrieve_distributed("large"))
