"""Member lists reach nodes late, several at once, or from many managers: no node loses its vote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.nodes.test_replicas import manager_of, up_to_date
from tests.support.waiting import until

from memories import DistributedMemoryManager, UnavailableError
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, UP, Incarnation, read_incarnation
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.quorum import admission
from memories.cluster.quorum.bootstrap import bootstrap
from memories.cluster.quorum.discovery import DiscoveryReply, discover, read_member_list
from memories.cluster.quorum.members import MEMBERS_KEY, MemberList, Members
from memories.cluster.quorum.node_recovery import NodeRecovery
from memories.cluster.reasons import join_reasons
from memories.foundation.clock import SystemClock

pytestmark = pytest.mark.server
VALUES = {f"key {number}": number for number in range(50)}


def members_of(manager: DistributedMemoryManager) -> Members:
    """Return the members as one manager knows them."""
    return manager._service.members  # type: ignore[attr-defined,no-any-return]


def incarnation_of(server: LocalServer) -> Incarnation | None:
    """Return what a node has stored of itself."""
    return read_incarnation(server.call("GET", INCARNATION_KEY))


def list_on(server: LocalServer) -> MemberList | None:
    """Return the member list on a node."""
    return read_member_list(server.call("GET", MEMBERS_KEY))  # type: ignore[arg-type]


def pass_over(missing: list[LocalServer], group: list[LocalServer], lists: int) -> None:
    """Store new lists everywhere but on some nodes, by a manager that then ends."""
    names = [one.name for one in group]
    with manager_of(names, replication_factor=3) as manager:
        members = members_of(manager)
        manager._service._maintenance.stop()  # type: ignore[attr-defined]
        reached = [members.nodes[one.name] for one in group if one not in missing]
        for _ in range(lists):
            newer = replace(members.current, epoch=members.epoch + 1)
            states, _ = discover(members, reached)
            _, errors = admission.give_list(members, states, newer, cause="a test")
            assert {} == errors
            members.apply(newer)


@pytest.mark.parametrize("lists", [1, 3])
def test_a_change_ends_though_a_living_node_has_missed_lists(tmp_path: Path, lists: int) -> None:
    """Two of five are dead; the third counted as restarted, and needed the dead ones for ever."""
    with LocalGroup(tmp_path, 7) as group:
        servers, spare = group.servers[:5], group.names[5:]
        names, (late, *dead) = group.names[:5], servers[:3]
        with manager_of(names, replication_factor=3) as manager:
            manager.store_many_distributed(VALUES)
        pass_over([late], servers, lists)
        run_id = incarnation_of(late).run_id  # type: ignore[union-attr]
        assert Incarnation(UP, run_id, 1) == incarnation_of(late)
        for server in dead:
            server.kill()
        with (
            manager_of(names[3:], replication_factor=3) as one,
            manager_of(names[3:], replication_factor=3) as two,
        ):
            assert VALUES == one.retrieve_many_distributed(VALUES)
            two.store_distributed("key 1", "meanwhile")
            assert Incarnation(UP, run_id, 1 + lists) == incarnation_of(late)
            one.replace_node([server.name for server in dead], spare)
            assert {**VALUES, "key 1": "meanwhile"} == two.retrieve_many_distributed(VALUES)
            until(lambda: up_to_date(one) and up_to_date(two))


def test_a_write_gives_the_list_to_nodes_that_have_missed_it(plain_nodes: LocalGroup) -> None:
    """Nothing waits for the next look at all nodes."""
    with manager_of(plain_nodes.names, replication_factor=3) as manager:
        pass_over(plain_nodes.servers[:2], plain_nodes.servers, 2)
        manager.store_distributed("key", 1)
        assert {3} == {list_on(server).epoch for server in plain_nodes.servers}  # type: ignore[union-attr]
        assert {(UP, 3)} == {incarnation_of(one)[::2] for one in plain_nodes.servers}  # type: ignore[index]
        assert 1 == manager.retrieve_distributed("key")


def test_a_new_node_is_up_to_date_before_anyone_can_see_the_list(
    plain_nodes: LocalGroup, node: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another manager saw the list first, and took the new node for one that had restarted."""
    give_list = admission.give_list
    with manager_of(plain_nodes.names) as manager, manager_of(plain_nodes.names) as other:
        manager.store_many_distributed(VALUES)
        seen: list[tuple[bool, Incarnation | None]] = []

        def slowly(members: Members, states: Any, member_list: Any, **options: Any) -> Any:
            if options.get("new") and not seen:
                seen.append((node.call("EXISTS", MEMBERS_KEY) == 1, incarnation_of(node)))
                first = [one for one in states if one.node.name == plain_nodes.names[0]]
                give_list(members, first, member_list, **options)
                assert VALUES == other.retrieve_many_distributed(VALUES)
                admission.survey(members_of(other), list(members_of(other).all_members()), "a test")
            return give_list(members, states, member_list, **options)

        monkeypatch.setattr(admission, "give_list", slowly)
        manager.add_node(node.name)
        (had_list, incarnation), *_ = seen
        assert not had_list
        assert incarnation is not None and UP == incarnation.state
        assert UP == incarnation_of(node).state  # type: ignore[union-attr]


def test_a_change_of_another_manager_is_not_written_over(
    plain_nodes: LocalGroup, node: LocalServer
) -> None:
    """It would have taken a finished change back, without a word."""
    with manager_of(plain_nodes.names) as manager:
        members = members_of(manager)
        before, outdated = members.current.all_names, members.current
        manager.add_node(node.name)
        now = members.current
        for older in (replace(outdated, epoch=now.epoch), replace(outdated, epoch=now.epoch - 1)):
            with pytest.raises(UnavailableError, match="another manager has changed the members"):
                admission.publish(members, older, before=before)
            members.apply(replace(outdated, epoch=now.epoch - 1))
            assert {now} == {list_on(server) for server in (*plain_nodes.servers, node)}
            assert now == members.current


def test_a_new_node_that_hangs_changes_nothing(plain_nodes: LocalGroup, node: LocalServer) -> None:
    """The members stay what they were, and the node can be added later without being emptied."""
    with manager_of(plain_nodes.names) as manager:
        members = members_of(manager)
        added = members.node_for(NodeAddress.parse(node.name))
        longer = replace(members.current, epoch=2, target=(*members.current.nodes, node.name))
        node.pause()
        try:
            with pytest.raises(UnavailableError, match="the members have not changed"):
                admission.publish(members, longer, before=members.current.all_names)
        finally:
            node.resume()
        assert {1} == {list_on(server).epoch for server in plain_nodes.servers}  # type: ignore[union-attr]
        until(lambda: added.usable or added.probe() is None)
        manager.add_node(node.name)


class Crowd:
    """Three managers without threads, which give lists to three nodes in any order.

    A node that is emptied stands for one that has restarted.
    """

    def __init__(self, group: LocalGroup) -> None:
        self.servers = group.servers
        for server in self.servers:
            server.call("FLUSHALL")
        self.managers = [self._members(group.names) for _ in range(3)]
        for members in self.managers:
            bootstrap(members)
        self.looks: dict[int, list[DiscoveryReply]] = {}
        self.newest = 1
        self.emptied: set[str] = set()
        self.epochs = dict.fromkeys(group.names, 1)

    def _members(self, names: list[str]) -> Members:
        clock = SystemClock()
        nodes = [Node(NodeAddress.parse(one), monotonic=clock.monotonic) for one in names]
        return Members(nodes, 2, clock=clock)

    def look(self, which: int, nodes: set[int]) -> None:
        """A manager asks some nodes, and is then stopped for a while."""
        self.looks[which], _ = discover(self.managers[which], self._nodes(which, nodes))

    def give(self, which: int, nodes: set[int]) -> None:
        """It goes on by what it has seen before it was stopped, with its list of now."""
        members = self.managers[which]
        states = [one for one in self.looks.get(which, ()) if one.node in self._nodes(which, nodes)]
        admission.give_list(members, states, members.current, cause="a test")

    def change(self, which: int, nodes: set[int]) -> None:
        """It makes a new list, and ends before all nodes have it."""
        members = self.managers[which]
        admission.survey(members, list(members.all_members()), "a test")
        self.newest = members.epoch + 1
        members.apply(replace(members.current, epoch=self.newest))
        states, _ = discover(members, self._nodes(which, nodes))
        admission.give_list(members, states, members.current, cause="a test")

    def survey(self, which: int, nodes: set[int]) -> None:
        """It reads the lists, and lets nodes catch up."""
        admission.survey(self.managers[which], self._nodes(which, nodes), "a test")

    def empty(self, which: int, nodes: set[int]) -> None:
        """A node loses its memory."""
        self.servers[which].call("FLUSHALL")
        self.emptied.add(self.servers[which].name)
        self.epochs[self.servers[which].name] = 0

    def _nodes(self, which: int, nodes: set[int]) -> list[Node]:
        members = self.managers[which]
        return [members.nodes[self.servers[number].name] for number in sorted(nodes)]

    def check(self) -> None:
        """No node has gone back, or been demoted, or been promoted."""
        for server in self.servers:
            incarnation, known = incarnation_of(server), list_on(server)
            if incarnation is None:
                assert server.name in self.emptied and known is None
                continue
            assert known is not None and known.epoch == incarnation.epoch
            assert incarnation.epoch >= self.epochs[server.name]
            self.epochs[server.name] = incarnation.epoch
            assert incarnation.state == (JOINING if server.name in self.emptied else UP)

    def end(self) -> None:
        """Once a manager has talked to all nodes, all of them accept writes."""
        members = self.managers[0]
        states, reasons = admission.survey(members, list(members.all_members()), "a test")
        assert {} == reasons, join_reasons(reasons)
        assert {members.epoch} == {state.incarnation.epoch for state in states}  # type: ignore[union-attr]
        self.check()
        for one in self.managers:
            one.close()


STEPS = st.tuples(
    st.sampled_from(["look", "look", "give", "give", "change", "survey", "empty"]),
    st.integers(0, 2),
    st.sets(st.integers(0, 2), min_size=1),
)


def test_no_interleaving_of_managers_demotes_a_node(plain_nodes: LocalGroup) -> None:
    """Whatever they saw before they went on: one that lives keeps its vote, and lists only grow."""

    @settings(max_examples=40)
    @given(st.lists(STEPS, max_size=12))
    @example([("look", 0, {0}), ("change", 0, {1}), ("change", 1, {0}), ("give", 0, {0})])
    @example([("look", 0, {0}), ("change", 1, {1}), ("empty", 0, {0}), ("give", 0, {0})])
    def run(steps: list[tuple[str, int, set[int]]]) -> None:
        crowd = Crowd(plain_nodes)
        for name, which, nodes in steps:
            act: Callable[[int, set[int]], None] = getattr(crowd, name)
            act(which, nodes)
            crowd.check()
        crowd.end()

    run()


def test_a_recovery_begins_again_when_the_members_change(plain_nodes: LocalGroup) -> None:
    """Other registers may belong on the node under the new list: it has not got those."""
    with manager_of(plain_nodes.names) as manager:
        manager.store_many_distributed(VALUES)
        service: Any = manager._service
        service._maintenance.stop()
        members, emptied = members_of(manager), plain_nodes.servers[0]
        emptied.call("FLUSHALL")
        recovery = NodeRecovery(members, service.registers, members.nodes[emptied.name])

        def change(seconds: float) -> bool:
            if members.epoch == 1:
                newer = replace(members.current, epoch=2)
                admission.publish(members, newer, before=newer.all_names)
                members.apply(newer)
            return False

        assert not recovery.run(change)
        assert (JOINING, 2) == incarnation_of(emptied)[::2]  # type: ignore[index]
        assert recovery.run(change)
        assert (UP, 2) == incarnation_of(emptied)[::2]  # type: ignore[index]
