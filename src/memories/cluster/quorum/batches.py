"""Requests about many registers to several nodes, of which the next are sent before all answers.

While the nodes work on one batch, the caller prepares the next one, or decodes the one before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from memories.cluster.client.fanout import Commands, NodeRequest, RequestRound
from memories.cluster.limits import BATCH, allowance
from memories.cluster.quorum.members import Members
from memories.cluster.rendezvous import Preference

T = TypeVar("T")


class BatchRequest:
    """What was sent to the nodes for one batch, and their replies so far.

    Args:
        round_: Sends and receives.
        epoch: Of the member list by which the nodes were chosen.
    """

    def __init__(self, round_: RequestRound, epoch: int) -> None:
        self.epoch = epoch
        # By node and tag: the reply, and the run id of the server process.
        self.replies: dict[tuple[str, Hashable], tuple[Any, str]] = {}
        self._round = round_
        self._missing = 0
        self._slack = 0.0

    def send(
        self, members: Members, name: str, commands: Commands, tags: Sequence[Hashable]
    ) -> None:
        """Send commands to a node, with a tag for each."""
        self._missing += 1
        self._round.ask(members.nodes[name], commands, (self, tags))

    def allow(self, count: int, nbytes: int = 0) -> None:
        """Allow more time, because a node works on so many registers at once."""
        self._slack = allowance(count, nbytes)

    def collect(self) -> bool:
        """Wait for the replies of this batch, and return whether all nodes have answered."""
        while self._missing:
            answers = self._round.wait(self._round.hedge_seconds + self._slack)
            if not answers:
                return False
            for answer in answers:
                answer.tag[0].record(answer)
        return True

    def record(self, answer: NodeRequest) -> None:
        """Record the replies of a node."""
        self._missing -= 1
        if answer.error is None:
            for tag, reply in zip(answer.tag[1], answer.replies, strict=True):
                self.replies[answer.node.name, tag] = reply, answer.run_id


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield the items, so many at once as are put into one round of requests."""
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch


def usable_groups(members: Members, names: Iterable[bytes]) -> dict[Preference, list[bytes]]:
    """Return the names by their list of nodes; without those of which a node is failing."""
    usable = {name for name, node in members.nodes.items() if node.usable}
    groups = members.group(names)
    return {place: some for place, some in groups.items() if usable.issuperset(place.asked)}
