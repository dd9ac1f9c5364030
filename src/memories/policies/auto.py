"""The default policy: use the candidate with the fewest misses in a miniature simulation.

Each candidate runs in a shadow cache that gets the accesses to a sample of the keys. The nodes of
the tier are in one candidate at a time, and move to another once its lead is significant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from memories.policies.base import Policy, PolicyNode
from memories.policies.gdsf import GdsfPolicy
from memories.policies.hashing import EVERY_DIGEST, digest, short_name
from memories.policies.lru import LruPolicy
from memories.policies.mq import MqPolicy
from memories.policies.policy_selector import PolicySelector
from memories.policies.s3fifo import S3FifoPolicy
from memories.policies.shadow_cache import ShadowCache

_SAMPLE = 1024  # Keys in each shadow cache, about.
_NEWCOMER = 0.25  # In GDSF; 1 closes a seventeenth less of the gap to the bound on web and disks.
_BATCH = 64  # Accesses that one call of `process_observed` replays.
_BACKLOG = 2048  # Queued accesses beyond which an eviction replays some.
_HANDED_OVER = 64  # Nodes that move to the new policy with every eviction after a switch.
_MOST_KEYS = 4  # In a shadow cache, whatever the sizes of values, as a multiple of the sample.

Candidate = Callable[[int], Policy]


class AutoPolicy(Policy):
    """Follows the best of several policies.

    A hit of a sampled key should be reported through `observe`, before the next eviction; the
    others need not be. With up to about a thousand nodes every key is sampled, beyond that the
    sample keeps its size. Memory: a few hundred bytes for each sampled key, at most four times
    `sample` of them, and nothing of keys that were removed. Every miss counts the
    same: with the measured time of a fetch as its cost it saved no time, but missed more.

    Args:
        capacity: Bytes of the tier.
        candidates: Makers of the policies to choose from, the one to start with first.
        sample: About how many keys each shadow cache holds.
    """

    name: ClassVar[str] = "auto"
    patient: ClassVar[bool] = True

    def __init__(
        self,
        capacity: int,
        *,
        candidates: Sequence[Candidate] | None = None,
        sample: int = _SAMPLE,
    ) -> None:
        super().__init__(capacity)
        self._makers = candidates or _STANDARD
        self._sample = sample
        self._below = EVERY_DIGEST  # The sample has the keys with a lower digest.
        self._clock = 0
        self._pending: deque[tuple[str, int, int]] = deque(maxlen=2 * _BACKLOG)
        self._observed = 0  # How many accesses were queued so far.
        self._removed: dict[int, int] = {}  # Digest of a removed key -> accesses queued before it.
        self._shadows = [ShadowCache(make(capacity)) for make in self._makers]
        self._selector = PolicySelector(len(self._shadows))
        self._current = self._makers[0](capacity)
        self._previous: Policy | None = None
        self._moved: set[PolicyNode] = set()  # During a switch: the nodes in `_current`.
        self._admitted: str | None = None

    @property
    def following(self) -> str:
        """Return the name of the candidate that is used now."""
        return self._current.name

    def samples(self, key: str) -> bool:
        """Return whether the hits of `key` should be reported."""
        return self._below == EVERY_DIGEST or digest(key) < self._below

    def observe(self, accesses: Iterable[tuple[str, int]]) -> None:
        """Queue the sampled ones of these accesses for `process_observed`."""
        for key, size in accesses:
            bits = digest(key)
            if bits < self._below:
                self._pending.append((short_name(key, bits), bits, size))
                self._observed += 1

    def forget(self, key: str) -> None:
        """Delete a removed key from the shadow caches, and its queued accesses."""
        bits = digest(key)
        self._current.forget(key)
        if self._previous is not None:
            self._previous.forget(key)
        if bits >= self._below or not self._observed:
            return
        for shadow in self._shadows:
            shadow.forget(short_name(key, bits), bits)
        if self._pending:
            self._removed[bits] = self._observed
        if len(self._removed) > _BACKLOG:
            # Nothing was processed for long: accesses may be lost, but no keys may be kept.
            self._pending.clear()
            self._removed.clear()

    def process_observed(self) -> bool:
        """Replay some queued accesses in the shadow caches, and switch to a better candidate."""
        for _ in range(min(len(self._pending), _BATCH)):
            number = self._observed - len(self._pending)
            key, bits, size = self._pending.popleft()
            if bits < self._below and self._removed.get(bits, 0) <= number:
                try:
                    self._replay(key, bits, size)
                except BaseException:
                    self._start_over()
                    raise
        if not self._pending:
            self._removed.clear()
        return bool(self._pending)

    def _start_over(self) -> None:
        """Start the comparison again: a shadow cache that was interrupted may be inconsistent."""
        followed = self._selector.followed
        self._shadows = [ShadowCache(make(self.capacity)) for make in self._makers]
        self._selector = PolicySelector(len(self._shadows))
        self._selector.followed = self._selector.leader = followed
        self._set_sample(self._below)

    def _replay(self, key: str, bits: int, size: int) -> None:
        self._clock += 1
        stamp = self._clock
        missed = [not shadow.access(key, bits, size, stamp) for shadow in self._shadows]
        if True in missed and max(map(len, self._shadows)) > _MOST_KEYS * self._sample:
            self._set_sample(self._below // 2)
        if self._selector.record(missed):
            self._follow(self._selector.leader)

    def admit(self, node: PolicyNode) -> bool:
        """Ask the candidate that is used now."""
        self.observe([(node.key, node.size)])
        self._admitted = node.key
        return self._current.admit(node)

    def insert(self, node: PolicyNode) -> None:
        """Add a node; its arrival is an access."""
        if self._admitted != node.key:
            self.observe([(node.key, node.size)])
        self._admitted = None
        self._entered(node)
        self._current.insert(node)

    def expect(
        self, nodes: Sequence[PolicyNode], digests: Sequence[int], total: int
    ) -> Sequence[PolicyNode]:
        """Queue the arrivals of sampled keys; return the nodes of these."""
        self._admitted = None
        below = self._below
        if below == EVERY_DIGEST:
            sampled = list(zip(nodes, digests, strict=True))
        else:
            sampled = [
                (node, bits) for node, bits in zip(nodes, digests, strict=True) if bits < below
            ]
        self._pending.extend(
            (short_name(node.key, bits), bits, node.size) for node, bits in sampled
        )
        self._observed += len(sampled)
        while self._previous is None and total * self._below > 2 * self._sample * EVERY_DIGEST:
            self._set_sample(self._below // 2)
        return [node for node, bits in sampled if bits < self._below]

    def insert_expected(self, node: PolicyNode) -> None:
        """Add a node whose arrival is queued already."""
        if self._previous is not None:
            self._moved.add(node)
        self._current.insert(node)

    def skip(self, key: str) -> None:
        """Tell the candidate that is used now."""
        self._current.skip(key)

    def remembers(self) -> bool:
        """Ask the candidate that is used now."""
        return self._current.remembers()

    def insert_without_access(self, node: PolicyNode) -> None:
        """Add a node whose arrival is not an access, such as a demotion from the tier above."""
        self._entered(node)
        self._current.insert_without_access(node)

    def _entered(self, node: PolicyNode) -> None:
        if self._previous is not None:
            self._moved.add(node)
        elif len(self) * self._below > 2 * self._sample * EVERY_DIGEST:
            self._set_sample(self._below // 2)

    def remove(self, node: PolicyNode) -> None:
        """Remove a node."""
        if self._previous is None:
            self._current.remove(node)
        elif node in self._moved:
            self._moved.remove(node)
            self._current.remove(node)
        else:
            self._previous.remove(node)

    def evict(self) -> PolicyNode | None:
        """Remove and return the victim of the candidate that is used now."""
        if len(self._pending) >= _BACKLOG:
            self.process_observed()
        if self._previous is not None:
            self._hand_over(self._previous)
        node = self._current.evict()
        if node is not None:
            self._moved.discard(node)
        return node

    def _follow(self, leader: int) -> None:
        """Switch to another candidate, unless the latest switch is still in progress."""
        if self._previous is not None:
            return
        next_ = self._makers[leader](self.capacity)
        self._selector.followed = leader
        self._previous, self._current = self._current, next_
        self._hand_over(self._previous)

    def _hand_over(self, former: Policy) -> None:
        """Move some nodes to the new policy, the first victims first, to keep each call short."""
        for _ in range(_HANDED_OVER):
            node = former.evict()
            if node is None:
                self._previous = None
                self._moved = set()
                return
            self._moved.add(node)
            self._current.insert_without_access(node)

    def resize(self, capacity: int) -> None:
        """Set the capacity of the tier, its candidates and their shadow caches."""
        super().resize(capacity)
        self._current.resize(capacity)
        if self._previous is not None:
            self._previous.resize(capacity)
        self._set_sample(self._below)

    def _set_sample(self, below: int) -> None:
        self._below = below
        for shadow in self._shadows:
            shadow.resize(self.capacity * below // EVERY_DIGEST, below)

    def __len__(self) -> int:
        former = 0 if self._previous is None else len(self._previous)
        return len(self._current) + former

    def check(self) -> None:
        """Assert that everything inside is sound."""
        self._current.check()
        if self._previous is not None:
            self._previous.check()
            assert len(self._moved) == len(self._current)
        for shadow in self._shadows:
            shadow.check()


def _gdsf(capacity: int) -> Policy:
    return GdsfPolicy(capacity, newcomer=_NEWCOMER)


_STANDARD: tuple[Candidate, ...] = (_gdsf, S3FifoPolicy, LruPolicy, MqPolicy)
