"""Writes registers of a Cluster: a script on the slot's primary, then WAIT for its replicas.

This is not consensus: a write that only the primary has is lost if the primary fails, and therefore
is not acknowledged. A write keeps its version when it is sent again, so that a primary that has it
already recognises it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from memories.cluster.client import scripts
from memories.cluster.client.fanout import NodeRequest, RequestRound
from memories.cluster.client.quick_round import QuickRound
from memories.cluster.client.resp import Command, ReplyError, encode, encode_strings, exactly
from memories.cluster.limits import allowance
from memories.cluster.manifest import ChunkUpload
from memories.cluster.register_api import WrittenRegister
from memories.cluster.register_copy import RegisterCopy, read_copy
from memories.cluster.register_format import (
    RegisterBody,
    RegisterKind,
    key_text,
    pack_register,
    pack_small,
)
from memories.cluster.run_script import replace_copy
from memories.cluster.valkey_cluster.read import NOT_ANSWERED, ask_redirected
from memories.cluster.valkey_cluster.redundancy import Redundancy
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.slots import Shard, group_by_shard
from memories.cluster.versions import RegisterVersion, VersionMaker
from memories.errors import ConflictError, CorruptDataError, ReplicationError, UnavailableError

WRITE_SECONDS = 8.0  # A failover takes about 3 s with usual settings.
WAIT_SECONDS = 0.7  # How long replicas may take to confirm a write.
_PAUSE_SECONDS = 0.1
_SMALL_BYTES = 64 << 10
_CALL = scripts.SLOT_STORE.encoded(1, 3)
_STORED = 1  # The reply of the script that has stored, if there is nothing to say of the old value.
_WAVE_BYTES = 8 << 20  # Sent to one node before its answer is awaited.
_WAVE_WRITES = 500
# The node has not stored it, but it or another one may soon: refresh the slot map and try again.
_LATER = frozenset(
    {"MOVED", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "READONLY", "MASTERDOWN", "NOSCRIPT"}
)


class _PendingWrite:
    """One register that is being written."""

    __slots__ = (
        "body",
        "condition",
        "if_version",
        "in_doubt",
        "name",
        "nbytes",
        "reason",
        "replaced",
        "retry_until",
        "version",
    )

    def __init__(
        self, name: bytes, body: RegisterBody, if_version: int | None, version: RegisterVersion
    ) -> None:
        self.name = name
        self.body = body
        self.condition = b"" if if_version is None else b"%016x" % if_version
        self.if_version = if_version
        self.version = version
        self.in_doubt = False
        self.retry_until = 0.0
        self.replaced: ChunkUpload | None = None
        self.reason = NOT_ANSWERED
        self.nbytes = body.nbytes

    @property
    def register(self) -> tuple[memoryview, ...]:
        """Return the bytes to store."""
        return pack_register(self.name, self.version, self.body.kind, self.body.segments)

    @property
    def command(self) -> Command:
        """Return the call of the script that stores it."""
        if self.nbytes <= _SMALL_BYTES:
            return self.small_command()
        return scripts.SLOT_STORE.call([self.name], self.register, self.condition)

    def small_command(self) -> bytes:
        """Return that call as bytes, with a copy of the body."""
        value = pack_small(self.version.text, self.name, self.body)
        return _CALL + encode_strings((self.name, value, self.condition))

    def error(self) -> UnavailableError:
        """Return the error of a write that was not acknowledged."""
        if not self.in_doubt:
            return UnavailableError(
                f"{key_text(self.name)} was not stored: {self.reason}; the value before is "
                "unchanged"
            )
        return ReplicationError(
            f"{key_text(self.name)} may or may not be stored: {self.reason}; read it, or store it "
            "again"
        )


class ClusterWrite:
    """Stores registers on the primaries of their slots, and waits for their replicas."""

    def __init__(
        self,
        shards: Shards,
        redundancy: Redundancy,
        versions: VersionMaker,
        pause: Callable[[float], bool],
    ) -> None:
        self._shards = shards
        self._redundancy = redundancy
        self._versions = versions
        self._pause = pause

    def write(
        self, bodies: Mapping[bytes, RegisterBody], if_version: int | None
    ) -> dict[bytes, WrittenRegister | Exception]:
        """Write each register; see `Registers`."""
        results: dict[bytes, WrittenRegister | Exception] = {}
        version = self._versions.successor()
        pending = {n: _PendingWrite(n, body, if_version, version) for n, body in bodies.items()}
        end = self._shards.monotonic() + WRITE_SECONDS
        if len(pending) == 1 and self._send_one(next(iter(pending.values())), results):
            return results
        while pending:
            again = self._send_all(pending, results)
            for name in results:
                pending.pop(name, None)
            if not pending or again:
                continue
            if self._shards.monotonic() >= end or self._pause(_PAUSE_SECONDS):
                results.update({name: one.error() for name, one in pending.items()})
                break
            self._shards.refresh()
        return results

    def _send_one(
        self, one: _PendingWrite, results: dict[bytes, WrittenRegister | Exception]
    ) -> bool:
        """Send one small write, and return whether it has an outcome."""
        try:
            node = self._shards.node(self._shards.shard_of(one.name).primary)
        except UnavailableError:
            return False
        if not node.usable or one.nbytes > _SMALL_BYTES:
            return False
        needed = self._redundancy.needed(node.name)
        data = one.small_command() + _encoded_wait(needed)
        stored = b":%d\r\n:%d\r\n" % (_STORED, needed)
        with QuickRound([node], self._shards.monotonic) as round_:
            if not round_.run_ids:
                return False
            limit = WAIT_SECONDS + node.latency.patience_seconds
            try:
                round_.send([data], 2)
                (reply,) = round_.receive([exactly(stored)], seconds=limit)
            except UnavailableError:
                one.in_doubt = True  # It may have been sent.
                return False
        became, copies = reply if isinstance(reply, list) else (_STORED, needed)
        if isinstance(became, ReplyError):
            return False  # A node that refuses has changed nothing.
        outcome = self._outcome(one, became, node.name, copies)
        if outcome is not None:
            results[one.name] = outcome
        return outcome is not None

    def _send_all(
        self,
        pending: Mapping[bytes, _PendingWrite],
        results: dict[bytes, WrittenRegister | Exception],
    ) -> bool:
        """Send all writes, add the outcomes to `results`, and return whether none failed."""
        try:
            served = group_by_shard(self._shards.slot_map, list(pending))
        except UnavailableError as error:
            for one in pending.values():
                one.reason = str(error)
            return False
        sound = True
        queues = {shard: deque(pending[name] for name in names) for shard, names in served.items()}
        while queues:
            waves = {shard: _wave(queue) for shard, queue in queues.items()}
            queues = {shard: queue for shard, queue in queues.items() if queue}
            sound = self._send_waves(waves, results) and sound
        return sound

    def _send_waves(
        self,
        waves: Mapping[Shard, list[_PendingWrite]],
        results: dict[bytes, WrittenRegister | Exception],
    ) -> bool:
        count = max(map(len, waves.values()))
        nbytes = sum(one.nbytes for wave in waves.values() for one in wave)
        began = self._shards.monotonic()
        sound = True
        with RequestRound(self._shards.monotonic) as round_:
            unanswered = {id(wave): wave for wave in waves.values()}
            for shard, wave in waves.items():
                if not self._ask(round_, shard, wave):
                    unanswered.pop(id(wave))
                    sound = False
            end = began + round_.patience_seconds + allowance(count, nbytes)
            while unanswered and (requests := round_.wait(end - self._shards.monotonic())):
                for request in requests:
                    unanswered.pop(id(request.tag))
                    sound = self._record(request, results) and sound
            for wave in unanswered.values():
                _mark_in_doubt(wave, "the primary does not answer in time")
        return sound and not unanswered

    def _ask(self, round_: RequestRound, shard: Shard, wave: list[_PendingWrite]) -> bool:
        node = self._shards.node(shard.primary)
        if not (node.usable or node.due):
            for one in wave:
                one.reason = f"{node.name}: {node.last_error}"
            return False
        commands = [*(one.command for one in wave), wait_command(self._redundancy, node.name)]
        round_.ask(node, commands, wave)
        return True

    def _record(
        self, request: NodeRequest, results: dict[bytes, WrittenRegister | Exception]
    ) -> bool:
        """Record the answer of one primary, and return whether no write must be sent again."""
        wave: list[_PendingWrite] = request.tag
        if request.error is not None:
            if request.connection is None:
                for one in wave:
                    one.reason = str(request.error)
            else:
                _mark_in_doubt(wave, str(request.error))
            return False
        *replies, copies = request.replies
        sound = True
        enough = isinstance(copies, int) and copies >= self._redundancy.wanted
        for one, reply in zip(wave, replies, strict=True):
            if enough and reply == _STORED:
                results[one.name] = WrittenRegister(one.version, one.replaced)
                continue
            node = request.node
            if isinstance(reply, ReplyError) and reply.code == "ASK":
                node = self._shards.node_asked_for(reply)
                wait = wait_command(self._redundancy, node.name)
                reply, copies = ask_redirected(node, one.command, wait)
                if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT":
                    ask_redirected(node, ("SCRIPT", "LOAD", scripts.SLOT_STORE.source))
                    reply, copies = ask_redirected(node, one.command, wait)
            if isinstance(reply, ReplyError) and _is_retryable(reply):
                self._record_retryable(request, one, reply)
                sound = False
                continue
            outcome = self._outcome(one, reply, node.name, copies)
            if outcome is not None:
                results[one.name] = outcome
            elif one.in_doubt:
                sound = False  # A replica may yet confirm it: wait, and send it again.
        return sound

    def _record_retryable(
        self, request: NodeRequest, one: _PendingWrite, error: ReplyError
    ) -> None:
        one.reason = str(error)
        if error.code == "MOVED":
            self._shards.apply_moved(one.name, error)
        elif error.code == "NOSCRIPT" and request.connection is not None:
            request.node.forget_scripts(request.connection)

    def _outcome(
        self, one: _PendingWrite, reply: Any, primary: str, copies: Any
    ) -> WrittenRegister | Exception | None:
        """Return the outcome of a write; None if it must be sent again with a newer version."""
        if isinstance(reply, Exception):
            one.reason = str(reply)
            one.in_doubt = one.in_doubt or isinstance(reply, UnavailableError)
            return one.error()
        became, known = (b"done", None) if reply == _STORED else reply
        try:
            before = read_copy(one.name, known, whole=False)
        except CorruptDataError:
            before = RegisterCopy(None, None, None)
            if became != b"done":
                became, copies = self._replace_damaged(one)
        if became == b"done":
            return self._confirmed(one, before, primary, copies)
        if one.in_doubt:
            one.reason = "another write came in between, and the first answer was lost"
            return one.error()
        if became == b"conflict":
            absent = before.header is None or before.header.kind is RegisterKind.TOMBSTONE
            at = 0 if absent else before.version.counter
            return ConflictError(
                f"{key_text(one.name)} is at version {at}, not at {one.if_version}; nothing was "
                "stored"
            )
        one.version = self._versions.successor(before.version)
        return None

    def _confirmed(
        self, one: _PendingWrite, before: RegisterCopy, primary: str, copies: Any
    ) -> WrittenRegister | Exception | None:
        has = copies if isinstance(copies, int) else 0
        if before.version != one.version:
            one.replaced = before.upload
        if not self._redundancy.accepts(primary, has):
            one.in_doubt = True
            one.reason = (
                f"the primary has it, and {has} of the {self._redundancy.wanted} replicas needed "
                f"confirmed it within {WAIT_SECONDS:g} s; if the primary fails now, it is lost"
            )
            now = self._shards.monotonic()
            one.retry_until = one.retry_until or now + self._redundancy.patience_seconds
            return None if now < one.retry_until else one.error()
        return WrittenRegister(one.version, one.replaced)

    def _replace_damaged(self, one: _PendingWrite) -> tuple[bytes, int]:
        """Replace a damaged register, whose version cannot be compared.

        Returns the outcome, and how many replicas have confirmed it.
        """
        node = self._shards.node(self._shards.shard_of(one.name).primary)
        try:
            with node.acquire() as connection:  # WAIT counts the writes of its own connection.
                there = connection.call("GET", one.name) or b""
                done = replace_copy(connection, one.name, there, one.register)
                copies = connection.call(*wait_command(self._redundancy, node.name))
        except (UnavailableError, ReplyError) as error:
            one.reason = str(error)
            one.in_doubt = True
            return b"failed", 0
        return b"done" if done else b"older", copies


def wait_command(redundancy: Redundancy, primary: str) -> Command:
    """Return the command that waits until the replicas of a primary have what it was sent."""
    return _wait_for(redundancy.needed(primary))


def _wait_for(replicas: int) -> Command:
    return ("WAIT", replicas, int(WAIT_SECONDS * 1000))


@lru_cache
def _encoded_wait(replicas: int) -> bytes:
    return b"".join(map(bytes, encode([_wait_for(replicas)])))


def _wave(queue: deque[_PendingWrite]) -> list[_PendingWrite]:
    """Remove from a queue, and return, the writes that are sent at once."""
    wave: list[_PendingWrite] = []
    nbytes = 0
    while queue and len(wave) < _WAVE_WRITES and (not wave or nbytes < _WAVE_BYTES):
        wave.append(queue.popleft())
        nbytes += wave[-1].nbytes
    return wave


def _is_retryable(error: ReplyError) -> bool:
    """Return whether the write may succeed after a refresh; the node has changed nothing."""
    # The second condition: a primary that came back as a replica refuses the write in a script.
    return error.code in _LATER or "non local key" in error.text


def _mark_in_doubt(wave: Iterable[_PendingWrite], reason: str) -> None:
    for one in wave:
        one.in_doubt = True
        one.reason = reason
