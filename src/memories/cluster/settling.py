"""Lets deleted and expired values vanish from the nodes by themselves.

A register that is gone no longer stops an older version from coming back. So all nodes of a key
must have its tombstone first. Then the servers remove it themselves, after a time in which no write
that began before it can still arrive.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from memories.cluster.client.node import Node
from memories.cluster.client.scripts import Script
from memories.cluster.limits import BATCH
from memories.cluster.register_format import RegisterKind, pack_register
from memories.cluster.versions import RegisterVersion

RETAIN_SECONDS = 300.0  # Longer than the kernel of a writer sends what a node did not take.
_MOST_WAITING = 100_000  # What is beyond is left to a repair.
_RETRY_SECONDS = 5.0

# KEYS: a register. ARGV: its tombstone. Replies 0 if the register has a newer version.
_BURY = """
local known = redis.call('GETRANGE', KEYS[1], 0, 32)
local version = string.sub(known, 1, 32)
local mine = string.sub(ARGV[1], 1, 32)
if version > mine then
  return 0
end
if version ~= mine or string.sub(known, 33, 33) ~= 't' then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
"""
# KEYS: a register. ARGV: the version of its tombstone, milliseconds.
_VANISH = """
if redis.call('GETRANGE', KEYS[1], 0, 31) == ARGV[1] and redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
"""


class Ended(NamedTuple):
    """The end of a value: the version of its tombstone, and the time from which it is right."""

    version: RegisterVersion
    at: float  # Seconds since the epoch.


# Lets registers vanish as far as that is safe now, and returns the names that are done.
Settle = Callable[[Mapping[bytes, RegisterVersion]], set[bytes]]


class Settling:
    """The registers that are to vanish, as far as this manager knows. Safe for many threads."""

    def __init__(
        self, settle: Settle, monotonic: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._settle = settle
        self._monotonic = monotonic
        self._wall = wall
        self._waiting: dict[bytes, Ended] = {}
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._again_at = 0.0

    def __len__(self) -> int:
        """Return how many registers wait."""
        return len(self._waiting)

    @property
    def due(self) -> bool:
        """Return whether a turn may have something to do."""
        return bool(self._waiting) and self._monotonic() >= self._again_at

    def deleted(self, name: bytes, version: RegisterVersion) -> None:
        """Note the tombstone of a deleted value, which enough nodes have."""
        self._add(name, Ended(version, 0.0))

    def expires(self, name: bytes, version: RegisterVersion, expires_ms: int) -> None:
        """Note that a value is to get a tombstone when it has expired.

        The version of that tombstone is above that of the value, and below that of any later one.
        """
        tombstone = RegisterVersion(version.counter, version.client + 1)
        self._add(name, Ended(tombstone, expires_ms / 1000))

    def run(self) -> None:
        """Settle what is due, unless another thread does; what cannot be settled stays."""
        if not self._running.acquire(blocking=False):
            return
        try:
            self._again_at = self._monotonic() + _RETRY_SECONDS
            while batch := self._next_batch():
                done = self._settle({name: one.version for name, one in batch.items()})
                with self._lock:
                    for name in done:
                        if self._waiting.get(name) == batch[name]:
                            del self._waiting[name]
                if len(done) < len(batch):
                    return
        finally:
            self._running.release()

    def _add(self, name: bytes, ended: Ended) -> None:
        with self._lock:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[name] = ended

    def _next_batch(self) -> dict[bytes, Ended]:
        now = self._wall()
        with self._lock:
            due = ((name, one) for name, one in self._waiting.items() if one.at <= now)
            return dict(islice(due, BATCH))


def bury(node: Node, ended: Mapping[bytes, RegisterVersion]) -> dict[bytes, bool]:
    """Store the tombstones on a node; return for each whether nothing newer is there.

    Raises:
        UnavailableError: the node did not answer.
        ReplyError: it refused one.
    """
    calls = [(name, _tombstone(name, version)) for name, version in ended.items()]
    return dict(zip(ended, map(bool, _run(node, _BURY, calls)), strict=True))


def vanish(node: Node, ended: Mapping[bytes, RegisterVersion]) -> None:
    """Let a node remove these tombstones after a while; raises like `bury`."""
    milliseconds = int(RETAIN_SECONDS * 1000)
    _run(node, _VANISH, [(name, version.text, milliseconds) for name, version in ended.items()])


def _tombstone(name: bytes, version: RegisterVersion) -> bytes:
    return b"".join(pack_register(name, version, RegisterKind.TOMBSTONE))


def _run(node: Node, source: str, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Run a script on a node for each register, by one pipeline."""
    script = Script(source, hashlib.sha1(source.encode()).hexdigest())
    node.call("SCRIPT", "LOAD", source)
    return node.pipeline([script.call([name], *args) for name, *args in calls], strict=True)
