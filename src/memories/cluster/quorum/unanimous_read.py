"""The fast path of a quorum read, for registers whose nodes all answer and reply the same.

Equal replies of as many voting nodes as there are copies prove that the version is the newest, and
that it is on enough nodes: nothing else has to be decided or written back. For one register each
node gets two commands, whose replies need no decoding; for many registers it gets one command.
Everything unusual (a failing or stale node, unequal replies, a change of members) is left out of
the results, and decided by `QuorumRead`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from memories.cluster.client import scripts
from memories.cluster.client.fanout import (
    NodeRequest,
    RequestRound,
    SmallReply,
    ask_at_once,
)
from memories.cluster.client.node import Node
from memories.cluster.client.resp import NIL, Command, bulk_between, encode, encode_strings
from memories.cluster.incarnation import INCARNATION_KEY, UP, Incarnation
from memories.cluster.limits import allowance
from memories.cluster.manifest import ChunkUpload, upload_of_register
from memories.cluster.quorum.members import Members
from memories.cluster.register_api import FoundRegister
from memories.cluster.register_format import (
    HEADER_BYTES,
    PEEK_BYTES,
    read_body,
    read_header,
)
from memories.cluster.rendezvous import Preference
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import CorruptDataError

_NO_HEAD = b" " * HEADER_BYTES
_GET_INCARNATION = b"".join(map(bytes, encode([("GET", INCARNATION_KEY)])))
_HEAD_RANGE = encode_strings([b"0", b"%d" % (HEADER_BYTES - 1)])
_PEEK_RANGE = encode_strings([b"0", b"%d" % (PEEK_BYTES - 1)])

_Lists = Mapping[bytes, Sequence[Preference]]
_Nodes = tuple[str, ...]


class NewestVersion(NamedTuple):
    """The newest version of a register, and the chunks that it refers to."""

    version: RegisterVersion
    upload: ChunkUpload | None


_NOTHING = NewestVersion(ABSENT, None)


class _UnusualReplyError(Exception):
    """A reply that the general way must look at."""


class UnanimousRead:
    """Asks for registers whose nodes are all usable, and returns those with equal replies.

    The epoch is the one of the member list by which the lists of nodes were made.
    """

    def __init__(self, members: Members) -> None:
        self._members = members

    def read(self, lists: _Lists, epoch: int) -> dict[bytes, FoundRegister | None]:
        """Return the content of registers; those without equal replies are left out."""
        if len(lists) == 1:
            ((name, preferences),) = lists.items()
            try:
                return {name: self._read_one(name, self._nodes_for(preferences), epoch)}
            except (_UnusualReplyError, CorruptDataError):
                return {}
        groups = self._groups(lists)
        replies = self._ask(groups, epoch, whole=True)
        results: dict[bytes, FoundRegister | None] = {}
        for nodes, names in groups.items():
            if not all((node, nodes) in replies for node in nodes):
                continue
            values, *heads = (replies[node, nodes] for node in nodes)
            for index, name in enumerate(names):
                value = values[index]
                head = value[:HEADER_BYTES] if value else _NO_HEAD
                start = HEADER_BYTES * index
                for other in heads:
                    if other[start : start + HEADER_BYTES] != head:
                        break
                else:
                    try:
                        results[name] = _found(name, value) if value else None
                    except CorruptDataError:
                        continue
        return results

    def read_versions(self, lists: _Lists, epoch: int) -> dict[bytes, NewestVersion]:
        """Return the newest version of registers.

        Those with a missing reply, and manifests among many registers, are left out.
        """
        if len(lists) == 1:
            ((name, preferences),) = lists.items()
            try:
                return {name: self._read_one_version(name, self._nodes_for(preferences), epoch)}
            except (_UnusualReplyError, CorruptDataError):
                return {}
        groups = self._groups(lists)
        replies = self._ask(groups, epoch, whole=False)
        results: dict[bytes, NewestVersion] = {}
        for nodes, names in groups.items():
            if not all((node, nodes) in replies for node in nodes):
                continue
            heads = {replies[node, nodes] for node in nodes}
            if heads == {_NO_HEAD * len(names)}:
                results.update(dict.fromkeys(names, _NOTHING))
                continue
            for index, name in enumerate(names):
                start = HEADER_BYTES * index
                known = {one[start : start + HEADER_BYTES] for one in heads}
                newest = _newest_head(name, known)
                if newest is not None:
                    results[name] = newest
        return results

    def _groups(self, lists: _Lists) -> dict[_Nodes, list[bytes]]:
        """Return the registers by the nodes that must reply, without those that are unusual."""
        groups: dict[_Nodes, list[bytes]] = defaultdict(list)
        usable = {name for name, node in self._members.nodes.items() if node.usable}
        for name, preferences in lists.items():
            first = preferences[0]
            if len(preferences) == 1:
                groups[first.nodes[: max(first.answers, first.copies)]].append(name)
        return {nodes: names for nodes, names in groups.items() if usable.issuperset(nodes)}

    def _read_one(self, name: bytes, nodes: list[Node], epoch: int) -> FoundRegister | None:
        word = encode_strings([name])
        get = b"*2\r\n$3\r\nGET\r\n" + word + _GET_INCARNATION
        peek = b"*4\r\n$8\r\nGETRANGE\r\n" + word + _HEAD_RANGE + _GET_INCARNATION
        value, *heads = self._ask_one(nodes, [get, *[peek] * (len(nodes) - 1)], epoch)
        if any(head != value[:HEADER_BYTES] for head in heads):
            raise _UnusualReplyError
        return _found(name, value) if value else None

    def _read_one_version(self, name: bytes, nodes: list[Node], epoch: int) -> NewestVersion:
        peek = b"*4\r\n$8\r\nGETRANGE\r\n" + encode_strings([name]) + _PEEK_RANGE
        first, *others = self._ask_one(nodes, [peek + _GET_INCARNATION] * len(nodes), epoch)
        newest = _newest(name, first)
        for other in others:
            if other != first:
                newest = max(newest, _newest(name, other), key=_by_version)
        return newest

    def _ask_one(self, nodes: list[Node], requests: Sequence[bytes], epoch: int) -> list[bytes]:
        """Return what each node replies about one register; nothing where it has none."""

        def build(index: int, run_id: str) -> bytes:
            del run_id
            return requests[index]

        def end(run_id: str) -> bytes:
            return _vote(run_id, epoch)

        replies = ask_at_once(nodes, build, 2, b"$", end, self._members.monotonic)
        if not replies:
            raise _UnusualReplyError
        return [_value(reply, epoch) for reply in replies]

    def _nodes_for(self, preferences: Sequence[Preference]) -> list[Node]:
        """Return the nodes that must reply about one register, if all of them are usable."""
        first = preferences[0]
        if len(preferences) > 1:
            raise _UnusualReplyError
        known = self._members.nodes
        nodes = [known[name] for name in first.nodes[: max(first.answers, first.copies)]]
        if not all(node.usable for node in nodes):
            raise _UnusualReplyError
        return nodes

    def _ask(
        self, groups: Mapping[_Nodes, Sequence[bytes]], epoch: int, *, whole: bool
    ) -> dict[tuple[str, _Nodes], Any]:
        """Return the values, or else the first bytes, of the registers of groups by node.

        With `whole` the first node of each group is asked for the values.
        """
        commands: dict[str, list[Command]] = defaultdict(list)
        tags: dict[str, list[tuple[_Nodes, int, bool]]] = defaultdict(list)
        for nodes, names in groups.items():
            words = encode_strings([INCARNATION_KEY, *names])
            count = len(names) + 1
            for index, node in enumerate(nodes):
                valued = whole and index == 0
                if valued:
                    commands[node].append(b"*%d\r\n$4\r\nMGET\r\n" % (count + 1) + words)
                else:
                    commands[node].append(scripts.HEADS.encoded(count, count) + words)
                tags[node].append((nodes, len(names), valued))
        replies: dict[tuple[str, _Nodes], Any] = {}
        with RequestRound(self._members.monotonic) as round_:
            for node, sent in commands.items():
                round_.ask(self._members.nodes[node], lambda run_id, sent=sent: sent, tags[node])  # type: ignore[misc]
            longest = max(map(len, groups.values()), default=0)
            while answers := round_.wait(round_.hedge_seconds + allowance(longest)):
                for answer in answers:
                    replies.update(_replies(answer, epoch))
        return replies


def _replies(answer: NodeRequest, epoch: int) -> Iterator[tuple[tuple[str, _Nodes], Any]]:
    """Yield the replies of a node that votes."""
    if answer.error is not None:
        return
    up = Incarnation(UP, answer.run_id, epoch).text
    for (nodes, count, valued), reply in zip(answer.tag, answer.replies, strict=True):
        if isinstance(reply, list) and reply[0] == up:
            if valued:
                del reply[0]
                yield (answer.node.name, nodes), reply
            else:
                yield (answer.node.name, nodes), reply[1] or _NO_HEAD * count


@lru_cache(256)
def _vote(run_id: str, epoch: int) -> bytes:
    """Return the reply to `_GET_INCARNATION` of a node that votes."""
    return encode_strings([Incarnation(UP, run_id, epoch).text])


def _value(reply: SmallReply, epoch: int) -> bytes:
    """Return the first of two replies, if the second one is the vote of the node."""
    run_id, data = reply
    vote = _vote(run_id, epoch)
    if isinstance(data, list):
        value, incarnation = data
        if isinstance(value, Exception) or isinstance(incarnation, Exception):
            raise _UnusualReplyError
        if encode_strings([incarnation or b""]) != vote:
            raise _UnusualReplyError
        return value or b""
    found = bulk_between(data, b"", vote)
    if found is not None:
        return found
    if data != NIL + vote:
        raise _UnusualReplyError
    return b""


def _found(name: bytes, value: bytes) -> FoundRegister:
    header = read_header(name, value)
    return FoundRegister(header.version, header.kind, read_body(name, header, value))


def _by_version(newest: NewestVersion) -> RegisterVersion:
    return newest.version


def _newest(name: bytes, peek: bytes) -> NewestVersion:
    if not peek:
        return _NOTHING
    header = read_header(name, peek)
    return NewestVersion(header.version, upload_of_register(header.kind, peek[HEADER_BYTES:]))


def _newest_head(name: bytes, heads: set[bytes]) -> NewestVersion | None:
    """Return the newest version among the headers; None if more than headers are needed."""
    version = ABSENT
    try:
        for head in heads:
            if head != _NO_HEAD:
                header = read_header(name, head)
                if header.kind.is_manifest:
                    return None
                version = max(version, header.version)
    except CorruptDataError:
        return None
    return NewestVersion(version, None)
