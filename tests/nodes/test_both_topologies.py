"""The promises of the distributed manager, on plain servers and on a Valkey Cluster.

A user who moves from one to the other changes the list of nodes, and no program.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.nodes.linearizability import Recorder

from memories import DistributedMemoryManager, codecs
from memories.cluster.local import LocalGroup
from memories.cluster.manifest import INLINE_BYTES
from memories.errors import (
    ConflictError,
    CorruptDataError,
    InvalidOptionError,
    KeyNotFoundError,
    UnavailableError,
)
from memories.frames.writer import pack

pytestmark = pytest.mark.server
SMALL = {"hot_memory_size": 0.01, "warm_memory_size": 0.05, "cold_memory_size": 0.1}


@pytest.fixture(params=["plain", "cluster"])
def group(request: pytest.FixtureRequest) -> LocalGroup:
    """Fresh servers of either kind."""
    group: LocalGroup = request.getfixturevalue(f"{request.param}_nodes")
    return group


@pytest.fixture
def manager(group: LocalGroup) -> Iterator[DistributedMemoryManager]:
    """A manager over them."""
    with DistributedMemoryManager(nodes=group.names, replication_factor=2, **SMALL) as manager:
        yield manager


def asking_always(names: list[str]) -> DistributedMemoryManager:
    """Return a manager that keeps no copies, and so is never behind another."""
    return DistributedMemoryManager(nodes=names, replication_factor=2, near_cache=False, **SMALL)


@pytest.fixture
def other(group: LocalGroup) -> Iterator[DistributedMemoryManager]:
    """Another manager over the same nodes, as in another process."""
    with asking_always(group.names[::-1]) as manager:
        yield manager


def damaged(group: LocalGroup, prefix: bytes, offset: int) -> int:
    """Flip a byte of every string with that prefix on every node; return how many there were."""
    count = 0
    for server in group.servers:
        role = server.call("ROLE")
        assert isinstance(role, list)
        if role[0] != b"master":
            continue
        names = server.call("KEYS", prefix + b"*")
        assert isinstance(names, list)
        for name in names:
            value = server.call("GETRANGE", name, offset, offset)
            assert isinstance(value, bytes)
            server.call("SETRANGE", name, offset, bytes([value[0] ^ 1]))
            count += 1
    return count


def test_a_stored_value_is_read_by_every_manager(
    manager: DistributedMemoryManager, other: DistributedMemoryManager
) -> None:
    """Any value, by any manager, bit for bit and type for type."""
    array = np.arange(24, dtype=">f4").reshape(4, 6).T
    values = {"a": array, "b": {"x": (1, None, "ü")}, "{c}}": b"\x00" * 3, "d d": np.float16(2)}
    for key, value in values.items():
        manager.store_distributed(key, value)
    got = other.retrieve_distributed("a")
    assert (array.dtype, array.shape) == (got.dtype, got.shape)
    assert np.array_equal(array, got)
    assert not got.flags.writeable
    assert values["b"] == other.retrieve_distributed("b")
    assert values["{c}}"] == manager.retrieve_distributed("{c}}")
    assert sorted(values) == sorted(other.scan_distributed())
    assert ["d d"] == list(other.scan_distributed("d"))


def test_a_large_array_is_spread_and_read_back_complete(
    manager: DistributedMemoryManager, other: DistributedMemoryManager, group: LocalGroup
) -> None:
    """A Redis string ends at 512 MB, and one node's memory sooner."""
    array = np.random.default_rng(1).integers(0, 255, 21_000_001, np.uint8)
    manager.store_distributed("large", array)
    holders = [server for server in group.servers if server.call("KEYS", "m:c:*")]
    assert len(holders) >= 3
    assert np.array_equal(array, other.retrieve_distributed("large"))
    manager.store_distributed("large", array[::-1])
    assert np.array_equal(array[::-1], other.retrieve_distributed("large"))


def test_an_absent_key_is_a_key_error_and_a_deleted_one_too(
    manager: DistributedMemoryManager, other: DistributedMemoryManager
) -> None:
    """And never `could not find out`."""
    with pytest.raises(KeyNotFoundError):
        manager.retrieve_distributed("never")
    assert manager.retrieve_distributed("never", None) is None
    manager.store_distributed("k", 1)
    assert 1 == manager.retrieve_distributed("k")
    manager.delete_distributed("k")
    for each in (manager, other):
        with pytest.raises(KeyNotFoundError):
            each.retrieve_distributed("k")
    with pytest.raises(KeyNotFoundError):
        manager.delete_distributed("k")
    assert [] == list(manager.scan_distributed())
    manager.store_distributed("k", 2)
    assert 2 == other.retrieve_distributed("k")


def test_many_keys_take_few_requests(
    manager: DistributedMemoryManager, other: DistributedMemoryManager
) -> None:
    """A thousand small values must not cost a thousand round trips."""
    values = {f"k{number}": bytes([number % 256]) * 100 for number in range(1500)}
    values["large"] = bytes(3_000_000)
    manager.store_many_distributed(values)
    assert values == other.retrieve_many_distributed(values)


def test_one_value_in_the_place_of_many_is_refused(manager: DistributedMemoryManager) -> None:
    """The letters of a text are keys, and pairs are no mapping: neither was meant."""
    call: Any = manager
    for wrong, word in (
        (lambda: call.retrieve_many_distributed("abc"), r"write \['abc'\]"),
        (lambda: call.store_many_distributed([("a", 1)]), "must be a mapping"),
        (lambda: call.delete_distributed(keys="a"), "delete_distributed.* unexpected option"),
    ):
        with pytest.raises(InvalidOptionError, match=word) as caught:
            wrong()
        assert isinstance(caught.value, TypeError)
    assert [] == list(manager.scan_distributed())


def test_many_values_of_which_one_cannot_be_read_say_so(
    manager: DistributedMemoryManager, other: DistributedMemoryManager
) -> None:
    """The error is that of one key, and its note counts the others."""
    manager.store_many_distributed({"a": 1, "b": 2})
    with pytest.raises(KeyNotFoundError, match="absent") as caught:
        other.retrieve_many_distributed(["a", "absent", "b"])
    assert ["2 of 3 values were read, not 'absent'"] == caught.value.__notes__


def test_concurrent_writes_of_one_key_have_one_order(
    group: LocalGroup, other: DistributedMemoryManager
) -> None:
    """Linearizable per key: a value that one read returned is not missed by any later read."""
    recorder = Recorder((UnavailableError,))

    def work(name: str, own: DistributedMemoryManager) -> None:
        for turn in range(40):
            value = f"{name}{turn}"
            if turn % 4 == 0:
                recorder.write(value, lambda: own.store_distributed("k", value), name)  # noqa: B023
            else:
                recorder.read(lambda: own.retrieve_distributed("k"), name)

    with asking_always(group.names) as manager:
        threads = [
            threading.Thread(target=work, args=(f"{name}{copy}-", own))
            for name, own in (("a", manager), ("b", other))
            for copy in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (160, 0) == (len(recorder.history), recorder.failed)
    recorder.check()


def test_a_bit_flip_in_every_copy_is_an_error_that_names_the_key(
    manager: DistributedMemoryManager, other: DistributedMemoryManager, group: LocalGroup
) -> None:
    """Wrong data is never given out, not even where there is nothing else."""
    manager.store_distributed("small", b"x" * 500)
    manager.store_distributed("large", bytes(3_000_000))
    manager.store_distributed("sound", 1)
    assert damaged(group, b"m:c:", 1000) >= 1
    assert damaged(group, b"m:r:small", 300) >= 1
    for key in ("small", "large"):
        with pytest.raises(CorruptDataError, match=key):
            other.retrieve_distributed(key)
        manager.store_distributed(key, "anew")
        assert "anew" == other.retrieve_distributed(key)
    assert 1 == other.retrieve_distributed("sound")


def test_a_bit_flip_anywhere_in_a_large_value_is_found(
    manager: DistributedMemoryManager, other: DistributedMemoryManager, group: LocalGroup
) -> None:
    """Its frame has no checksums of its own: those of its chunks cover head, values and padding."""
    array = np.arange(600_000).reshape(600, 1000)
    manager.store_distributed("large", array)
    (chunk_bytes,) = {
        server.call("STRLEN", name)
        for server in group.servers
        for name in server.call("KEYS", b"m:c:*:0")  # type: ignore[union-attr]
        if server.call("ROLE")[0] == b"master"  # type: ignore[index]
    }
    for offset in (3, 100, 1000, 3_000_001, chunk_bytes - 1, chunk_bytes + 77):
        manager.store_distributed("large", array)
        index, within = divmod(offset, chunk_bytes)
        assert damaged(group, b"m:c:*:%d" % index, within) >= 1
        with pytest.raises(CorruptDataError, match="large"):
            other.retrieve_distributed("large")
        row = max(0, offset - 512) // 8000
        with pytest.raises(CorruptDataError, match="large"):
            other.retrieve_distributed("large", region=np.s_[row : row + 2])


def test_a_large_value_of_an_earlier_version_is_read(
    manager: DistributedMemoryManager, other: DistributedMemoryManager
) -> None:
    """It has checksums in its frame as well."""
    array = np.arange(300_000).reshape(300, 1000)
    frame = pack(codecs.encode(array), key="old", version=1)
    assert frame.nbytes > INLINE_BYTES
    manager._frames.put("old", frame.segments)
    for reader in (manager, other):
        assert np.array_equal(array, reader.retrieve_distributed("old"))
        assert np.array_equal(array[7:9], reader.retrieve_distributed("old", region=np.s_[7:9]))
        assert np.array_equal(array, reader.retrieve_distributed("old", copy=True))


def test_the_state_of_every_node_is_returned(
    manager: DistributedMemoryManager, group: LocalGroup
) -> None:
    """An operator asks for it first; a node that does not answer is listed as offline."""
    manager.store_distributed("k", 1)
    status = manager.get_node_status()
    assert sorted(group.names) == sorted(status)
    for state in status.values():
        assert state["online"]
        assert state["up_to_date"]
        assert 0 < state["memory_usage"] < 100
        assert state["total_bytes"] > state["used_bytes"] > 0
        assert state["version"].startswith("9.")
        assert 0 < state["latency_seconds"] < 5


def test_if_version_is_applied_or_refused(
    manager: DistributedMemoryManager, group: LocalGroup
) -> None:
    """On a Cluster one node decides between two writers; plain servers have no such node."""
    if not group.clustered:
        with pytest.raises(InvalidOptionError, match="Cluster"):
            manager.store_distributed("k", 1, if_version=0)
        return
    manager.store_distributed("k", "first", if_version=0)
    with pytest.raises(ConflictError, match="version"):
        manager.store_distributed("k", "second", if_version=0)
    assert "first" == manager.retrieve_distributed("k")
    manager.delete_distributed("k")
    manager.store_distributed("k", "third", if_version=0)
    assert "third" == manager.retrieve_distributed("k")


def test_the_local_tiers_and_the_nodes_are_two_key_spaces(
    manager: DistributedMemoryManager,
) -> None:
    """`store`, `clear` and snapshots do not affect the nodes."""
    manager.store("k", "here")
    manager.store_distributed("k", "there")
    manager.clear()
    assert "there" == manager.retrieve_distributed("k")
    with pytest.raises(KeyNotFoundError):
        manager.retrieve("k")
