"""The fast path of a quorum read, for registers whose nodes all answer and reply the same.

Equal replies of as many voting nodes as there are copies prove that the version is the newest, and
that it is on enough nodes: nothing else has to be decided or written back. For one register each
node gets two commands, whose replies need no decoding; for many registers it gets one command.
Everything unusual (a failing or stale node, unequal replies, a change of members) is left out of
the results, and decided by `QuorumRead`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache

from memories.cluster.client import scripts
from memories.cluster.client.fanout import RequestRound
from memories.cluster.client.node import Node
from memories.cluster.client.quick_round import QuickRound
from memories.cluster.client.resp import Command, bulk_between, encode, encode_strings
from memories.cluster.incarnation import INCARNATION_KEY, UP, Incarnation
from memories.cluster.quorum.batches import BatchRequest, batches, usable_groups
from memories.cluster.quorum.members import Members
from memories.cluster.register_api import FoundRegister
from memories.cluster.register_format import HEADER_BYTES, read_register
from memories.cluster.rendezvous import Preference
from memories.errors import CorruptDataError, UnavailableError

_NO_HEAD = b" " * HEADER_BYTES
_GET_INCARNATION = b"".join(map(bytes, encode([("GET", INCARNATION_KEY)])))
_BYTES = {bytes, type(None)}
_HEAD_RANGE = encode_strings([b"0", b"%d" % (HEADER_BYTES - 1)])


class UnusualReplyError(Exception):
    """A register, or a reply, that the general way must look at."""


class UnanimousRead:
    """Asks for registers whose nodes are all usable, and returns those with equal replies."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def read(self, names: Sequence[bytes]) -> dict[bytes, FoundRegister | None]:
        """Return the content of registers; those without equal replies are left out."""
        if len(names) > 1:
            return self._read_many(names)
        (name,) = names
        try:
            return {name: self._read_one(name)}
        except (UnusualReplyError, UnavailableError, CorruptDataError):
            return {}

    def _read_one(self, name: bytes) -> FoundRegister | None:
        epoch = self._members.epoch
        nodes = nodes_to_ask(self._members, self._members.preference_lists(name))
        word = encode_strings([name])
        requests = [head_request(word)] * len(nodes)
        requests[0] = b"*2\r\n$3\r\nGET\r\n" + word + _GET_INCARNATION
        with QuickRound(nodes, self._members.monotonic) as round_:
            if not round_.run_ids:
                raise UnusualReplyError
            round_.send(requests, 2)
            value, *heads = voted_values(round_, epoch)
        for head in heads:
            if head != value[:HEADER_BYTES]:
                raise UnusualReplyError
        return _found(name, value) if value else None

    def _read_many(self, names: Sequence[bytes]) -> dict[bytes, FoundRegister | None]:
        """Read in batches: while the nodes work on one, the one before is decoded."""
        results: dict[bytes, FoundRegister | None] = {}
        with RequestRound(self._members.monotonic) as round_:
            before: tuple[BatchRequest, dict[Preference, list[bytes]]] | None = None
            for batch in batches(names):
                request, groups = self._ask_values(round_, batch)
                if before is not None:
                    _decode(*before, results)
                before = request, groups
                if not request.collect():
                    break
            if before is not None:
                _decode(*before, results)
        return results

    def _ask_values(
        self, round_: RequestRound, names: Sequence[bytes]
    ) -> tuple[BatchRequest, dict[Preference, list[bytes]]]:
        """Ask the first node of each group for the values, and the others for their headers."""
        request = BatchRequest(round_, self._members.epoch)
        groups = usable_groups(self._members, names)
        commands: dict[str, list[Command]] = defaultdict(list)
        tags: dict[str, list[Preference]] = defaultdict(list)
        for place, some in groups.items():
            words = encode_strings([INCARNATION_KEY, *some])
            count = len(some) + 1
            for node in place.asked:
                if node == place.nodes[0]:
                    commands[node].append(b"*%d\r\n$4\r\nMGET\r\n" % (count + 1) + words)
                else:
                    commands[node].append(scripts.HEADS.encoded(count, count) + words)
                tags[node].append(place)
        request.allow(max(map(len, groups.values()), default=0))
        for node, sent in commands.items():
            request.send(self._members, node, sent, tags[node])
        return request, groups


def nodes_to_ask(members: Members, preferences: Sequence[Preference]) -> list[Node]:
    """Return the nodes that must reply about a register, if all of them are usable.

    Raises:
        UnusualReplyError: one is not, or the members are being changed.
    """
    if len(preferences) > 1:
        raise UnusualReplyError
    known = members.nodes
    nodes = [known[name] for name in preferences[0].asked]
    for node in nodes:
        if not node.usable:
            raise UnusualReplyError
    return nodes


def head_request(word: bytes) -> bytes:
    """Return the request for the header of a register, whose encoded name is given."""
    return b"*4\r\n$8\r\nGETRANGE\r\n" + word + _HEAD_RANGE + _GET_INCARNATION


def voted_values(round_: QuickRound, epoch: int) -> list[bytes]:
    """Return what each node replies about one register; nothing where it has none.

    The requests that were sent ask for the incarnation last.

    Raises:
        UnusualReplyError: a node does not vote.
        UnavailableError: a node does not answer.
    """
    run_ids = round_.run_ids
    found: list[bytes] = []
    replies = round_.receive([_voted_value(run_id, epoch) for run_id in run_ids])
    for index, reply in enumerate(replies):
        if isinstance(reply, bytes):
            found.append(reply)
            continue
        value, vote = reply
        if vote != _incarnation(run_ids[index], epoch) or type(value) not in _BYTES:
            raise UnusualReplyError
        found.append(value or b"")
    return found


def voted(
    request: BatchRequest, node: str, place: Preference, count: int
) -> list[bytes | None] | None:
    """Return the `count` parts of a node's reply about a group, if the node votes."""
    found, run_id = request.replies.get((node, place), (None, ""))
    if (
        not isinstance(found, list)
        or len(found) != count
        or not _BYTES.issuperset(map(type, found))
    ):
        return None
    return found if found[0] == _incarnation(run_id, request.epoch) else None


def _decode(
    request: BatchRequest,
    groups: dict[Preference, list[bytes]],
    results: dict[bytes, FoundRegister | None],
) -> None:
    """Add the registers of a batch whose nodes reply the same."""
    for place, names in groups.items():
        found = voted(request, place.nodes[0], place, len(names) + 1)
        others = [voted(request, node, place, 2) for node in place.asked[1:]]
        if found is None:
            continue
        values = found[1:]
        heads = b"".join([value[:HEADER_BYTES] if value else _NO_HEAD for value in values])
        unequal: set[int] = set()
        for other in others:
            if other is None:
                unequal.update(range(len(names)))
            elif (other[1] or _NO_HEAD * len(names)) != heads:
                for index in range(len(names)):
                    part = slice(HEADER_BYTES * index, HEADER_BYTES * (index + 1))
                    if ((other[1] or b"")[part] or _NO_HEAD) != heads[part]:
                        unequal.add(index)
        for index, name in enumerate(names):
            if index in unequal:
                continue
            try:
                value = values[index]
                results[name] = _found(name, value) if value else None
            except CorruptDataError:
                continue


@lru_cache(256)
def _incarnation(run_id: str, epoch: int) -> bytes:
    """Return the incarnation of a node that votes."""
    return Incarnation(UP, run_id, epoch).text


@lru_cache(256)
def _voted_value(run_id: str, epoch: int) -> Callable[[bytes], bytes | None]:
    """Return the parser of a bulk string and the vote of a node after it."""
    return bulk_between(b"", encode_strings([_incarnation(run_id, epoch)]))


def _found(name: bytes, value: bytes) -> FoundRegister:
    return FoundRegister(*read_register(name, value))
