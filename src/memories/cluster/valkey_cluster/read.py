"""Reads registers of a Cluster: from the primary of their slot, or its replicas when it fails.

An acknowledged write is on the primary and on at least `copies - 1` replicas. So any set of all
replicas but `copies - 2` includes one that has it. Reads are not linearizable while a primary fails
during a write; docs/distributed.md describes the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memories.cluster.client.fanout import NodeRequest, RequestRound
from memories.cluster.client.node import Node, parse_info
from memories.cluster.client.quick_round import QuickRound
from memories.cluster.client.resp import Command, ReplyError, encode
from memories.cluster.limits import allowance
from memories.cluster.reasons import join_reasons
from memories.cluster.register_copy import RegisterCopy, read_copy
from memories.cluster.register_format import PEEK_BYTES, key_text
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.slots import Shard, group_by_shard
from memories.errors import CorruptDataError, MemoriesError, UnavailableError

READ_SECONDS = 5.0  # Longer than a failover takes with usual settings.
_PAUSE_SECONDS = 0.05
NOT_ANSWERED = "no node of its slot answers"
NOT_PRIMARY = "the node is not a primary any more"
NOT_COPIED = "the node restarted, and has not copied its primary yet"
# What a replica says before its first copy is complete: its offset, and in newer versions, since
# when it has lost its primary. An offset may also be of its time as a primary, or of its disk.
_NEVER_SYNCED = frozenset({"0", "1"})
_NEVER_CONNECTED = "-1"


class _ShardRead:
    """A read of registers of one shard, and the replies of its nodes."""

    def __init__(self, shard: Shard, names: Sequence[bytes], shards: Shards) -> None:
        self.shard = shard
        self.names = names
        self.needed = len(shard.replicas) - (shards.copies - 1) + 1
        self._is_primary = shards.topology.is_primary
        self.asked: set[str] = set()
        self.replies: dict[bytes, dict[str, RegisterCopy]] = {name: {} for name in names}
        self.damaged: dict[bytes, set[str]] = {name: set() for name in names}
        self.reasons: dict[str, str] = {}

    def record(self, request: NodeRequest, whole: bool) -> list[tuple[bytes, ReplyError]]:
        """Record the answer of a node, and return the names that it refused, with the errors."""
        node = request.node.name
        if request.error is not None:
            self.reasons[node] = str(request.error)
            return []
        about, *replies = request.replies
        if node == self.shard.primary:
            if not self._is_primary(about):
                self.reasons[node] = NOT_PRIMARY
                return []
            replies.pop()
        elif isinstance(about, ReplyError) or not has_copy(about):
            self.reasons[node] = NOT_COPIED
            return []
        refused: list[tuple[bytes, ReplyError]] = []
        for name, reply in zip(self.names, replies, strict=True):
            if isinstance(reply, ReplyError):
                self.reasons[node] = str(reply)
                refused.append((name, reply))
            else:
                self.record_register(name, node, reply, whole)
        return refused

    def record_register(self, name: bytes, node: str, reply: bytes | None, whole: bool) -> None:
        """Record the copy of one register on one node."""
        try:
            self.replies[name][node] = read_copy(name, reply, whole=whole)
        except CorruptDataError:
            self.damaged[name].add(node)

    def newest(self, name: bytes) -> RegisterCopy | None:
        """Return the newest copy of a register; None while too few nodes have answered."""
        replies = self.replies[name]
        if self.shard.primary in replies:
            return replies[self.shard.primary]
        if not replies or len(replies) < self.needed:
            return None
        return max(replies.values(), key=lambda copy: copy.version)

    @property
    def complete(self) -> bool:
        """Return whether the newest copy of every register is known."""
        return all(self.newest(name) is not None for name in self.names)


class ClusterRead:
    """Reads registers from the nodes that serve them, and follows redirections."""

    def __init__(self, shards: Shards, pause: Callable[[float], bool]) -> None:
        self._shards = shards
        self._pause = pause

    def read(
        self, names: Sequence[bytes], *, whole: bool
    ) -> dict[bytes, RegisterCopy | MemoriesError]:
        """Return the newest copy of each register, or the error that explains why there is none.

        With `whole` registers are fetched as a whole, else only their beginnings.
        """
        results: dict[bytes, RegisterCopy | MemoriesError] = {}
        if len(names) == 1 and (copy := self._read_one(names[0], whole)) is not None:
            return {names[0]: copy}
        pending = list(dict.fromkeys(names))
        end = self._shards.monotonic() + READ_SECONDS
        while pending:
            try:
                groups = self._ask_all(pending, whole)
            except UnavailableError as error:
                failures: dict[bytes, MemoriesError] = dict.fromkeys(pending, error)
            else:
                failures = _collect_results(groups, results)
            damaged = {n for n, error in failures.items() if isinstance(error, CorruptDataError)}
            pending = [name for name in failures if name not in damaged]
            late = self._shards.monotonic() >= end
            results.update({n: failures[n] for n in failures if late or n in damaged})
            if late or not pending or self._pause(_PAUSE_SECONDS):
                results.update({name: failures[name] for name in pending})
                break
            self._shards.refresh()
        return results

    def _read_one(self, name: bytes, whole: bool) -> RegisterCopy | None:
        """Return the copy of one register on its primary; None if anything is unusual."""
        topology = self._shards.topology
        before, after = topology.guard
        data = b"".join(map(bytes, encode([before, _read_command(name, whole), after])))
        try:
            node = self._node(self._shards.shard_of(name).primary)
            if not node.usable:
                return None
            with QuickRound([node], self._shards.monotonic) as round_:
                if not round_.run_ids:
                    return None
                round_.send([data], 3)
                (reply,) = round_.receive([topology.parse_guarded])
        except UnavailableError:
            return None
        if isinstance(reply, list) and not topology.is_primary(reply[0]):
            return None
        value = reply[1] if isinstance(reply, list) else reply
        try:
            return None if isinstance(value, Exception) else read_copy(name, value, whole=whole)
        except CorruptDataError:
            return None

    def _ask_all(self, names: Sequence[bytes], whole: bool) -> list[_ShardRead]:
        served = group_by_shard(self._shards.slot_map, names)
        groups = [_ShardRead(shard, some, self._shards) for shard, some in served.items()]
        slack = allowance(len(names))
        began = self._shards.monotonic()
        with RequestRound(self._shards.monotonic) as round_:
            for group in groups:
                if self._node(group.shard.primary).usable:
                    self._ask(round_, group, [group.shard.primary], whole)
                else:
                    self._ask(round_, group, group.shard.nodes, whole)
            while not all(group.complete for group in groups):
                requests = round_.wait(round_.hedge_seconds + slack)
                for request in requests:
                    self._record(request, whole)
                for group in groups:
                    if not group.complete and (not requests or self._failed(group)):
                        self._ask(round_, group, group.shard.nodes, whole)
                late = self._shards.monotonic() - began > round_.patience_seconds + slack
                if not requests and (late or not round_.waiting):
                    break
        return groups

    def _failed(self, group: _ShardRead) -> bool:
        return group.shard.primary in group.reasons or any(group.damaged.values())

    def _ask(
        self, round_: RequestRound, group: _ShardRead, nodes: Sequence[str], whole: bool
    ) -> None:
        reads: list[Command] = [_read_command(name, whole) for name in group.names]
        if whole:
            reads = [b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(n), n) for n in group.names]
        before, after = self._shards.topology.guard
        of_primary: list[Command] = [before, *reads, after]
        of_replica: list[Command] = [("INFO", "replication"), *reads]
        for name in nodes:
            node = self._node(name)
            if name not in group.asked and (node.usable or node.due):
                group.asked.add(name)
                commands = of_primary if name == group.shard.primary else of_replica
                round_.ask(node, commands, group)

    def _record(self, request: NodeRequest, whole: bool) -> None:
        group: _ShardRead = request.tag
        for name, error in group.record(request, whole):
            if request.node.name != group.shard.primary:
                continue
            if error.code == "MOVED":
                self._shards.apply_moved(name, error)
            elif error.code == "ASK":
                self._follow_ask(group, name, error, whole)

    def _follow_ask(self, group: _ShardRead, name: bytes, error: ReplyError, whole: bool) -> None:
        """Ask the node to which a register is being moved; its reply counts as the primary's."""
        (reply,) = ask_redirected(self._shards.node_asked_for(error), _read_command(name, whole))
        if isinstance(reply, Exception):
            group.reasons[group.shard.primary] = str(reply)
        else:
            group.record_register(name, group.shard.primary, reply, whole)

    def _node(self, name: str) -> Node:
        return self._shards.node(name)


def ask_redirected(node: Node, command: Command, *others: Command) -> list[Any]:
    """Run commands on the node to which the slot of the first is being moved; return the replies.

    Errors are among them.
    """
    try:
        return node.pipeline([("ASKING",), command, *others])[1:]
    except (UnavailableError, ReplyError) as error:
        return [error] * (1 + len(others))


def has_copy(replication: bytes) -> bool:
    """Return whether a node has all that its primary had while they were connected.

    A replica that restarted serves reads before it has copied its primary: it has nothing then, or
    what its disk kept, and may not say that a key is absent.
    """
    info = parse_info(replication)
    if info.get("role") == "master" or info.get("master_link_status") == "up":
        return True
    if info.get("master_sync_in_progress") == "1":
        return False
    connected = info.get("master_link_down_since_seconds") != _NEVER_CONNECTED
    return connected and info.get("slave_repl_offset", "0") not in _NEVER_SYNCED


def _read_command(name: bytes, whole: bool) -> Command:
    return ("GET", name) if whole else ("GETRANGE", name, 0, PEEK_BYTES - 1)


def _collect_results(
    groups: Sequence[_ShardRead], results: dict[bytes, RegisterCopy | MemoriesError]
) -> dict[bytes, MemoriesError]:
    """Add the known copies to `results`, and return the errors of the other registers."""
    failures: dict[bytes, MemoriesError] = {}
    for group in groups:
        for name in group.names:
            copy = group.newest(name)
            if copy is not None:
                results[name] = copy
            elif group.damaged[name]:
                where = ", ".join(sorted(group.damaged[name]))
                failures[name] = CorruptDataError(f"{key_text(name)} is damaged on {where}")
            else:
                reasons = join_reasons(group.reasons, otherwise=NOT_ANSWERED)
                failures[name] = UnavailableError(f"{key_text(name)} cannot be read: {reasons}")
    return failures
