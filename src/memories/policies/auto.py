"""The default: follow whichever candidate misses least in a miniature of this very workload.

No policy of its own. Each candidate runs in a shadow cache that sees a sample of the keys; the
tier's nodes lie in the one that does best, and move to another once it has proved to be better.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from memories.policies.base import Node, Policy
from memories.policies.gdsf import GdsfPolicy
from memories.policies.hashing import digest, name_of
from memories.policies.lru import LruPolicy
from memories.policies.mq import MqPolicy
from memories.policies.policy_selector import Contest
from memories.policies.s3fifo import S3FifoPolicy
from memories.policies.shadow_cache import ShadowCache

_FULL = 1 << 64
_SAMPLE = 1024  # Keys in each shadow cache, about.
_NEWCOMER = 0.25  # In GDSF; 1 closes a seventeenth less of the gap to the bound on web and disks.
_LESSON = 64  # Accesses that are replayed by one call of `learn`.
_BACKLOG = 2048  # Accesses heard that no call of `learn` has replayed; an eviction then does.
_HANDED_OVER = 64  # Nodes that change policy with every eviction after a switch.
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
        self._below = _FULL  # Keys whose digest lies below are in the sample.
        self._clock = 0
        self._heard: deque[tuple[str, int, int]] = deque(maxlen=2 * _BACKLOG)
        self._taken = 0  # How many accesses were heard so far.
        self._gone: dict[int, int] = {}  # Digests of keys removed, and how many were heard by then.
        self._shadows = [ShadowCache(make(capacity)) for make in self._makers]
        self._contest = Contest(len(self._shadows))
        self._current = self._makers[0](capacity)
        self._former: Policy | None = None
        self._arrived: set[Node] = set()  # While nodes are handed over: those not in the former.
        self._counted: str | None = None

    @property
    def following(self) -> str:
        """Return the name of the policy that is followed now."""
        return self._current.name

    def samples(self, key: str) -> bool:
        """Return whether the hits of `key` should be reported."""
        return self._below == _FULL or digest(key) < self._below

    def observe(self, accesses: Iterable[tuple[str, int]]) -> None:
        """Remember the sampled ones of these accesses for `learn`."""
        for key, size in accesses:
            bits = digest(key)
            if bits < self._below:
                self._heard.append((name_of(key, bits), bits, size))
                self._taken += 1

    def forget(self, key: str) -> None:
        """Let no shadow cache hold a key that is in no tier, nor what was heard of it so far."""
        bits = digest(key)
        self._current.forget(key)
        if self._former is not None:
            self._former.forget(key)
        if bits >= self._below:
            return
        for shadow in self._shadows:
            shadow.forget(name_of(key, bits), bits)
        if self._heard:
            self._gone[bits] = self._taken
        if len(self._gone) > _BACKLOG:
            # Nobody has learnt for long. To lose some accesses is allowed, to keep keys is not.
            self._heard.clear()
            self._gone.clear()

    def learn(self) -> bool:
        """Replay some of what was heard in the shadow caches, and follow the best of them."""
        for _ in range(min(len(self._heard), _LESSON)):
            number = self._taken - len(self._heard)
            key, bits, size = self._heard.popleft()
            if bits < self._below and self._gone.get(bits, 0) <= number:
                try:
                    self._replay(key, bits, size)
                except BaseException:
                    self._start_over()
                    raise
        if not self._heard:
            self._gone.clear()
        return bool(self._heard)

    def _start_over(self) -> None:
        """Begin the contest anew: a shadow cache that was left in between would fail for good."""
        followed = self._contest.followed
        self._shadows = [ShadowCache(make(self.capacity)) for make in self._makers]
        self._contest = Contest(len(self._shadows))
        self._contest.followed = self._contest.leader = followed
        self._set_sample(self._below)

    def _replay(self, key: str, bits: int, size: int) -> None:
        self._clock += 1
        stamp = self._clock
        missed = [not shadow.access(key, bits, size, stamp) for shadow in self._shadows]
        if max(map(len, self._shadows)) > _MOST_KEYS * self._sample:
            self._set_sample(self._below // 2)
        if self._contest.judge(missed):
            self._follow(self._contest.leader)

    def admit(self, node: Node) -> bool:
        """Ask the policy that is followed."""
        self.observe([(node.key, node.size)])
        self._counted = node.key
        return self._current.admit(node)

    def insert(self, node: Node) -> None:
        """Add a node; its arrival is an access."""
        if self._counted != node.key:
            self.observe([(node.key, node.size)])
        self._counted = None
        self._take_in(node)
        self._current.insert(node)

    def adopt(self, node: Node) -> None:
        """Add a node whose arrival is no access, such as one that came down from above."""
        self._take_in(node)
        self._current.adopt(node)

    def _take_in(self, node: Node) -> None:
        if self._former is not None:
            self._arrived.add(node)
        elif len(self) * self._below > 2 * self._sample * _FULL:
            self._set_sample(self._below // 2)

    def remove(self, node: Node) -> None:
        """Forget a node."""
        if self._former is None:
            self._current.remove(node)
        elif node in self._arrived:
            self._arrived.remove(node)
            self._current.remove(node)
        else:
            self._former.remove(node)

    def evict(self) -> Node | None:
        """Take out the node that the policy followed would."""
        if len(self._heard) >= _BACKLOG:
            self.learn()
        if self._former is not None:
            self._hand_over(self._former)
        node = self._current.evict()
        if node is not None:
            self._arrived.discard(node)
        return node

    def _follow(self, leader: int) -> None:
        """Change the policy, unless the latest change is still under way."""
        if self._former is not None:
            return
        next_ = self._makers[leader](self.capacity)
        self._contest.followed = leader
        self._former, self._current = self._current, next_
        self._hand_over(self._former)

    def _hand_over(self, former: Policy) -> None:
        """Let some nodes change policy, the least worthy first, so that no call takes long."""
        for _ in range(_HANDED_OVER):
            node = former.evict()
            if node is None:
                self._former = None
                self._arrived = set()
                return
            self._arrived.add(node)
            self._current.adopt(node)

    def resize(self, capacity: int) -> None:
        """Learn that the tier's capacity is now `capacity` bytes."""
        super().resize(capacity)
        self._current.resize(capacity)
        if self._former is not None:
            self._former.resize(capacity)
        self._set_sample(self._below)

    def _set_sample(self, below: int) -> None:
        self._below = below
        for shadow in self._shadows:
            shadow.resize(self.capacity * below // _FULL, below)

    def __len__(self) -> int:
        former = 0 if self._former is None else len(self._former)
        return len(self._current) + former

    def check(self) -> None:
        """Assert that everything inside is sound."""
        self._current.check()
        if self._former is not None:
            self._former.check()
            assert len(self._arrived) == len(self._current)
        for shadow in self._shadows:
            shadow.check()


def _gdsf(capacity: int) -> Policy:
    return GdsfPolicy(capacity, newcomer=_NEWCOMER)


_STANDARD: tuple[Candidate, ...] = (_gdsf, S3FifoPolicy, LruPolicy, MqPolicy)
