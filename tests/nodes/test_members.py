"""Nodes that are added and removed while everything stays answerable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.nodes.test_replicas import manager_of
from tests.support.waiting import until

from memories import DistributedMemoryManager, InvalidOptionError, UnavailableError
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.quorum.read import OutdatedMembersError

pytestmark = pytest.mark.server
KEYS = 600


def done(change: Callable[[Any], None], name: Any) -> bool:
    """Change the members; return whether that is finished, or must be called again."""
    try:
        change(name)
    except UnavailableError:
        return False
    return True


def registers_on(node: LocalServer) -> int:
    """Return how many registers a node has."""
    return len(node.call("KEYS", "m:r:*"))  # type: ignore[arg-type]


def memberships(manager: DistributedMemoryManager) -> dict[str, str]:
    """Return what each node is: a member, joining or leaving."""
    return {name: state["membership"] for name, state in manager.get_node_status().items()}


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
        with pytest.raises(InvalidOptionError, match="finish that change by repair"):
            second.remove_node(names[0])
        second.add_node(node.name)
        plain_nodes.servers[0].kill()
        assert values == second.retrieve_many_distributed(values)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("count", "copies"), [(3, 2), (4, 2), (5, 3)])
def test_nodes_that_are_dead_for_good_are_replaced(
    tmp_path: Path, count: int, copies: int, at_once: bool
) -> None:
    """No call removed or replaced them, and a second death then lost values."""
    with LocalGroup(tmp_path, count + copies - 1) as group:
        members, new = group.servers[:count], group.servers[count:]
        names = [server.name for server in members]
        options = {"replication_factor": copies}
        with manager_of(names, **options) as manager, manager_of(names, **options) as other:
            values = {f"key {number}": number for number in range(KEYS)}
            manager.store_many_distributed(values)
            large = np.arange(900_000)
            manager.store_distributed("large", large)
            dead = members[: copies - 1]
            for server in dead:
                server.kill()
            other.store_many_distributed(values)
            if at_once:
                lost = [server.name for server in dead]
                added = [server.name for server in new]
                until(lambda: done(partial(manager.replace_node, lost), added))
            else:
                for server in new:
                    until(lambda: done(manager.add_node, server.name))  # noqa: B023
                for server in dead:
                    until(lambda: done(manager.remove_node, server.name))  # noqa: B023
            left = [server for server in (*members, *new) if server not in dead]
            assert {server.name for server in left} == set(manager.get_node_status())
            assert [] == manager.repair().unreadable
            other.store_distributed("key 1", "meanwhile")
            for server in left[: copies - 1]:
                server.kill()  # As many again.
            for one in (manager, other):
                assert {**values, "key 1": "meanwhile"} == one.retrieve_many_distributed(values)
                assert np.array_equal(large, one.retrieve_distributed("large"))


def test_repair_finishes_an_unfinished_change(plain_nodes: LocalGroup, node: LocalServer) -> None:
    """The program that repairs need not know what was being changed, or by which one."""
    names = plain_nodes.names

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with manager_of(names) as manager, manager_of(names) as second:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)
        with pytest.raises(KeyboardInterrupt):
            manager.replace_node(names[0], node.name, stop)
        second.repair()
        assert {*names[1:], node.name} == set(second.get_node_status())
        plain_nodes.servers[0].kill()
        plain_nodes.servers[1].kill()
        for one in (manager, second):
            assert values == one.retrieve_many_distributed(values)


def test_nodes_are_given_up_when_too_many_are_dead(tmp_path: Path) -> None:
    """As many died as there are copies: without `lost` nothing could be changed, for ever."""
    with LocalGroup(tmp_path, 6) as group:
        members, new = group.servers[:4], group.servers[4:]
        names, spare = [one.name for one in members], [one.name for one in new]
        with manager_of(names) as manager, manager_of(names) as other:
            values = {f"key {number}": number for number in range(KEYS)}
            manager.store_many_distributed(values)
            large = np.arange(900_000)
            manager.store_distributed("large", large)
            for server in members[:3]:
                server.kill()
            # What the last one has can be known for sure once the others are given up.
            with pytest.raises(UnavailableError, match="lost=True"):
                manager.replace_node(names[:2], spare)
            with pytest.raises(UnavailableError, match="name them in the same call"):
                manager.replace_node(names[:2], spare, lost=True)
            with pytest.raises(InvalidOptionError, match="without lost=True"):
                manager.replace_node(names, spare, lost=True)
            manager.replace_node(names[:3], spare, lost=True)
            assert {names[3], *spare} == set(manager.get_node_status())
            kept = [key for key in values if manager.retrieve_distributed(key, None) is not None]
            assert KEYS / 4 < len(kept) < 3 * KEYS / 4  # Half of all keys were on the last one.
            assert [] == [key for key in kept if values[key] != other.retrieve_distributed(key)]
            other.store_many_distributed(values)
            members[3].kill()  # Any one may fail again.
            for one in (manager, other):
                assert values == one.retrieve_many_distributed(values)


def test_reads_bring_every_value_to_enough_living_nodes(tmp_path: Path) -> None:
    """While a node is dead, what it had has one copy only: a second death must lose nothing."""
    with LocalGroup(tmp_path, 4) as group, manager_of(group.names) as manager:
        values = {f"key {number}": number for number in range(200)}
        manager.store_many_distributed(values)
        large = {f"large {number}": np.arange(900_000) + number for number in range(4)}
        for key, value in large.items():
            manager.store_distributed(key, value)
        group.servers[0].kill()
        left = group.servers[1:]
        assert values == manager.retrieve_many_distributed(values)
        for key in large:
            manager.retrieve_distributed(key)
        assert 2 * len(values | large) == sum(map(registers_on, left))
        each = 4  # Chunks, as many as there were nodes.
        chunks = len(large) * each
        until(lambda: 2 * chunks == sum(len(one.call("KEYS", "m:c:*")) for one in left))  # type: ignore[arg-type]
        for key in large:
            manager.retrieve_distributed(key)
        manager.delete_distributed("large 0")  # The copies expire with the others.
        assert 2 * each == sum(
            one.call("TTL", name) != -1
            for one in left
            for name in one.call("KEYS", "m:c:*")  # type: ignore[union-attr]
        )


def test_a_node_that_was_a_member_is_emptied_first(
    plain_nodes: LocalGroup, node: LocalServer
) -> None:
    """It has values that were deleted since, and their tombstones are gone after an hour."""
    with manager_of([*plain_nodes.names, node.name]) as manager:
        manager.store_distributed("key", 1)
        manager.remove_node(node.name)
        with pytest.raises(InvalidOptionError, match="FLUSHALL"):
            manager.add_node(node.name)
        node.call("FLUSHALL")
        manager.add_node(node.name)
        assert 1 == manager.retrieve_distributed("key")


def test_no_change_begins_while_values_may_be_missing(
    plain_nodes: LocalGroup, node: LocalServer
) -> None:
    """One node hangs, and another one has restarted empty: the first must keep its vote."""
    dead, restarted, _ = plain_nodes.servers
    with manager_of(plain_nodes.names) as manager:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)
        dead.pause()
        restarted.restart()
        with pytest.raises(UnavailableError, match="cannot be changed now"):
            manager.add_node(node.name)
        dead.resume()
        until(lambda: all(one["up_to_date"] for one in manager.get_node_status().values()))
        manager.add_node(node.name)
        assert values == manager.retrieve_many_distributed(values)


def test_an_unfinished_change_is_taken_back_by_any_manager(
    plain_nodes: LocalGroup, node: LocalServer
) -> None:
    """The new node was never used, or died: nothing else could be changed any more."""
    names = plain_nodes.names

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with manager_of(names) as manager, manager_of(names) as second:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)
        with pytest.raises(KeyboardInterrupt):
            manager.add_node(node.name, stop)
        second.store_distributed("key 1", "meanwhile")
        node.kill()
        with pytest.raises(InvalidOptionError, match="take it back"):
            second.remove_node(names[0])
        second.remove_node(node.name)
        until(lambda: set(names) == set(manager.get_node_status()))  # It looks every two seconds.
        assert set(names) == set(second.get_node_status())
        with pytest.raises(KeyboardInterrupt):
            second.remove_node(names[0], stop)
        manager.add_node(names[0])
        with pytest.raises(KeyboardInterrupt):
            second.remove_node(names[0], stop)
        until(
            lambda: (
                memberships(manager)
                == {
                    names[0]: "leaving",
                    names[1]: "member",
                    names[2]: "member",
                }
            )
        )
        manager.abandon_change()
        with pytest.raises(InvalidOptionError, match="no change"):
            manager.abandon_change()
        assert {"member"} == set(memberships(manager).values())
        plain_nodes.servers[1].kill()
        for one in (manager, second):
            assert {**values, "key 1": "meanwhile"} == one.retrieve_many_distributed(values)


@pytest.mark.parametrize("fast", [True, False])
def test_a_write_that_is_repeated_is_one_write(
    plain_nodes: LocalGroup, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    """The members change during a write, others replace its value: it must not come back."""
    with manager_of(plain_nodes.names) as manager, manager_of(plain_nodes.names) as other:
        registers = manager._service.registers  # type: ignore[attr-defined]
        quick, store, attempts = registers._unanimous_write.write, registers._writer.store, []

        def replaced(stored: Any) -> Any:
            attempts.append(1)
            if len(attempts) == 1:
                assert "older" == other.retrieve_distributed("key")
                other.store_distributed("key", "newer")
                if not fast:
                    raise OutdatedMembersError("the members have changed")
                return {}  # As if a node had not answered.
            return stored

        def quickly(*arguments: Any) -> Any:
            return replaced(quick(*arguments)) if fast else {}

        monkeypatch.setattr(registers._unanimous_write, "write", quickly)
        monkeypatch.setattr(registers._writer, "store", lambda *jobs: replaced(store(*jobs)))
        manager.store_distributed("key", "older")
        assert 2 == len(attempts)
        for one in (manager, other):
            assert "newer" == one.retrieve_distributed("key")


@pytest.mark.parametrize("step", ["read", "written"])
def test_a_change_of_members_ends_a_copy_with_an_error_of_ours(
    plain_nodes: LocalGroup, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It ended the thread of a recovery with a traceback, and `repair` with a foreign error."""
    with manager_of(plain_nodes.names) as manager:
        manager.store_distributed("key", "value")
        registers = manager._service.registers  # type: ignore[attr-defined]

        def changed(jobs: Any) -> None:
            raise OutdatedMembersError("the members have changed")

        if step == "read":
            monkeypatch.setattr(registers, "fetch_missing", changed)
        else:
            monkeypatch.setattr(registers._writer, "store", changed)
        (name,) = plain_nodes.names[:1]
        with pytest.raises(UnavailableError, match="members of the cluster change"):
            registers.copy_newest(registers.query([b"m:r:key"]), to=name)
        monkeypatch.undo()
        assert "value" == manager.retrieve_distributed("key")


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


def test_nodes_that_forgot_their_scripts_are_brought_up_to_date_and_added(
    plain_nodes: LocalGroup, node: LocalServer
) -> None:
    """SCRIPT FLUSH: one that restarted empty was never up to date again, and no change began."""

    def flush() -> None:
        for server in (*plain_nodes.servers, node):
            server.call("SCRIPT", "FLUSH")

    with manager_of(plain_nodes.names) as manager:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)
        restarted = plain_nodes.servers[0]
        restarted.restart()
        until(lambda: not manager.get_node_status()[restarted.name]["up_to_date"])
        flush()
        until(lambda: manager.get_node_status()[restarted.name]["up_to_date"])
        flush()
        manager.add_node(node.name)
        flush()
        manager.remove_node(plain_nodes.names[1])
        flush()
        manager.delete_distributed("key 1")
        manager.store_distributed("key 2", "new")
        assert [] == manager.repair().unreadable
        del values["key 1"]
        assert {**values, "key 2": "new"} == manager.retrieve_many_distributed(values)


def test_readable_keys_on_full_nodes_are_not_called_unreadable(plain_nodes: LocalGroup) -> None:
    """The repair says that they lack a copy, and which node has no room for it."""
    dead, full, roomy = plain_nodes.servers
    with manager_of(plain_nodes.names) as manager:
        values = {f"key {number}": number for number in range(KEYS)}
        manager.store_many_distributed(values)
        manager.store_distributed("large", bytes(9_000_000))
        full.call("CONFIG", "SET", "maxmemory", 1)
        roomy.call("CONFIG", "SET", "maxmemory", 1)
        dead.kill()
        until(lambda: not manager.get_node_status()[dead.name]["online"])
        report = manager.repair()
        assert [] == report.unreadable
        assert KEYS / 2 < report.short < KEYS  # Two thirds had a copy on the dead node.
        assert "OOM" in str(report.silent)
        for server in (full, roomy):
            server.call("CONFIG", "SET", "maxmemory", 0)
        report = manager.repair()
        assert ([], 0) == (report.unreadable, report.short)
        assert (KEYS + 1, KEYS + 1) == (registers_on(full), registers_on(roomy))
        assert bytes(9_000_000) == manager.retrieve_distributed("large")


@pytest.mark.parametrize("size", [100, 9_000_000])
def test_a_value_that_no_node_takes_ends_with_an_error_of_ours(
    plain_nodes: LocalGroup, size: int
) -> None:
    """A large one ended with a bare `ValueError`."""
    with manager_of(plain_nodes.names) as manager:
        for server in plain_nodes.servers:
            server.kill()
        for _ in range(3):
            with pytest.raises(UnavailableError, match="node"):
                manager.store_distributed("key", bytes(size))


def test_any_one_member_is_enough_to_find_the_others(plain_nodes: LocalGroup) -> None:
    """A program need not know all nodes; it must never make a cluster of a part of them."""
    first, *others = plain_nodes.names
    with pytest.raises(InvalidOptionError, match="know of no others"):
        manager_of([first]).__enter__()
    with manager_of(plain_nodes.names) as manager:
        manager.store_distributed("key", 1)
    for name in plain_nodes.names:
        with manager_of([name]) as manager:
            assert 1 == manager.retrieve_distributed("key")
            assert set(plain_nodes.names) == set(manager.get_node_status())
    plain_nodes.servers[0].kill()
    with pytest.raises(UnavailableError, match="none of the nodes"):
        manager_of([first]).__enter__()
    with manager_of(others[:1]) as manager:
        assert 1 == manager.retrieve_distributed("key")
