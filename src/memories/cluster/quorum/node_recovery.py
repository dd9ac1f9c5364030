"""Brings a node up to date that restarted empty, came back old, or is new, while all else goes on.

Not the repair of damage, which is `repair`. The one idea: the node takes new writes from the first
moment, has no say until it holds a copy of every older one that was its to take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, UP, Incarnation
from memories.cluster.quorum import discovery
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.registers import QuorumRegisters
from memories.cluster.register_format import PREFIX
from memories.errors import UnavailableError

# A write that had sent its register before the node lost it has given up by then, so that no copy
# of it can count on the node after the listing of the others was read.
DRAIN_SECONDS = 2.5


class NodeRecovery:
    """One node's way back."""

    def __init__(self, members: Members, registers: QuorumRegisters, node: Node) -> None:
        self._members = members
        self._registers = registers
        self._node = node

    def run(self, pause: Callable[[float], bool]) -> bool:
        """Bring the node up to date and return whether it is; `pause` returns True to give up.

        Raises:
            UnavailableError: it, or a node that knows what it lost, does not answer.
            ReplyError: one of them refuses.
        """
        life = self._admit()
        if life is None:
            return True
        if pause(DRAIN_SECONDS):
            return False
        for batch in self._names():
            if pause(0):
                return False
            self._bring(batch)
        return self._finish(life)

    def _admit(self) -> str | None:
        """Let the node take writes; return which life of it does, None if it is up already."""
        hellos, reasons = discovery.discover(self._members, [self._node])
        if not hellos:
            raise UnavailableError(reasons[self._node.name])
        hello = hellos[0]
        roster = self._members.roster
        if hello.mark == Incarnation(UP, hello.life, roster.epoch):
            return None
        discovery.publish_to(hello, roster, JOINING)
        return hello.life

    def _names(self) -> Iterator[list[bytes]]:
        """Yield the registers on all other members.

        So many of them must answer that nothing can lie only on those which do not.
        """
        silent: dict[str, str] = {}
        for node in self._members.everyone():
            if node is self._node:
                continue
            try:
                yield from scan_node(node, PREFIX)
            except (UnavailableError, ReplyError) as error:
                silent[node.name] = str(error)
        if len(silent) + 1 >= max(2, self._members.roster.copies):
            raise UnavailableError(
                f"{self._node.name} cannot be brought up to date, for what it lost may lie on "
                + "; ".join(f"{name}: {reason}" for name, reason in sorted(silent.items()))
            )

    def _bring(self, names: list[bytes]) -> None:
        name = self._node.name
        concerned = [
            one for one in names if any(name in p.nodes for p in self._members.lists_of(one))
        ]
        self._registers.spread(concerned, to=name)

    def _finish(self, life: str) -> bool:
        epoch = self._members.epoch
        before, after = Incarnation(JOINING, life, epoch).text, Incarnation(UP, life, epoch).text
        with self._node.take() as connection:
            # The connection leads to one life of the server, so the mark cannot be another's.
            if self._node.life_of(connection) != life:
                return False
            connection.call(*scripts.SWAP.call([INCARNATION_KEY], before, after))
            self._node.well = connection.call("GET", INCARNATION_KEY) == after
        return self._node.well
