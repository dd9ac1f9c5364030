"""Local copies of values on nodes: returned without a request, and never older than the lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.nodes.test_replicas import manager_of
from tests.support.waiting import until

from memories import DistributedMemoryManager
from memories.cluster.local import LocalGroup
from memories.cluster.near_cache.freshness import LEASE_SECONDS, PREFIX
from memories.model.tiers import Cause

pytestmark = pytest.mark.server


def listening(manager: DistributedMemoryManager) -> bool:
    """Return whether the nodes tell the manager of writes."""
    return manager._near.fresh_until > time.monotonic()


@pytest.fixture
def pair(plain_nodes: LocalGroup) -> Iterator[tuple[DistributedMemoryManager, ...]]:
    """Two managers that keep local copies."""
    names = plain_nodes.names
    with manager_of(names, near_cache=True) as one, manager_of(names, near_cache=True) as two:
        until(lambda: listening(one) and listening(two))
        yield one, two


def reads_of(nodes: LocalGroup) -> int:
    """Return how many reads of registers the nodes have answered."""
    count = 0
    for node in nodes.servers:
        stats = str(node.call("INFO", "commandstats"))
        for name in ("cmdstat_getrange", "cmdstat_get"):
            if f"{name}:calls=" in stats:
                count += int(stats.split(f"{name}:calls=")[1].split(",")[0])
    return count


def test_a_value_read_once_is_returned_without_a_request(
    plain_nodes: LocalGroup, pair: tuple[DistributedMemoryManager, ...]
) -> None:
    """A read over the network costs a hundred times one from memory."""
    manager, _ = pair
    values: dict[str, Any] = {"array": np.arange(10), "text": "text", "dict": {"a": [1]}}
    manager.store_many_distributed(values)
    time.sleep(0.1)

    def few_requests() -> bool:
        for key in values:
            manager.retrieve_distributed(key)
        background = reads_of(plain_nodes)
        for _ in range(200):
            assert np.array_equal(values["array"], manager.retrieve_distributed("array"))
            assert values["text"] == manager.retrieve_distributed("text")
            assert values["dict"] == manager.retrieve_distributed("dict")
        return reads_of(plain_nodes) - background < 60  # Of 1,800, and the marks are looked at too.

    until(few_requests)  # After a stall of the machine no copy is fresh for a moment.


def test_a_manager_sees_its_own_write_at_once(
    pair: tuple[DistributedMemoryManager, ...],
) -> None:
    """A manager that reads back an old value after its own write is broken."""
    manager, _ = pair
    stop, faults = threading.Event(), []
    latest = 0

    def read() -> None:
        try:
            while not stop.is_set():
                least = latest
                assert manager.retrieve_distributed("key", 0) >= least
        except BaseException as error:
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 40):
        manager.store_distributed("key", number)
        latest = number
        assert number <= manager.retrieve_distributed("key")
    stop.set()
    for reader in readers:
        reader.join()
    assert [] == faults
    manager.delete_distributed("key")
    with pytest.raises(KeyError):
        manager.retrieve_distributed("key")


def test_a_write_of_another_manager_is_visible_within_the_lease(
    plain_nodes: LocalGroup, pair: tuple[DistributedMemoryManager, ...]
) -> None:
    """The bound also holds while a node hangs, because the others report writes."""
    writer, reader = pair
    for number, fault in enumerate((None, plain_nodes.servers[0].pause)):
        if fault is not None:
            fault()
        try:
            for step in range(10):
                value = (number, step)
                writer.store_distributed("key", value)
                acknowledged = time.monotonic()
                while reader.retrieve_distributed("key") != value:
                    assert (
                        time.monotonic() - acknowledged < LEASE_SECONDS + 60
                    )  # A busy machine takes long.
        finally:
            plain_nodes.servers[0].resume()


def test_without_a_connection_the_version_is_read_from_the_nodes(
    plain_nodes: LocalGroup, pair: tuple[DistributedMemoryManager, ...]
) -> None:
    """A broken connection has not reported the writes since."""
    writer, reader = pair
    writer.store_distributed("key", 1)
    assert 1 == reader.retrieve_distributed("key")
    reader._service._listener.stop()  # type: ignore[union-attr]
    writer.store_distributed("key", 2)
    assert 2 == reader.retrieve_distributed("key")
    assert not listening(reader)


def test_local_copies_are_not_keys_of_the_manager(
    plain_nodes: LocalGroup, pair: tuple[DistributedMemoryManager, ...], tmp_path: Path
) -> None:
    """They are not in scans, counts or snapshots, and are evicted when room is needed."""
    manager, _ = pair
    manager.store_distributed("far", np.ones(1_000_000))
    manager.store("own", 1)
    # The report of the manager's own write may come late, and removes a copy made before.
    until(lambda: manager.retrieve_distributed("far") is not None and len(manager._near))
    assert ["own"] == list(manager) and 1 == len(manager)
    assert not manager.exists("far") and [] == list(manager.scan("\0"))
    manager.create_snapshot(tmp_path / "snapshot")
    manager.flush()
    manager.restore_snapshot(tmp_path / "snapshot", wait=True)
    assert ["own"] == list(manager)
    for number in range(6):
        manager.store(f"big {number}", np.zeros(1_000_000), "warm")
    assert {"own", *(f"big {number}" for number in range(6))} == set(manager)
    assert np.array_equal(np.ones(1_000_000), manager.retrieve_distributed("far"))


def test_a_returned_value_cannot_be_changed_by_its_reader(
    pair: tuple[DistributedMemoryManager, ...],
) -> None:
    """Readers cannot change a local copy, as they cannot change a stored value."""
    manager, _ = pair
    manager.store_distributed("key", {"a": [1]})
    manager.retrieve_distributed("key")["a"].append(2)
    assert {"a": [1]} == manager.retrieve_distributed("key")
    manager.store_distributed("array", np.arange(3))
    with pytest.raises(ValueError, match="read-only"):
        manager.retrieve_distributed("array")[0] = 9
    manager.retrieve_distributed("array", copy=True)[0] = 9
    assert 0 == manager.retrieve_distributed("array")[0]


def test_an_evicted_copy_is_forgotten(
    plain_nodes: LocalGroup, pair: tuple[DistributedMemoryManager, ...]
) -> None:
    """The versions of all keys ever read must not accumulate."""
    manager, _ = pair
    keys = [f"k{number}" for number in range(30)]
    manager.store_many_distributed(dict.fromkeys(keys, "text"))

    def all_have_copies() -> bool:
        # A late report of the manager's own write removes a copy that was made before it.
        manager.retrieve_many_distributed(keys)
        return len(manager._near) == len(keys)

    until(all_have_copies)
    for key in keys[:10]:
        manager._hierarchy.remove(PREFIX + key, Cause.CAPACITY)
    manager._hierarchy.events.flush()
    assert not any(manager._near.version(key) for key in keys[:10])
    manager.clear()
    assert 0 == len(manager._near)
    assert "text" == manager.retrieve_distributed("k1")
