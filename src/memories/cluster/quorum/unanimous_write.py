"""The fast path of a quorum write: small registers, sent to nodes that are all usable.

One script call for each node stores all registers that belong on it. If every node replies that it
has stored them all, nothing else has to be decided. `QuorumWrite` sends what is left, with the same
versions, so that a node which has one already counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from memories.cluster.client import scripts
from memories.cluster.client.fanout import NodeRequest, RequestRound, ask_at_once
from memories.cluster.client.resp import Command, encode_strings
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, Incarnation
from memories.cluster.limits import CONFIRMED_SECONDS, allowance
from memories.cluster.quorum.members import Members
from memories.cluster.rendezvous import Preference

_SMALL_BYTES = 16 << 10  # A larger register is sent from where it lies.
_CALL_BYTES = 1 << 20
_CALL_REGISTERS = 250
_STORED_ONE = b":1\r\n"


class SmallWrite(NamedTuple):
    """A register to store, and the nodes that it prefers."""

    name: bytes
    lists: Sequence[Preference]
    register: Sequence[memoryview]
    nbytes: int


class UnanimousWrite:
    """Stores registers on the nodes that they prefer, and returns which nodes have stored them.

    The epoch is the one of the member list by which the lists of nodes were made.
    """

    def __init__(self, members: Members) -> None:
        self._members = members

    def store(self, writes: Sequence[SmallWrite], epoch: int) -> Mapping[bytes, set[str]]:
        """Return for each register the nodes that have stored it; unusual ones may have none."""
        began = self._members.monotonic()
        if len(writes) == 1:
            stored = {writes[0].name: self._store_one(writes[0], epoch)}
        else:
            stored = self._store_many(writes, epoch)
        if self._members.monotonic() - began > CONFIRMED_SECONDS:
            return {}  # A node may have lost its memory, and have been refilled, in between.
        return stored

    def _store_one(self, write: SmallWrite, epoch: int) -> set[str]:
        first, *more = write.lists
        names = first.nodes[: first.copies]
        nodes = [self._members.nodes[name] for name in names]
        if more or write.nbytes > _SMALL_BYTES or not all(node.usable for node in nodes):
            return set()
        value = b"".join(write.register)
        data = _STORE_ONE + encode_strings([write.name])

        def build(index: int, run_id: str) -> bytes:
            del index
            return b"%b%b$%d\r\n%b\r\n" % (data, _accepted(run_id, epoch), len(value), value)

        replies = ask_at_once(nodes, build, 1, b":", _stored_one, self._members.monotonic)
        # Other replies, of a node that has a newer version too, are left to `QuorumWrite`.
        return {
            name
            for name, (_, reply) in zip(names, replies or (), strict=bool(replies))
            if reply == _STORED_ONE
        }

    def _store_many(self, writes: Sequence[SmallWrite], epoch: int) -> dict[bytes, set[str]]:
        usable = {name for name, node in self._members.nodes.items() if node.usable}
        groups: dict[tuple[str, ...], list[SmallWrite]] = defaultdict(list)
        for write in writes:
            first = write.lists[0]
            if len(write.lists) == 1 and write.nbytes <= _SMALL_BYTES:
                groups[first.nodes[: first.copies]].append(write)
        groups = {nodes: group for nodes, group in groups.items() if usable.issuperset(nodes)}
        calls: dict[str, list[tuple[Sequence[bytes], bytes, bytes]]] = defaultdict(list)
        for nodes, group in groups.items():
            for start in range(0, len(group), _CALL_REGISTERS):
                some = group[start : start + _CALL_REGISTERS]
                names = [write.name for write in some]
                values = encode_strings([b"".join(write.register) for write in some])
                for node in nodes:
                    calls[node].append((names, encode_strings(names), values))
        stored: dict[bytes, set[str]] = defaultdict(set)
        total = sum(len(values) for sent in calls.values() for _, _, values in sent)
        slack = allowance(sum(map(len, groups.values())), total)
        with RequestRound(self._members.monotonic) as round_:
            for node, sent in calls.items():
                build = partial(_store_commands, sent=sent, epoch=epoch)
                round_.ask(self._members.nodes[node], build, sent)
            while answers := round_.wait(round_.hedge_seconds + slack):
                for answer in answers:
                    _record(answer, stored)
        return stored


def _record(answer: NodeRequest, stored: dict[bytes, set[str]]) -> None:
    if answer.error is not None:
        return
    for (names, _, _), reply in zip(answer.tag, answer.replies, strict=True):
        if reply == len(names):
            for name in names:
                stored[name].add(answer.node.name)


@lru_cache(256)
def _accepted(run_id: str, epoch: int) -> bytes:
    """Return the two incarnations that the script accepts, encoded."""
    return encode_strings(Incarnation(JOINING, run_id, epoch).accepted)


_INCARNATION = encode_strings([INCARNATION_KEY])
_STORE_ONE = scripts.STORE.encoded(2, 5) + _INCARNATION


def _stored_one(run_id: str) -> bytes:
    del run_id
    return _STORED_ONE


def _store_commands(
    run_id: str, *, sent: Sequence[tuple[Sequence[bytes], bytes, bytes]], epoch: int
) -> list[Command]:
    accepted = _accepted(run_id, epoch)
    return [
        scripts.STORE.encoded(len(names) + 1, 2 * len(names) + 3)
        + _INCARNATION + words + accepted + values
        for names, words, values in sent
    ]  # fmt: skip
