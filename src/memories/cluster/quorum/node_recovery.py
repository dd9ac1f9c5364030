"""Recovery of a node that restarted, or is new: brings it up to date while reads and writes go on.

The node accepts new writes from the start. It does not vote until it has a copy of every older
write that it should have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, UP, Incarnation
from memories.cluster.limits import REPAIR_BATCH
from memories.cluster.quorum import discovery
from memories.cluster.quorum.members import PROPAGATION_SECONDS, Members
from memories.cluster.quorum.registers import QuorumRegisters
from memories.cluster.reasons import join_reasons
from memories.cluster.register_format import PREFIX
from memories.cluster.run_script import run_script
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import UnavailableError

# Longer than a write waits for its nodes. Without this pause, a write could count a copy that the
# node lost by its restart, and end after the names on the other nodes were listed: the recovery
# would not copy it to the node again.
DRAIN_SECONDS = 2.5
_LOOKS = 3


class NodeRecovery:
    """The recovery of one node."""

    def __init__(self, members: Members, registers: QuorumRegisters, node: Node) -> None:
        self._members = members
        self._registers = registers
        self._node = node

    def run(self, pause: Callable[[float], bool]) -> bool:
        """Bring the node up to date and return whether it is.

        Args:
            pause: Waits for some seconds, and returns True when the recovery must end.

        Raises:
            UnavailableError: the node, or one that has copies of its registers, does not answer.
            ReplyError: one of them refuses a command.
        """
        if not self._wait_for_list(pause):
            return False
        run_id = self._start_joining()
        if run_id is None:
            return True
        if pause(DRAIN_SECONDS):
            return False
        for batch in self._names():
            if pause(0):
                return False
            self._copy_batch(batch)
        if not self._drop_forgotten(pause):
            return False
        return self._mark_up_to_date(run_id)

    def _wait_for_list(self, pause: Callable[[float], bool]) -> bool:
        """Wait while the node was up to date under an older list; return False to end early.

        Lists may follow one another faster than they reach every node. Such a node has lost
        nothing: the manager that changes the members marks it as up to date.
        """
        for _ in range(_LOOKS):
            reply = self._ask()
            found = reply.incarnation
            if found is None or found != Incarnation(UP, reply.run_id, found.epoch):
                return True  # It has restarted, or is being brought up to date.
            if found.epoch >= self._members.epoch:
                return True
            if pause(PROPAGATION_SECONDS):
                return False
        return True  # It has missed a list.

    def _start_joining(self) -> str | None:
        """Make the node accept writes; return its run id, or None if it is up to date already."""
        reply = self._ask()
        member_list = self._members.current
        while reply.member_list is not None and reply.member_list.epoch > member_list.epoch:
            # Another manager, or thread, is changing the members: the older list must not replace
            # that one, and the node is up to date under it.
            discovery.refresh(self._members)
            reply, member_list = self._ask(), self._members.current
        if reply.is_up_to_date(member_list.epoch):
            return None
        for error in discovery.publish_each(
            self._members, [(reply, JOINING)], member_list
        ).values():
            raise error
        return reply.run_id

    def _ask(self) -> discovery.DiscoveryReply:
        discovered, reasons = discovery.discover(self._members, [self._node])
        if not discovered:
            raise UnavailableError(reasons[self._node.name])
        return discovered[0]

    def _names(self) -> Iterator[list[bytes]]:
        """Yield the names of registers on all other members.

        So many of them must answer that no register can be only on those which do not.
        """
        silent: dict[str, str] = {}
        for node in self._members.all_members():
            if node is self._node:
                continue
            try:
                yield from scan_node(node, PREFIX)
            except (UnavailableError, ReplyError) as error:
                silent[node.name] = str(error)
        if silent and self._members.current.needs({*silent, self._node.name}):
            raise UnavailableError(
                f"{self._node.name} cannot be brought up to date, because its values may be only "
                f"on nodes that do not answer: {join_reasons(silent)}"
            )

    def _copy_batch(self, names: list[bytes]) -> None:
        name = self._node.name
        concerned = [
            one
            for one in names
            if any(name in p.nodes for p in self._members.preference_lists(one))
        ]
        self._registers.copy_to(concerned, to=name)

    def _drop_forgotten(self, pause: Callable[[float], bool]) -> bool:
        """Remove registers of an old dump whose tombstones are gone; return False to end early.

        The other nodes of such a register prove that no write of it is acknowledged. A write that
        is in progress looks the same, and is on the other nodes after the pause.
        """
        for batch in scan_node(self._node, PREFIX):
            for start in range(0, len(batch), REPAIR_BATCH):
                found = self._find_forgotten(batch[start : start + REPAIR_BATCH])
                if not found:
                    continue
                if pause(DRAIN_SECONDS):
                    return False
                for name, version in self._find_forgotten(list(found)).items():
                    if found[name] == version:
                        run_script(self._node, scripts.DROP, [name], version.text)
        return True

    def _find_forgotten(self, names: Sequence[bytes]) -> dict[bytes, RegisterVersion]:
        """Return which of these registers only this node has, with its versions."""
        mine = self._node.name
        return {
            query.name: query.replies[mine].version
            for query in self._registers.query(names)
            if query.missing_answers <= 0
            and mine not in query.voters
            and mine in query.replies
            and query.replies[mine].version != ABSENT
            and all(query.replies[voter].version == ABSENT for voter in query.voters)
        }

    def _mark_up_to_date(self, run_id: str) -> bool:
        epoch = self._members.epoch
        before, after = (
            Incarnation(JOINING, run_id, epoch).text,
            Incarnation(UP, run_id, epoch).text,
        )
        with self._node.acquire() as connection:
            # A connection belongs to one server process, so the incarnation is of this process.
            if connection.run_id != run_id:
                return False
            run_script(connection, scripts.SWAP, [INCARNATION_KEY], before, after)
            self._node.up_to_date = connection.call("GET", INCARNATION_KEY) == after
        return self._node.up_to_date
