"""The service over plain servers: members, registers, chunks, and maintenance of the nodes.

A background thread probes nodes that failed, and brings nodes up to date that have restarted, so
that no call waits for either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

from memories.cluster.chunks import ChunkPlacement
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.manifest import ChunkManifest
from memories.cluster.near_cache.invalidation import ListenerQuorum
from memories.cluster.node_service import NodeService
from memories.cluster.quorum.admission import survey
from memories.cluster.quorum.bootstrap import bootstrap
from memories.cluster.quorum.chunks import QuorumChunks
from memories.cluster.quorum.discovery import refresh, share_vouchers
from memories.cluster.quorum.members import MEMBERS_KEY, Members
from memories.cluster.quorum.node_recovery import NodeRecovery
from memories.cluster.quorum.rebalance import abandon_change, change_members, finish_change
from memories.cluster.quorum.registers import QuorumRegisters
from memories.cluster.quorum.repair import QuorumRepair
from memories.cluster.quorum.vouchers import VoucherKeys
from memories.cluster.repair_report import RepairReport
from memories.cluster.repair_walk import RepairWalk
from memories.cluster.status import node_status
from memories.cluster.versions import VersionMaker
from memories.errors import ClosedError, InvalidOptionError, MemoriesError, UnavailableError
from memories.foundation.clock import Clock
from memories.foundation.logging import logger
from memories.foundation.periodic import BackgroundThread
from memories.progress import Progress

_CHECK_SECONDS = 2.0  # Between two checks of the incarnations of all nodes.


class QuorumService(NodeService):
    """Plain servers, replicated by the manager itself.

    Raises:
        UnavailableError: too few nodes answer.
        InvalidOptionError: the values on the nodes have another number of copies, or a node may
            evict values.
    """

    registers: QuorumRegisters

    def __init__(
        self,
        nodes: Sequence[Node],
        copies: int,
        clock: Clock,
        allow_eviction: bool,
        keys: VoucherKeys,
    ) -> None:
        super().__init__(clock)
        self.members = Members(
            nodes,
            copies,
            clock=clock,
            allow_eviction=allow_eviction,
            keys=keys,
        )
        self._stale_nodes: set[str] = set()
        self._recoveries: dict[str, BackgroundThread] = {}
        self._checked_at = 0.0
        self.registers = QuorumRegisters(
            self.members,
            VersionMaker(clock.wall),
            refresh=self._catch_up,
            on_stale_node=self._mark_stale,
        )
        self.chunks = QuorumChunks(self._placement, self.workers.submit, self._restore_chunks)
        try:
            bootstrap(self.members)
        except BaseException:
            self.close()
            raise

    def look_after(self) -> None:
        """Check incarnations, and start the recovery of restarted nodes."""
        if self.clock.monotonic() >= self._checked_at + _CHECK_SECONDS:
            self._checked_at = self.clock.monotonic()
            self._check_incarnations()
        for name in self._stale_members():
            self._start_recovery(name)

    def nodes(self) -> Iterable[Node]:
        """Return all members."""
        return list(self.members.all_members())

    all_nodes = nodes

    def listener_quorums(self) -> Iterable[ListenerQuorum]:
        """Return all but `copies - 1` members: every acknowledged write is on one of them."""
        member_list = self.members.current
        lost = member_list.lost_names
        quorums: list[ListenerQuorum] = []
        for nodes in member_list.lists:
            left = tuple(node for node in nodes if node not in lost)
            needed = min(len(nodes) - member_list.copies + 1, len(left))
            if needed:
                quorums.append(ListenerQuorum(left, needed))
        return quorums

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the state of each node, by its name."""
        status = self._ask_status(
            lambda node: node_status(
                node,
                self.clock.monotonic,
                self.members.epoch,
                self.members.current.membership(node.name),
            )
        )
        for name in self._stale_members():
            shown = self.members.nodes[name].address.name
            if shown in status:
                status[shown]["up_to_date"] = False
        return status

    def repair(self, progress: Progress | None, *, deep: bool) -> RepairReport:
        """Finish an interrupted change of members, repair all copies, and remove garbage."""
        refresh(self.members)
        finish_change(self.members, self._copying_walk, progress)
        for name in self._stale_members():
            if NodeRecovery(self.members, self.registers, self.members.nodes[name]).run(self.pause):
                self._stale_nodes.discard(name)
        return self._repair_walk(deep).run(progress)

    def change_members(
        self,
        add: Sequence[NodeAddress],
        remove: Collection[str],
        *,
        lost: bool,
        progress: Progress | None,
    ) -> None:
        """Add and remove members, and copy to each what it should have."""
        refresh(self.members)  # Another manager may have changed them a moment ago.
        member_list = self.members.current
        remove = {self.members.member_name(name) for name in remove}
        strangers = set(remove) - {*member_list.nodes, *member_list.target}
        if strangers:
            verb = "is not a member" if len(strangers) == 1 else "are not members"
            raise InvalidOptionError(
                f"{', '.join(sorted(strangers))} {verb}; the members are "
                + ", ".join(member_list.all_names)
            )
        for address in add:
            node = self.members.node_for(address)
            if node.call("EXISTS", MEMBERS_KEY) and node.name not in member_list.all_names:
                raise InvalidOptionError(
                    f"{node.name} was a member of a cluster, and has values of that time: empty it "
                    "by FLUSHALL, then add it"
                )
        names = {*(member_list.target or member_list.nodes)} - set(remove)
        names.update(self.members.member_name(address.name) for address in add)
        given_up = remove if lost else ()
        change_members(self.members, names, self._copying_walk, progress, lost=given_up)

    def abandon_change(self) -> None:
        """Take back a change of members that was interrupted."""
        refresh(self.members)
        abandon_change(self.members, self._copying_walk)

    def disconnect(self) -> None:
        """Close all connections."""
        self.members.close()

    def _copying_walk(self) -> RepairWalk:
        """Return a walk that copies what a node lacks, without reading every copy."""
        return self._repair_walk(False)

    def _repair_walk(self, deep: bool) -> RepairWalk:
        replicas = QuorumRepair(self.members, self.registers, self._placement)
        return RepairWalk(replicas, self.clock.wall, pause=self.pause, deep=deep)

    def _restore_chunks(self, manifest: ChunkManifest) -> None:
        """Bring the chunks of a value that was read to enough nodes that answer."""
        repair = QuorumRepair(self.members, self.registers, self._placement)
        try:
            repair.repair_chunks(manifest, deep=False)
        except ClosedError:
            return
        except (MemoriesError, ReplyError) as error:
            logger.info("the chunks of a value could not be copied: %s", error)

    def _placement(self) -> ChunkPlacement:
        nodes = {node.name: node for node in self.members.all_members()}
        return ChunkPlacement(
            nodes, self.members.rank, self.members.current.copies, receivers=len(nodes)
        )

    def _mark_stale(self, node: Node) -> None:
        if not self.forked:
            self._stale_nodes.add(node.name)

    def _stale_members(self) -> list[str]:
        """Return the members that must be brought up to date; forget nodes that were removed."""
        self._stale_nodes &= set(self.members.current.all_names)
        return list(self._stale_nodes)

    def _check_incarnations(self) -> None:
        nodes = [node for node in self.members.all_members() if node.usable]
        try:
            states, _ = survey(self.members, nodes, "a look at all nodes")
        except InvalidOptionError as error:
            logger.error("%s", error)
            return
        for state in states:
            if state.must_recover:
                self._mark_stale(state.node)
        share_vouchers(self.members, self.members.current, states)

    def _catch_up(self) -> None:
        """Find the newest list, and give it to all; a call waits for it, so not for dead nodes."""
        nodes = [node for node in self.members.all_members() if node.usable or node.due]
        survey(self.members, nodes, "a read or write")

    def _start_recovery(self, name: str) -> None:
        running = self._recoveries.get(name)
        node = self.members.nodes[name]
        if node.usable and (running is None or not running.is_alive()):
            # A thread of its own, not a worker: a closing interpreter waits for its workers.
            thread = BackgroundThread(partial(self._recover, node), "nodes-recovery")
            self._recoveries[name] = thread
            thread.start()

    def _recover(self, node: Node) -> None:
        try:
            done = NodeRecovery(self.members, self.registers, node).run(self.pause)
            if done:
                self._copying_walk().run()  # For the chunks that it lost.
        except ClosedError:
            return  # The manager was closed meanwhile.
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            logger.info("%s is not up to date yet: %s", node.name, error)
            self.pause(1.0)
            return
        if done:
            self._stale_nodes.discard(node.name)
            logger.info("%s is up to date", node.name)
