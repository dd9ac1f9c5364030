"""Phase one of a quorum read or write: collects replies for many registers, in parallel.

The nodes that a register prefers are asked first. When one does not answer for several times as
long as it usually takes, the next node in the list is asked as well (a hedged request).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto

from memories.cluster.client.fanout import NodeRequest, RequestRound
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, ReplyError
from memories.cluster.incarnation import (
    INCARNATION_KEY,
    UP,
    Incarnation,
    next_incarnation,
    read_incarnation,
)
from memories.cluster.limits import allowance
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.register_copy import read_copy
from memories.cluster.register_format import PEEK_BYTES
from memories.errors import CorruptDataError

ALL_NODES = 1 << 30  # More than the nodes of any register.


class OutdatedMembersError(Exception):
    """A node has a newer member list than this client, or has not received the current one.

    Who catches it lets both catch up, and begins again.
    """


class _NodeState(Enum):
    """What a node's answer counts for."""

    VOTING = auto()
    BEHIND = auto()  # It votes once it has got the newest member list.
    STALE = auto()  # It restarted, and must be brought up to date.


class QuorumRead:
    """Asks nodes for registers until a quorum has answered.

    Args:
        members: The nodes.
        on_stale_node: Called with a node whose incarnation is missing or of another process.
    """

    def __init__(self, members: Members, on_stale_node: Callable[[Node], None]) -> None:
        self._members = members
        self._on_stale_node = on_stale_node

    def collect(self, queries: Sequence[RegisterQuery], *, whole: int) -> None:
        """Ask until each query has a quorum of answers, or no node is left to ask.

        The first `whole` nodes of each query are asked for the whole register.

        Raises:
            OutdatedMembersError: a node has a newer member list, or too few votes are left because
                some have an older one.
        """
        slack = allowance(len(queries))
        with RequestRound(self._members.monotonic) as round_:
            open_ = list(queries)
            self._ask(round_, open_, hedge=False, whole=whole)
            began = self._members.monotonic()
            while open_ := [query for query in open_ if query.missing_answers > 0]:
                left = began + round_.patience_seconds + slack - self._members.monotonic()
                answers = round_.wait(min(round_.hedge_seconds + slack, max(0.0, left)))
                for answer in answers:
                    self.record(answer)
                asked = self._ask(round_, open_, hedge=not answers, whole=whole)
                if not asked and (left <= 0 or not (round_.waiting or answers)):
                    break
        for query in open_:
            if query.behind:
                raise OutdatedMembersError(
                    f"{', '.join(sorted(query.behind))} did not get the newest member list yet"
                )
            self._explain(query)

    def ask_remaining(self, queries: Sequence[RegisterQuery], *, whole: bool = False) -> None:
        """Ask those nodes of each query that were not asked yet, and wait for one hedge delay."""
        with RequestRound(self._members.monotonic) as round_:
            wanted: dict[str, list[tuple[RegisterQuery, bool]]] = defaultdict(list)
            for query in queries:
                for node in query.nodes:
                    if node not in query.asked and self._members.nodes[node].usable:
                        wanted[node].append((query, whole))
            self._send(round_, wanted)
            self._drain(round_, round_.hedge_seconds + allowance(len(queries)))

    def fetch(self, queries: Sequence[RegisterQuery]) -> None:
        """Ask a holder of the newest version of each query for the whole register."""
        with RequestRound(self._members.monotonic) as round_:
            wanted: dict[str, list[tuple[RegisterQuery, bool]]] = defaultdict(list)
            for query in queries:
                wanted[query.holders[0]].append((query, True))
            self._send(round_, wanted)
            self._drain(round_, round_.patience_seconds / 2 + allowance(len(queries)))

    def record(self, answer: NodeRequest) -> None:
        """Record an answer in the queries that it belongs to."""
        name = answer.node.name
        if answer.error is not None:
            for query, _ in answer.tag:
                query.record_fault(name, str(answer.error))
            return
        *replies, incarnation = answer.replies
        state = self._state_of(answer, incarnation)
        for (query, whole), reply in zip(answer.tag, replies, strict=True):
            if isinstance(reply, ReplyError):
                query.record_fault(name, str(reply))
                continue
            try:
                copy = read_copy(query.name, reply, whole=whole)
            except CorruptDataError:
                query.record_damage(name)
            else:
                query.record(name, copy, voting=state is _NodeState.VOTING)
                if state is _NodeState.BEHIND:
                    query.behind.add(name)

    def _state_of(self, answer: NodeRequest, reply: bytes | ReplyError | None) -> _NodeState:
        node, epoch = answer.node, self._members.epoch
        node.up_to_date = False
        if isinstance(reply, ReplyError):
            return _NodeState.STALE
        incarnation = read_incarnation(reply)
        if incarnation is not None and incarnation.epoch > epoch:
            raise OutdatedMembersError(f"the node {node.name} has a newer member list")
        if next_incarnation(incarnation, answer.run_id, epoch).state != UP:
            self._on_stale_node(node)
            return _NodeState.STALE
        node.up_to_date = incarnation == Incarnation(UP, answer.run_id, epoch)
        return _NodeState.VOTING if node.up_to_date else _NodeState.BEHIND

    def _ask(
        self, round_: RequestRound, queries: Sequence[RegisterQuery], *, hedge: bool, whole: int
    ) -> bool:
        wanted: dict[str, list[tuple[RegisterQuery, bool]]] = defaultdict(list)
        for query in queries:
            chosen = query.next_nodes(hedge=hedge, among=self._usable)
            if not chosen and not hedge:
                chosen = query.next_nodes(hedge=False, among=self._due)
            for node in chosen:
                wanted[node].append((query, len(query.asked) < whole))
                query.asked.add(node)
        self._send(round_, wanted)
        return bool(wanted)

    def _send(
        self, round_: RequestRound, wanted: dict[str, list[tuple[RegisterQuery, bool]]]
    ) -> None:
        for node, about in wanted.items():
            for query, _ in about:
                query.asked.add(node)
            commands = [*_questions(about), ("GET", INCARNATION_KEY)]
            round_.ask(self._members.nodes[node], commands, about)

    def _drain(self, round_: RequestRound, seconds: float) -> None:
        end = self._members.monotonic() + seconds
        while True:
            answers = round_.wait(max(0.0, end - self._members.monotonic()))
            for answer in answers:
                self.record(answer)
            if not answers:
                return

    def _explain(self, query: RegisterQuery) -> None:
        """Record for the nodes without an answer why there is none."""
        for name in query.nodes:
            node = self._members.nodes[name]
            if name not in query.replies and name not in query.damaged:
                query.faults.setdefault(name, node.last_error or "it did not answer in time")

    def _usable(self, node: str) -> bool:
        return self._members.nodes[node].usable

    def _due(self, node: str) -> bool:
        return self._members.nodes[node].due


def _questions(about: Iterable[tuple[RegisterQuery, bool]]) -> Iterable[Command]:
    for query, whole in about:
        yield ("GET", query.name) if whole else ("GETRANGE", query.name, 0, PEEK_BYTES - 1)
