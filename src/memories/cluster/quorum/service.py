"""The service over plain servers: members, registers, chunks, and who looks after the nodes.

Not the protocol, which is `plain`. The one idea: a node that failed is probed, and one that lost
its mark is brought back, by a thread of ours, so that no caller waits for either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from memories.cluster.chunks import ChunkPlacement, ChunkStore
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.near_cache.invalidation import ListenerQuorum
from memories.cluster.quorum import discovery
from memories.cluster.quorum.chunk_repair import ChunkRepair
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.node_recovery import NodeRecovery
from memories.cluster.quorum.rebalance import change_members
from memories.cluster.quorum.registers import QuorumRegisters
from memories.cluster.quorum.repair import QuorumRepair
from memories.cluster.repair_report import RepairReport
from memories.cluster.status import node_status
from memories.cluster.store import FrameStore
from memories.cluster.topology import WORKERS, NodeService
from memories.cluster.versions import new_client
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.clock import Clock
from memories.foundation.logging import logger
from memories.foundation.periodic import Runner
from memories.progress import Progress

_LOOK_SECONDS = 2.0  # How often the marks of all nodes are looked at, traffic or not.
_PROBE_SECONDS = 0.5


class QuorumService(NodeService):
    """Plain servers, replicated by us.

    Raises:
        UnavailableError: too few nodes answer.
        InvalidOptionError: they are of another kind, or would lose data.
    """

    def __init__(
        self, addresses: Sequence[NodeAddress], copies: int, *, clock: Clock, allow_eviction: bool
    ) -> None:
        super().__init__(clock)
        self.members = Members(
            addresses, copies, monotonic=clock.monotonic, allow_eviction=allow_eviction
        )
        self._strangers: set[str] = set()
        self._rejoining: dict[str, Runner] = {}
        self._looked_at = 0.0
        self.registers = QuorumRegisters(
            self.members,
            new_client(),
            clock,
            refresh=lambda: discovery.refresh(self.members),
            on_stranger=self._notice,
        )
        self.chunks = ChunkStore(self._place, self.workers.submit)
        self.store = FrameStore(self.registers, self.chunks, clock)
        try:
            discovery.bootstrap(self.members)
        except BaseException:
            self.close()
            raise

    def tend(self) -> None:
        """Probe nodes that failed, look at marks, and bring back who restarted."""
        for node in self.members.everyone():
            if node.due:
                self.workers.submit(self._probe, node)
        if self.clock.monotonic() >= self._looked_at + _LOOK_SECONDS:
            self._looked_at = self.clock.monotonic()
            self._look()
        for name in list(self._strangers):
            self._bring_back(name)

    def nodes(self) -> Iterable[Node]:
        """Return all members."""
        return list(self.members.everyone())

    def covers(self) -> Iterable[ListenerQuorum]:
        """Return all but `copies - 1` members: every acknowledged write is on one of them."""
        roster = self.members.roster
        return [ListenerQuorum(nodes, len(nodes) - roster.copies + 1) for nodes in roster.lists]

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each node, by its name."""
        nodes = list(self.members.everyone())
        states = self.workers.map(
            lambda node: node_status(node, self.clock.monotonic, self.members.epoch),
            nodes,
            ahead=WORKERS,
        )
        status = {node.name: state for node, state in zip(nodes, states, strict=True)}
        for name in self._strangers & status.keys():
            status[name]["up_to_date"] = False
        return status

    def repair(self, progress: Progress | None, *, deep: bool) -> RepairReport:
        """Make all copies whole again, sweep garbage, and return what was done."""
        for name in list(self._strangers):
            NodeRecovery(self.members, self.registers, self.members.nodes[name]).run(self.pause)
            self._strangers.discard(name)
        return self._repair(deep).run(progress)

    def add_node(self, address: NodeAddress, progress: Progress | None) -> None:
        """Let a node be a member, and give it its share."""
        roster = self.members.roster
        node = self.members.add(address)
        node.call("PING")
        names = {*(roster.coming or roster.nodes), node.name}
        change_members(self.members, sorted(names), lambda: self._repair(False), progress)

    def remove_node(self, name: str, progress: Progress | None) -> None:
        """Let a node be a member no more, after others took over what it has."""
        roster = self.members.roster
        if name not in roster.everyone:
            raise InvalidOptionError(
                f"{name!r} is no member; the members are {', '.join(roster.everyone)}"
            )
        names = {*(roster.coming or roster.nodes)} - {name}
        change_members(self.members, sorted(names), lambda: self._repair(False), progress)

    def disconnect(self) -> None:
        """Close all connections."""
        self.members.close()

    def _repair(self, deep: bool) -> QuorumRepair:
        return QuorumRepair(
            self.members,
            self.registers,
            ChunkRepair(self._place),
            self.clock.wall,
            pause=self.pause,
            deep=deep,
        )

    def _place(self) -> ChunkPlacement:
        nodes = {node.name: node for node in self.members.everyone()}
        return ChunkPlacement(nodes, self.members.rank, self.members.roster.copies)

    def _notice(self, node: Node) -> None:
        if not self.forked:
            self._strangers.add(node.name)

    def _probe(self, node: Node) -> None:
        try:
            node.call("PING", seconds=_PROBE_SECONDS)
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)

    def _look(self) -> None:
        nodes = [node for node in self.members.everyone() if node.usable]
        try:
            hellos, _ = discovery.discover(self.members, nodes)
        except InvalidOptionError as error:
            logger.error("%s", error)
            return
        for hello in hellos:
            mark, roster = hello.mark, hello.roster
            if roster is not None and roster.epoch > self.members.epoch:
                discovery.refresh(self.members)
            hello.node.well = mark is not None and discovery.is_up(hello, self.members.epoch)
            if not hello.node.well and not self.members.lags(mark, hello.life):
                self._notice(hello.node)

    def _bring_back(self, name: str) -> None:
        under_way = self._rejoining.get(name)
        node = self.members.nodes[name]
        if node.usable and (under_way is None or not under_way.is_alive()):
            # Of its own and not a worker: an interpreter that ends waits for its workers.
            thread = Runner(partial(self._rejoin, node), "nodes-rejoin")
            self._rejoining[name] = thread
            thread.start()

    def _rejoin(self, node: Node) -> None:
        try:
            done = NodeRecovery(self.members, self.registers, node).run(self.pause)
            if done:
                self._repair(False).run()  # For the chunks that it lost.
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            logger.info("%s is not up to date yet: %s", node.name, error)
            self.pause(1.0)
            return
        if done:
            self._strangers.discard(node.name)
            logger.info("%s is up to date", node.name)
