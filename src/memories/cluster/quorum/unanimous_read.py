"""The fast path of phase one: all nodes that are asked answer, and for a read they agree.

If all nodes of a quorum answer, the newest of their versions is the newest version. A read returns
it only if their headers are equal byte for byte, since otherwise a write-back may be needed. The
other registers are left to `QuorumRead`, which asks again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from memories.cluster.client.fanout import NodeRequest, RequestRound
from memories.cluster.client.resp import Command
from memories.cluster.incarnation import INCARNATION_KEY, UP, Incarnation
from memories.cluster.limits import HEDGE_SECONDS, allowance
from memories.cluster.manifest import ChunkUpload, read_upload
from memories.cluster.quorum.members import Members
from memories.cluster.register_api import FoundRegister
from memories.cluster.register_format import (
    HEADER_BYTES,
    PEEK_BYTES,
    RegisterKind,
    read_body,
    read_header,
)
from memories.cluster.rendezvous import Preference
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import CorruptDataError

_LAST = PEEK_BYTES - 1


class NewestVersion(NamedTuple):
    """The newest version of a register, and the chunks that it refers to."""

    version: RegisterVersion
    upload: ChunkUpload | None


class _Request(NamedTuple):
    """One register, the nodes that are asked for it, and the positions of their replies."""

    name: bytes
    nodes: Sequence[str]
    positions: Sequence[int]


_Lists = Mapping[bytes, Sequence[Preference]]
_Replies = dict[str, list[bytes | None]]


class UnanimousRead:
    """Asks for registers whose nodes are all usable, and returns those with equal replies."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def read(self, lists: _Lists) -> dict[bytes, FoundRegister | None]:
        """Return the content of registers; those without equal replies are left out."""
        asked, replies = self._ask(lists, whole=1)
        results: dict[bytes, FoundRegister | None] = {}
        for one in asked:
            try:
                whole, *others = [
                    replies[node][position]
                    for node, position in zip(one.nodes, one.positions, strict=True)
                ]
                if not whole:
                    if not any(others):
                        results[one.name] = None
                    continue
                head = whole[:HEADER_BYTES]
                if all(other is not None and other.startswith(head) for other in others):
                    header = read_header(one.name, whole)
                    body = read_body(one.name, header, whole)
                    results[one.name] = FoundRegister(header.version, header.kind, body)
            except (KeyError, CorruptDataError):
                continue  # A node did not answer, or a copy is damaged.
        return results

    def read_versions(self, lists: _Lists) -> dict[bytes, NewestVersion]:
        """Return the newest version of registers; those with a missing reply are left out."""
        asked, replies = self._ask(lists, whole=0)
        results: dict[bytes, NewestVersion] = {}
        for one in asked:
            try:
                copies = [
                    replies[node][position]
                    for node, position in zip(one.nodes, one.positions, strict=True)
                ]
                results[one.name] = _newest(one.name, copies)
            except (KeyError, CorruptDataError):
                continue
        return results

    def _ask(self, lists: _Lists, *, whole: int) -> tuple[list[_Request], _Replies]:
        commands: dict[str, list[Command]] = defaultdict(list)
        asked: list[_Request] = []
        usable = {name for name, node in self._members.nodes.items() if node.usable}
        for name, (first, *more) in lists.items():
            count = max(first.answers, first.copies)
            nodes = first.nodes[:count]
            if more or not usable.issuperset(nodes):
                continue
            positions = []
            for index, node in enumerate(nodes):
                queue = commands[node]
                positions.append(len(queue))
                queue.append(("GET", name) if index < whole else ("GETRANGE", name, 0, _LAST))
            asked.append(_Request(name, nodes, positions))
        return asked, self._exchange(commands)

    def _exchange(self, commands: dict[str, list[Command]]) -> _Replies:
        """Return the replies of every voting node that answers before the hedge delay ends."""
        replies: _Replies = {}
        with RequestRound(self._members.monotonic) as round_:
            for node, queue in commands.items():
                queue.append(("GET", INCARNATION_KEY))
                round_.ask(self._members.nodes[node], lambda run_id, sent=queue: sent)  # type: ignore[misc]
            longest = max(map(len, commands.values()), default=0)
            while answers := round_.wait(HEDGE_SECONDS + allowance(longest)):
                replies.update(self._voting_replies(answers))
        return replies

    def _voting_replies(
        self, answers: Iterable[NodeRequest]
    ) -> Iterable[tuple[str, list[bytes | None]]]:
        for answer in answers:
            if answer.error is not None:
                continue
            *copies, incarnation = answer.replies
            if incarnation == Incarnation(UP, answer.run_id, self._members.epoch).text:
                # An error reply becomes None, which differs from the reply of any other node.
                yield (
                    answer.node.name,
                    [one if isinstance(one, bytes) else None for one in copies],
                )


def _newest(name: bytes, copies: Sequence[bytes | None]) -> NewestVersion:
    newest = NewestVersion(ABSENT, None)
    for reply in copies:
        if reply:
            header = read_header(name, reply)
            if header.version > newest.version:
                upload = (
                    read_upload(reply[HEADER_BYTES:])
                    if header.kind is RegisterKind.MANIFEST
                    else None
                )
                newest = NewestVersion(header.version, upload)
    return newest
