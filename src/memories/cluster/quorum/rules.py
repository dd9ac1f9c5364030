"""What the nodes say of one register, and what follows from it. Decides, and asks nobody.

The one idea: a version is the newest if enough nodes with a say have spoken, since any so many of
them include one that took the latest acknowledged write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from memories.cluster.register_copy import RegisterCopy
from memories.cluster.register_format import (
    key_text,
)
from memories.cluster.rendezvous import Preference
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import CorruptDataError, MemoriesError, UnavailableError


class RegisterQuery:
    """One register that is being asked about, and all that was heard of it so far.

    While nodes are added or removed there are two lists of nodes, and either must be satisfied.
    """

    def __init__(self, name: bytes, lists: Sequence[Preference]) -> None:
        self.name = name
        self.lists = lists
        self.replies: dict[str, RegisterCopy] = {}
        self.voters: set[str] = set()  # Nodes that have a say in what is absent.
        self.asked: set[str] = set()
        self.faults: dict[str, str] = {}
        self.damaged: set[str] = set()

    @property
    def nodes(self) -> list[str]:
        """Return all nodes that may hold it, the preferred ones first."""
        return list(dict.fromkeys(node for one in self.lists for node in one.nodes))

    @property
    def missing_answers(self) -> int:
        """Return how many more nodes with a say must answer, in the list that needs most."""
        return max(one.answers - len(self.voters.intersection(one.nodes)) for one in self.lists)

    def next_nodes(self, *, hedge: bool, among: Callable[[str], bool]) -> list[str]:
        """Return which nodes to ask next; with `hedge` one more than those still expected."""
        chosen: list[str] = []
        for one in self.lists:
            need = one.answers - len(self.voters.intersection(one.nodes))
            if hedge:
                need = min(need, 1)
            else:
                need -= sum(self._expected(node) or node in chosen for node in one.nodes)
            free = (
                node
                for node in one.nodes
                if node not in self.asked and node not in chosen and among(node)
            )
            chosen += islice(free, max(0, need))
        return chosen

    @property
    def version(self) -> RegisterVersion:
        """Return the newest version that any node names."""
        return max((copy.version for copy in self.replies.values()), default=ABSENT)

    @property
    def newest(self) -> RegisterCopy:
        """Return a vote for the newest version, with all of the register if anybody gave it."""
        held = [self.replies[node] for node in self.holders]
        return next((copy for copy in held if copy.data is not None), held[0])

    @property
    def holders(self) -> list[str]:
        """Return the nodes that have the newest version."""
        newest = self.version
        return [node for node, copy in self.replies.items() if copy.version == newest]

    @property
    def outdated_nodes(self) -> list[str]:
        """Return the nodes that answered without the newest version, the preferred ones first."""
        return [
            node
            for node in self.nodes
            if node in self.damaged
            or (node in self.replies and self.replies[node].version != self.version)
        ]

    @property
    def missing_copies(self) -> int:
        """Return how many more copies must be known for every later reader to find the newest."""
        if self.version == ABSENT:
            return 0
        held = set(self.holders)
        return max(one.copies - len(held.intersection(one.nodes)) for one in self.lists)

    def _expected(self, node: str) -> bool:
        known = node in self.replies or node in self.faults or node in self.damaged
        return node in self.asked and not known

    def record(self, node: str, copy: RegisterCopy, *, voting: bool) -> None:
        """Take in what a node says."""
        self.replies[node] = copy
        self.damaged.discard(node)
        if voting:
            self.voters.add(node)

    def record_fault(self, node: str, reason: str) -> None:
        """Learn that a node cannot say anything."""
        self.faults[node] = reason
        self.replies.pop(node, None)
        self.voters.discard(node)

    def record_damage(self, node: str) -> None:
        """Learn that what a node has is damaged."""
        self.damaged.add(node)
        self.replies.pop(node, None)
        self.voters.discard(node)

    def error(self) -> MemoriesError:
        """Return the error that says why it could not be found out."""
        needed = len(self.voters) + self.missing_answers
        heard = f"{len(self.voters)} of the {needed} nodes needed answered"
        if self.damaged and self.missing_answers <= len(self.damaged):
            return CorruptDataError(
                f"{key_text(self.name)} is damaged on {_names(self.damaged)}, and {heard} otherwise"
            )
        reasons = [f"{node}: {reason}" for node, reason in sorted(self.faults.items())]
        reasons += [
            f"{node}: restarted, and is not yet up to date"
            for node in sorted(self.replies.keys() - self.voters)
        ]
        why = "; ".join(reasons) or "no other node is left to ask"
        return UnavailableError(f"{key_text(self.name)} could not be found out: {heard} ({why})")


def _names(nodes: Iterable[str]) -> str:
    return ", ".join(sorted(nodes))
