"""Phase two of a quorum write: sends the new version to the preferred nodes of each key.

Where a node fails, the next one in the key's list gets it. A read that writes back uses this phase,
too. A node that already has a newer version counts as a success, because that version has replaced
the one being written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from memories.cluster.client import scripts
from memories.cluster.client.fanout import Commands, NodeRequest, RequestRound
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, ReplyError
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, Incarnation, read_incarnation
from memories.cluster.limits import CONFIRMED_SECONDS, allowance
from memories.cluster.quorum.admission import admit
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.read import OutdatedMembersError
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.reasons import join_reasons
from memories.cluster.versions import RegisterVersion
from memories.errors import UnavailableError

_MOST_PASSES = 3
_CALL_BYTES = 1 << 20  # The most that one script call carries, unless one register is larger.
_CALL_REGISTERS = 50


class WriteJob:
    """A register that is being written to enough nodes, or with `only` to each of these nodes."""

    def __init__(
        self,
        query: RegisterQuery,
        version: RegisterVersion,
        register: Sequence[memoryview],
        *,
        only: Sequence[str] = (),
    ) -> None:
        self.query = query
        self.name = query.name
        self.version = version
        self.only = only
        self.set_register(register)
        self.stored_on: set[str] = set()
        self.sent: set[str] = set()
        self.refused: dict[str, str] = {}

    def set_register(self, register: Sequence[memoryview]) -> None:
        """Set the bytes to store."""
        self.register = tuple(register)
        self.nbytes = sum(segment.nbytes for segment in self.register)

    @property
    def missing_copies(self) -> int:
        """Return how many more nodes must store it."""
        if self.only:
            return len(set(self.only) - self.stored_on)
        if len(self.query.lists) == 1:
            return self.query.lists[0].copies - len(self.stored_on)
        return max(
            one.copies - len(self.stored_on.intersection(one.nodes)) for one in self.query.lists
        )

    def next_nodes(self, *, hedge: bool, among: Callable[[str], bool]) -> list[str]:
        """Return the nodes to send it to next."""
        if self.only:
            return [node for node in self.only if node not in self.sent and among(node)]
        chosen: list[str] = []
        for one in self.query.lists:
            need = one.copies - len(self.stored_on.intersection(one.nodes))
            if hedge:
                need = min(need, 1)
            else:
                need -= sum(node in chosen or self._expected(node) for node in one.nodes)
            free = [
                node
                for node in one.nodes
                if node not in self.sent
                and node not in self.stored_on
                and node not in chosen
                and node not in self.query.damaged
                and among(node)
            ]
            # Nodes that did not answer in phase one are tried last.
            free.sort(key=lambda node: node in self.query.asked and node not in self.query.replies)
            chosen += free[: max(0, need)]
        return chosen

    def reasons(self) -> str:
        """Return why the other nodes have not stored it."""
        reasons = dict(self.query.faults) | self.refused
        for node in self.sent - self.stored_on - reasons.keys():
            reasons[node] = "no answer in time"
        for node in set(self.query.nodes) - self.stored_on - reasons.keys():
            reasons[node] = "not asked, because it failed a moment ago"
        return join_reasons(reasons)

    def _expected(self, node: str) -> bool:
        return node in self.sent and node not in self.stored_on and node not in self.refused


class QuorumWrite:
    """Sends registers to nodes until each is stored on enough of them."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def store(self, jobs: Sequence[WriteJob]) -> None:
        """Send until no job misses a copy, or no node is left to try.

        Raises:
            OutdatedMembersError: a node has a newer member list.
        """
        for _ in range(_MOST_PASSES):
            began = self._members.monotonic()
            self._store_once(jobs)
            if self._members.monotonic() - began < CONFIRMED_SECONDS:
                return
            jobs = [job for job in jobs if not job.only]
            for job in jobs:
                job.stored_on.clear()
                job.sent.clear()

    def _store_once(self, jobs: Sequence[WriteJob]) -> None:
        total = sum(job.nbytes for job in jobs)
        slack = allowance(len(jobs), total)
        with RequestRound(self._members.monotonic) as round_:
            open_ = [job for job in jobs if job.missing_copies > 0]
            self._send(round_, open_, hedge=False)
            began = self._members.monotonic()
            while open_ := [job for job in open_ if job.missing_copies > 0]:
                left = began + round_.patience_seconds + slack - self._members.monotonic()
                answers = round_.wait(min(round_.hedge_seconds + slack, max(0.0, left)))
                failures = sum(not self._record(answer) for answer in answers)
                if answers and not failures and round_.waiting:
                    continue  # No failure so far, and other nodes are yet to answer.
                sent = self._send(round_, open_, hedge=not answers)
                if not sent and (left <= 0 or not (round_.waiting or answers)):
                    break

    def _send(self, round_: RequestRound, jobs: Sequence[WriteJob], *, hedge: bool) -> bool:
        wanted: dict[str, list[WriteJob]] = defaultdict(list)
        for job in jobs:
            chosen = job.next_nodes(hedge=hedge, among=lambda n: self._members.nodes[n].usable)
            if not chosen and not hedge:
                chosen = job.next_nodes(hedge=False, among=lambda n: self._members.nodes[n].due)
            for node in chosen:
                wanted[node].append(job)
                job.sent.add(node)
                job.refused.pop(node, None)
        for node, batch in wanted.items():
            calls = list(_calls(batch))
            round_.ask(self._members.nodes[node], self._commands(calls), calls)
        return bool(wanted)

    def _commands(self, calls: Sequence[Sequence[WriteJob]]) -> Commands:
        def build(run_id: str) -> list[Command]:
            accepted = Incarnation(JOINING, run_id, self._members.epoch).accepted
            return [
                scripts.STORE.call(
                    [INCARNATION_KEY, *(job.name for job in call)],
                    *accepted,
                    *(job.register for job in call),
                )
                for call in calls
            ]

        return build

    def _record(self, answer: NodeRequest) -> bool:
        """Record an answer in its jobs; return whether the node stored all of them."""
        name, all_stored = answer.node.name, True
        if answer.error is not None:
            for call in answer.tag:
                for job in call:
                    job.refused[name] = str(answer.error)
            return False
        for call, reply in zip(answer.tag, answer.replies, strict=True):
            if isinstance(reply, ReplyError):
                all_stored = False
                again = self._can_retry(answer, reply)
                for job in call:
                    job.refused[name] = str(reply)
                    if again:
                        job.sent.discard(name)
                continue
            if reply == len(call):
                reply = [1] * reply
            if not isinstance(reply, list) or len(reply) != len(call):
                all_stored = False
                for job in call:
                    job.refused[name] = "it sent something else than a reply to a store"
                continue
            for job, stored in zip(call, reply, strict=True):
                if stored == 1 or _is_at_least(stored, job.version):
                    job.stored_on.add(name)
        return all_stored

    def _can_retry(self, answer: NodeRequest, error: ReplyError) -> bool:
        """Return whether the request can be sent to the same node again at once."""
        if error.code == "NOSCRIPT" and answer.connection is not None:
            answer.node.forget_scripts(answer.connection)
            return True
        if error.code != "MARK":
            return False
        incarnation = read_incarnation(error.text.encode())
        if incarnation is not None and incarnation.epoch > self._members.epoch:
            raise OutdatedMembersError(f"the node {answer.node.name} has a newer member list")
        return self._admit(answer.node)

    def _admit(self, node: Node) -> bool:
        """Make a node accept writes that restarted or has an older list; return whether it does."""
        epoch = self._members.epoch
        try:
            admit(self._members, node, "a write")
        except UnavailableError as error:
            node.last_error = str(error)
            return False
        if self._members.epoch != epoch:
            raise OutdatedMembersError(f"the node {node.name} has a newer member list")
        return True


def _calls(jobs: Sequence[WriteJob]) -> Iterator[list[WriteJob]]:
    call: list[WriteJob] = []
    nbytes = 0
    for job in jobs:
        if call and (nbytes + job.nbytes > _CALL_BYTES or len(call) == _CALL_REGISTERS):
            yield call
            call, nbytes = [], 0
        call.append(job)
        nbytes += job.nbytes
    if call:
        yield call


def _is_at_least(reply: bytes | int | None, version: RegisterVersion) -> bool:
    return isinstance(reply, bytes) and reply >= version.text
