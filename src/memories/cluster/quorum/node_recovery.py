"""Recovery of a node that restarted, or is new: brings it up to date while reads and writes go on.

The node accepts new writes from the start. It does not vote until it has a copy of every older
write that it should have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, UP, Incarnation
from memories.cluster.limits import REPAIR_BATCH
from memories.cluster.quorum.admission import survey
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.registers import QuorumRegisters
from memories.cluster.reasons import join_reasons
from memories.cluster.register_format import PREFIX
from memories.cluster.run_script import run_script
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import UnavailableError
from memories.foundation.logging import logger

# Longer than a write waits for its nodes. Without this pause, a write could count a copy that the
# node lost by its restart, and end after the names on the other nodes were listed: the recovery
# would not copy it to the node again.
DRAIN_SECONDS = 2.5


class NodeRecovery:
    """The recovery of one node."""

    def __init__(self, members: Members, registers: QuorumRegisters, node: Node) -> None:
        self._members = members
        self._registers = registers
        self._node = node
        self._run_id = ""  # Of the server process that is brought up to date.
        self._epoch = 0  # Of the member list under which that is done.

    def run(self, pause: Callable[[float], bool]) -> bool:
        """Bring the node up to date and return whether it is.

        Args:
            pause: Waits for some seconds, and returns True when the recovery must end.

        Raises:
            UnavailableError: the node, or one that has copies of its registers, does not answer.
            ReplyError: one of them refuses a command.
        """
        if not self._start_joining():
            return True
        if pause(DRAIN_SECONDS):
            return False
        for batch in self._names():
            if pause(0):
                return False
            self._copy_batch(batch)
        if not self._drop_forgotten(pause):
            return False
        return self._mark_up_to_date()

    def _start_joining(self) -> bool:
        """Make the node accept writes; return False if it is up to date already.

        So many other members must answer that one of them knows of every member list under which
        the node may have confirmed writes before it restarted.
        """
        states, reasons = survey(self._members, list(self._members.all_members()), "a recovery")
        state = next((one for one in states if one.node is self._node), None)
        if state is None or self._node.name in reasons:
            raise UnavailableError(reasons.get(self._node.name, "it is no member any more"))
        self._run_id, self._epoch = state.run_id, self._members.epoch
        if state.is_up_to_date(self._epoch):
            return False
        self._require_others(reasons)
        return True

    def _require_others(self, silent: Mapping[str, str]) -> None:
        """Raise `UnavailableError` if values may be only on this node and on silent ones."""
        if silent and self._members.current.needs({*silent, self._node.name}):
            raise UnavailableError(
                f"{self._node.name} cannot be brought up to date, because its values may be only "
                f"on nodes that do not answer: {join_reasons(silent)}"
            )

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
        self._require_others(silent)

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

    def _mark_up_to_date(self) -> bool:
        """Let the node vote, and return whether it does.

        It does not if the members have changed since its recovery began: other registers may
        belong on it now. The recovery is then begun again.
        """
        before = Incarnation(JOINING, self._run_id, self._epoch)
        after = before._replace(state=UP).text
        with self._node.acquire() as connection:
            # A connection belongs to one server process, so the incarnation is of this process.
            if connection.run_id != self._run_id:
                return False
            run_script(connection, scripts.SWAP, [INCARNATION_KEY], before.text, after)
            stored = connection.call("GET", INCARNATION_KEY)
        self._node.up_to_date = done = bool(stored == after)
        logger.debug("%s: is %r after a recovery, %r was wanted", self._node.name, stored, after)
        return done
