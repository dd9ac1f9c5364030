"""The quorum rules for one register: what its replies so far prove, and which nodes to ask next.

The newest version is known once enough voting nodes have answered, because any so many of them
include one that has the latest acknowledged write. The rules are pure: requests are sent elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from memories.cluster.reasons import join_reasons
from memories.cluster.register_copy import RegisterCopy
from memories.cluster.register_format import (
    key_text,
)
from memories.cluster.rendezvous import Preference
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import CorruptDataError, MemoriesError, UnavailableError


class RegisterQuery:
    """A query for one register, and all replies to it so far.

    During a change of members there are two lists of nodes, and both need a quorum.
    """

    def __init__(self, name: bytes, lists: Sequence[Preference]) -> None:
        self.name = name
        self.lists = lists
        self.replies: dict[str, RegisterCopy] = {}
        self.voters: set[str] = set()  # Nodes that are up to date: they prove what is absent.
        self.behind: set[str] = set()  # Nodes that vote once they have got the newest list.
        self.asked: set[str] = set()
        self.faults: dict[str, str] = {}
        self.damaged: set[str] = set()

    @property
    def nodes(self) -> list[str]:
        """Return all nodes that may hold the register, the preferred ones first."""
        return list(dict.fromkeys(node for one in self.lists for node in one.nodes))

    @property
    def missing_answers(self) -> int:
        """Return how many more voting nodes must answer, in the list that needs most."""
        return max(one.answers - len(self.voters.intersection(one.nodes)) for one in self.lists)

    def next_nodes(self, *, hedge: bool, among: Callable[[str], bool]) -> list[str]:
        """Return the nodes to ask next; with `hedge` one more than those that are yet to answer."""
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
        """Return the newest version in any reply."""
        return max((copy.version for copy in self.replies.values()), default=ABSENT)

    @property
    def newest(self) -> RegisterCopy:
        """Return a copy of the newest version, with all of its bytes if any reply has them."""
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
        """Return how many more copies are needed so that every later read finds the newest."""
        if self.version == ABSENT:
            return 0
        held = set(self.holders)
        return max(one.copies - len(held.intersection(one.nodes)) for one in self.lists)

    def _expected(self, node: str) -> bool:
        known = node in self.replies or node in self.faults or node in self.damaged
        return node in self.asked and not known

    def record(self, node: str, copy: RegisterCopy, *, voting: bool) -> None:
        """Record the copy on a node; `voting` if the node is up to date."""
        self.replies[node] = copy
        self.damaged.discard(node)
        if voting:
            self.voters.add(node)

    def record_fault(self, node: str, reason: str) -> None:
        """Record that a node did not answer, or replied with an error."""
        self.faults[node] = reason
        self.replies.pop(node, None)
        self.voters.discard(node)

    def record_damage(self, node: str) -> None:
        """Record that the copy on a node is damaged."""
        self.damaged.add(node)
        self.replies.pop(node, None)
        self.voters.discard(node)

    def error(self, action: str = "read") -> MemoriesError:
        """Return the error that explains why the newest version is unknown.

        Args:
            action: What the caller cannot do without that version: `"read"` or `"written"`.
        """
        needed = len(self.voters) + self.missing_answers
        count = len(self.voters)
        verb = "is" if needed == 1 else "are"
        answered = f"{count} node{'s' * (count != 1)} answered, {needed} {verb} needed"
        if self.damaged and self.missing_answers <= len(self.damaged):
            return CorruptDataError(
                f"{key_text(self.name)} is damaged on {_names(self.damaged)}, and otherwise "
                + answered
            )
        outdated = self.replies.keys() - self.voters
        reasons = dict.fromkeys(outdated, "it restarted, and is not up to date yet") | self.faults
        why = join_reasons(reasons, otherwise="no other node is left to ask")
        return UnavailableError(f"{key_text(self.name)} cannot be {action}: {answered} ({why})")


def _names(nodes: Iterable[str]) -> str:
    return ", ".join(sorted(nodes))
