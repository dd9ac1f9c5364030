"""The fast path of a quorum write: small registers, on nodes that are all usable and agree.

Every node that must answer says what it has, and a version from the clock is above all of that: so
nothing has to be decoded. Then one script call for each node stores what belongs on it. If every
node replies that it has stored all, nothing else has to be decided. What is unusual (a node that
fails or has other replies, chunks that are replaced, a clock that is behind) is left to
`QuorumWrite`, with the version under which it was sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from memories.cluster.client import scripts
from memories.cluster.client.fanout import Commands, RequestRound
from memories.cluster.client.quick_round import QuickRound
from memories.cluster.client.resp import Command, encode_strings, exactly
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, Incarnation
from memories.cluster.limits import CONFIRMED_SECONDS
from memories.cluster.manifest import ChunkUpload
from memories.cluster.quorum.batches import BatchRequest, batches, usable_groups
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.unanimous_read import (
    UnusualReplyError,
    head_request,
    nodes_to_ask,
    voted,
    voted_values,
)
from memories.cluster.register_api import WrittenRegister
from memories.cluster.register_format import (
    HEADER_BYTES,
    KIND_AT,
    MANIFEST_KINDS,
    RegisterBody,
    pack_small,
)
from memories.cluster.rendezvous import Preference
from memories.cluster.versions import RegisterVersion, VersionMaker
from memories.errors import UnavailableError

_SMALL_BYTES = 16 << 10  # A larger register is sent from where it lies.
_CALL_REGISTERS = 250
_STORED = b":1\r\n"
_parse_stored = exactly(_STORED)
_INCARNATION = encode_strings([INCARNATION_KEY])
_STORE_ONE = scripts.STORE.encoded(2, 5) + _INCARNATION


class GivenVersion(NamedTuple):
    """The version of a write, and the chunks of the value that it replaces."""

    version: RegisterVersion
    replaced: ChunkUpload | None


class _Call(NamedTuple):
    """Registers that are stored by one call of the script on each of some nodes."""

    nodes: tuple[str, ...]
    names: tuple[bytes, ...]


class UnanimousWrite:
    """Stores small registers on the nodes that they prefer, and returns those that are stored."""

    def __init__(self, members: Members, versions: VersionMaker) -> None:
        self._members = members
        self._versions = versions

    def write(
        self, bodies: Mapping[bytes, RegisterBody], given: dict[bytes, GivenVersion]
    ) -> dict[bytes, WrittenRegister]:
        """Return the acknowledged writes; add to `given` the versions of all that were sent."""
        if len(bodies) > 1:
            return self._write_many(bodies, given)
        ((name, body),) = bodies.items()
        try:
            return {name: self._write_one(name, body, given)}
        except (UnusualReplyError, UnavailableError):
            return {}

    def _write_one(
        self, name: bytes, body: RegisterBody, given: dict[bytes, GivenVersion]
    ) -> WrittenRegister:
        epoch = self._members.epoch
        monotonic = self._members.monotonic
        preferences = self._members.preference_lists(name)
        nodes = nodes_to_ask(self._members, preferences)
        if body.nbytes > _SMALL_BYTES:
            raise UnusualReplyError
        word, copies = b"$%d\r\n%b\r\n" % (len(name), name), preferences[0].copies
        with QuickRound(nodes, monotonic) as round_:
            if not round_.run_ids:
                raise UnusualReplyError
            round_.send([head_request(word)] * len(nodes), 2)
            version = self._versions.successor()
            text = version.text
            value = pack_small(text, name, body)
            start, end = _STORE_ONE + word, b"$%d\r\n%b\r\n" % (len(value), value)
            requests = [start + _accepted(one, epoch) + end for one in round_.run_ids[:copies]]
            for head in voted_values(round_, epoch):
                if head >= text or head[KIND_AT : KIND_AT + 1] in MANIFEST_KINDS:
                    raise UnusualReplyError
            given[name] = GivenVersion(version, None)
            began = monotonic()
            round_.send(requests, 1)
            replies = round_.receive([_parse_stored] * copies)
            if replies != [_STORED] * copies or monotonic() - began > CONFIRMED_SECONDS:
                raise UnusualReplyError
        return WrittenRegister(version, None)

    def _write_many(
        self, bodies: Mapping[bytes, RegisterBody], given: dict[bytes, GivenVersion]
    ) -> dict[bytes, WrittenRegister]:
        """Write in batches: while the nodes work on one, the next one is prepared."""
        written: dict[bytes, WrittenRegister] = {}
        with RequestRound(self._members.monotonic) as round_:
            writes = self._batch_writes(round_, bodies)
            asked, sent = next(writes), None
            while asked is not None and asked.heads.collect():
                following = next(writes)
                asked.store(self._versions.successor(), bodies, given)
                if sent is not None and not sent.finish(written):
                    break
                asked, sent = following, asked
            if sent is not None:
                sent.finish(written)
        return written

    def _batch_writes(
        self, round_: RequestRound, bodies: Mapping[bytes, RegisterBody]
    ) -> Iterator[_BatchWrite | None]:
        """Yield each batch, after its nodes were asked what they have; then None for ever."""
        small = (name for name, body in bodies.items() if body.nbytes <= _SMALL_BYTES)
        for names in batches(small):
            yield _BatchWrite(self._members, round_, names)
        while True:
            yield None


class _BatchWrite:
    """The writes of one batch; the constructor asks the nodes what they have."""

    def __init__(self, members: Members, round_: RequestRound, names: Sequence[bytes]) -> None:
        self._members = members
        self._round = round_
        self.heads = BatchRequest(round_, members.epoch)
        self._groups = usable_groups(members, names)
        commands: dict[str, list[Command]] = defaultdict(list)
        tags: dict[str, list[Preference]] = defaultdict(list)
        for place, some in self._groups.items():
            count = len(some) + 1
            command = scripts.HEADS.encoded(count, count) + _INCARNATION + encode_strings(some)
            for node in place.asked:
                commands[node].append(command)
                tags[node].append(place)
        self.heads.allow(max(map(len, self._groups.values()), default=0))
        for node, sent in commands.items():
            self.heads.send(members, node, sent, tags[node])

    def store(
        self,
        version: RegisterVersion,
        bodies: Mapping[bytes, RegisterBody],
        given: dict[bytes, GivenVersion],
    ) -> None:
        """Send the registers of which all nodes have older versions, or none."""
        self._written = WrittenRegister(version, None)
        self._stores = BatchRequest(self._round, self.heads.epoch)
        self._calls: list[_Call] = []
        encoded: dict[str, list[tuple[int, bytes, bytes]]] = defaultdict(list)
        text, nbytes = version.text, 0
        for place in self._groups:
            older = self._older(place, text)
            for start in range(0, len(older), _CALL_REGISTERS):
                names = older[start : start + _CALL_REGISTERS]
                words = encode_strings(names)
                values = encode_strings([pack_small(text, name, bodies[name]) for name in names])
                for node in place.nodes[: place.copies]:
                    encoded[node].append((len(self._calls), words, values))
                    nbytes += len(values)
                self._calls.append(_Call(place.nodes[: place.copies], tuple(names)))
                given.update(dict.fromkeys(names, GivenVersion(version, None)))
        self._stores.allow(sum(len(call.names) for call in self._calls), nbytes)
        self._began = self._members.monotonic()
        for node, parts in encoded.items():
            tags = [number for number, _, _ in parts]
            self._stores.send(self._members, node, self._commands(parts), tags)

    def finish(self, written: dict[bytes, WrittenRegister]) -> bool:
        """Wait for the nodes, add what all have stored, and return whether all answered in time."""
        answered = self._stores.collect()
        if self._members.monotonic() - self._began > CONFIRMED_SECONDS:
            return False  # A node may have lost its memory, and have been refilled, in between.
        for number, call in enumerate(self._calls):
            for node in call.nodes:
                reply, _ = self._stores.replies.get((node, number), (None, ""))
                if reply != len(call.names):
                    break
            else:
                written.update(dict.fromkeys(call.names, self._written))
        return answered

    def _older(self, place: Preference, text: bytes) -> list[bytes]:
        """Return the registers of a group of which each node votes for an older version."""
        names = self._groups[place]
        heads: set[bytes] = set()
        for node in place.asked:
            reply = voted(self.heads, node, place, 2)
            if reply is None:
                return []
            heads.add(reply[1] or b"")
        newer: set[int] = set()
        for head in heads:
            if len(head) not in (0, HEADER_BYTES * len(names)):
                return []  # One is damaged, and shorter than a header.
            for index in range(len(head) // HEADER_BYTES):
                at = HEADER_BYTES * index
                kind = head[at + KIND_AT : at + KIND_AT + 1]
                if head[at : at + KIND_AT] >= text or kind in MANIFEST_KINDS:
                    newer.add(index)
        return [name for index, name in enumerate(names) if index not in newer] if newer else names

    def _commands(self, parts: Sequence[tuple[int, bytes, bytes]]) -> Commands:
        epoch = self.heads.epoch

        def build(run_id: str) -> list[Command]:
            accepted = _accepted(run_id, epoch)
            return [
                scripts.STORE.encoded(count + 1, 2 * count + 3)
                + _INCARNATION + words + accepted + values
                for number, words, values in parts
                if (count := len(self._calls[number].names))
            ]  # fmt: skip

        return build


@lru_cache(256)
def _accepted(run_id: str, epoch: int) -> bytes:
    """Return the two incarnations that the script accepts, encoded."""
    return encode_strings(Incarnation(JOINING, run_id, epoch).accepted)
