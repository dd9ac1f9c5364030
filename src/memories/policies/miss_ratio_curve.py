"""Miss-ratio curves from a sample of the accesses (SHARDS: Waldspurger et al., FAST 2015).

https://www.usenix.org/conference/fast15/technical-sessions/presentation/waldspurger

The reuse distance of an access is the number of bytes of all other keys that were accessed since
the previous access to its key: the access hits in any LRU cache that is larger. The paper's names:
a key is sampled if hash(key) mod P < T, where T is `_below` here; R = T / P is `rate`; with a fixed
size of the sample (`s_max`, here `sampled_keys`), T falls to the highest hash in the sample.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from memories.policies.hashing import digest

_FULL = 1 << 64
_STEPS = 16  # Buckets in every doubling of the distance.


class MissRatioCurve(NamedTuple):
    """Miss ratio by capacity; between two points the smaller capacity's holds."""

    capacities: tuple[float, ...]  # Bytes, rising, from 0.
    ratios: tuple[float, ...]  # Falling.

    def miss_ratio(self, capacity_bytes: float) -> float:
        """Return the share of accesses that miss with so many bytes."""
        return self.ratios[max(bisect_right(self.capacities, capacity_bytes) - 1, 0)]

    def gain(self, capacity_bytes: float, more_bytes: float) -> float:
        """Return by how much the hit rate rises with `more_bytes` on top, from 0 to 1."""
        return self.miss_ratio(capacity_bytes) - self.miss_ratio(capacity_bytes + more_bytes)


class ReuseDistanceSampler:
    """Measures reuse distances of a bounded sample of keys; the caller serialises the calls.

    A sampled access costs tens of microseconds, any other one a hash. Memory: about 300 bytes for
    each of `sampled_keys` keys. First accesses are not counted as misses, since they are stores.
    """

    def __init__(self, *, sampled_keys: int = 4096) -> None:
        self._most = sampled_keys
        self._below = _FULL
        self._latest: dict[int, tuple[int, int]] = {}  # Digest -> (slot of latest access, size).
        self._highest: list[int] = []  # Heap of negated digests: the sample shrinks from the top.
        self._sums = _SlotSums(4 * sampled_keys)
        self._next_slot = 0
        self._weights: dict[int, float] = {}  # Bucket of the distance -> accesses.
        self._accesses = 0.0

    @property
    def rate(self) -> float:
        """The share of the keys that is sampled now."""
        return self._below / _FULL

    @property
    def limit(self) -> int:
        """The digests below it are in the sample; it may fall, and never rises."""
        return self._below

    def samples(self, key: str) -> bool:
        """Return whether `key` is in the sample."""
        return self.samples_digest(digest(key))

    def samples_digest(self, bits: int) -> bool:
        """Return whether the key with the digest `bits` is in the sample."""
        return bits < self._below

    def halve(self) -> None:
        """Halve the sample, for accesses that come faster than they can be processed."""
        for _ in range(len(self._latest) // 2):
            self._drop_highest()

    def observe(self, key: str, size: int, *, counts: bool = True) -> None:
        """Record an access to `key`, of `size` bytes.

        With `counts=False` the access was a store: it adds to the distances of later reads, but its
        own distance is not counted.
        """
        self.observe_digest(digest(key), size, counts=counts)

    def observe_digest(self, bits: int, size: int, *, counts: bool) -> None:
        """Record an access to the key with the digest `bits`."""
        if not self.samples_digest(bits):
            return
        if self._next_slot == self._sums.slots:
            self._compact()
        found = self._latest.pop(bits, None)
        if found is None:
            heapq.heappush(self._highest, -bits)
        else:
            if counts:
                self._count(found)
            self._sums.add(found[0], -found[1])
        self._latest[bits] = (self._next_slot, size)
        self._sums.add(self._next_slot, size)
        self._next_slot += 1
        while len(self._latest) > self._most:
            self._drop_highest()

    def _count(self, found: tuple[int, int]) -> None:
        slot, size = found
        nearer = self._sums.total - self._sums.up_to(slot)
        distance = nearer / self.rate + size
        bucket = math.ceil(math.log2(distance) * _STEPS)
        self._weights[bucket] = self._weights.get(bucket, 0.0) + 1 / self.rate
        self._accesses += 1 / self.rate

    def _drop_highest(self) -> None:
        """Lower the threshold of the sample to its highest digest, which leaves it."""
        bits = -heapq.heappop(self._highest)
        slot, size = self._latest.pop(bits)
        self._sums.add(slot, -size)
        self._below = bits

    def _compact(self) -> None:
        """Renumber the slots, without those of accesses that are not the latest of their key."""
        self._sums = _SlotSums(self._sums.slots)
        for slot, (bits, (_, size)) in enumerate(list(self._latest.items())):
            self._latest[bits] = (slot, size)
            self._sums.add(slot, size)
        self._next_slot = len(self._latest)

    def curve(self, accesses: float = 0.0) -> MissRatioCurve:
        """Return the miss ratio of repeated accesses for every capacity.

        If `accesses`, the real number of accesses, exceeds the number that the sample stands for,
        the difference is counted at distance 0 (SHARDS-adj in the paper): the few busiest keys are
        seldom in a sample, and their accesses are seldom reported.
        """
        missing = max(0.0, accesses - self._accesses)
        total = self._accesses + missing
        if not total:
            return MissRatioCurve((0.0,), (1.0,))
        buckets = sorted(self._weights)
        hits = accumulate((self._weights[bucket] for bucket in buckets), initial=missing)
        capacities = [2.0 ** (bucket / _STEPS) for bucket in buckets]
        # Accesses at distance 0 hit with any capacity, also with one below that of all others.
        capacities.insert(0, capacities[0] / 2 if capacities else 1.0)
        ratios = [max(0.0, 1 - hit / total) for hit in hits]
        return MissRatioCurve((0.0, *capacities), (1.0, *ratios))

    def check(self) -> None:
        """Assert that the sample, its slots and its sums agree."""
        assert len(self._latest) == len(self._highest) <= self._most
        assert all(bits < self._below or self._below == _FULL for bits in self._latest)
        slots = [slot for slot, _ in self._latest.values()]
        assert slots == sorted(slots)
        assert self._sums.total == sum(size for _, size in self._latest.values())


class _SlotSums:
    """Sums over a prefix of numbered slots, in logarithmic time (Fenwick 1994)."""

    __slots__ = ("_tree", "slots", "total")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.total = 0
        self._tree: list[int] = [0] * (slots + 1)

    def add(self, slot: int, amount: int) -> None:
        self.total += amount
        at = slot + 1
        while at <= self.slots:
            self._tree[at] += amount
            at += at & -at

    def up_to(self, slot: int) -> int:
        """Return the sum of the slots from 0 to `slot`."""
        at, total = slot + 1, 0
        while at:
            total += self._tree[at]
            at -= at & -at
        return total


def miss_ratio_curve(
    keys: Sequence[str], sizes: Sequence[int], *, sampled_keys: int = 4096
) -> MissRatioCurve:
    """Return the curve of a whole trace."""
    distances = ReuseDistanceSampler(sampled_keys=sampled_keys)
    for key, size in zip(keys, sizes, strict=True):
        distances.observe(key, size)
    return distances.curve()
