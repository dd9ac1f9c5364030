"""Replay recorded accesses through the same policies and predictors that the tiers use.

One tier is simulated: keys and sizes without values, in the order of the trace and without a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from memories.policies.base import Policy
from memories.policies.predictors import Prefetcher
from memories.simulate.traces import Trace

UNREAD_SHARE = 10  # Prefetched values that were not yet read fill at most a tenth of the tier.


@dataclass(slots=True)
class SimulationResult:
    """The counts of a replay. First accesses, which are stores in practice, are counted apart."""

    requests: int = 0
    first_accesses: int = 0
    misses: int = 0  # First accesses included.
    bytes_requested: int = 0
    bytes_missed: int = 0
    bytes_fetched_ahead: int = 0
    evictions: int = 0
    prefetch: dict[str, int] = field(default_factory=dict)

    @property
    def miss_ratio(self) -> float:
        """The share of all requests that missed."""
        return self.misses / self.requests if self.requests else 0.0

    @property
    def byte_miss_ratio(self) -> float:
        """The share of all requested bytes that missed."""
        return self.bytes_missed / self.bytes_requested if self.bytes_requested else 0.0

    @property
    def re_access_miss_ratio(self) -> float:
        """The share of misses among the requests for keys that were requested before."""
        repeated = self.requests - self.first_accesses
        return (self.misses - self.first_accesses) / repeated if repeated else 0.0


class SimulatedEntry:
    """A key in the simulated tier, with the marks that a policy reads."""

    __slots__ = ("hits", "key", "link", "sampled", "size", "stamp", "unread")

    def __init__(self, key: str, size: int, stamp: int, *, sampled: bool, unread: bool) -> None:
        self.key = key
        self.size = size
        self.stamp = stamp
        self.hits = 0
        self.link: Any = None
        self.sampled = sampled  # Its hits are reported to the policy.
        self.unread = unread  # It was prefetched and not requested since.


class Simulator:
    """One tier with a policy, and predictors if wanted; `replay` runs a trace through it."""

    def __init__(self, policy: Policy, prefetcher: Prefetcher | None = None) -> None:
        self.policy = policy
        self.outcome = SimulationResult()
        self._prefetcher = prefetcher
        self._entries: dict[str, SimulatedEntry] = {}
        self._used = 0
        self._now = 0
        self._sizes: dict[str, int] = {}
        self._hits: list[tuple[str, int]] = []

    def replay(self, trace: Trace) -> SimulationResult:
        """Run every access of `trace` and return the counts so far."""
        for key, size in zip(trace.keys, trace.sizes, strict=True):
            self.access(key, size)
        if self._prefetcher is not None:
            self.outcome.prefetch = self._prefetcher.counters._asdict()
        return self.outcome

    def access(self, key: str, size: int) -> bool:
        """Run one access and return whether it hit."""
        self._now += 1
        outcome = self.outcome
        outcome.requests += 1
        outcome.bytes_requested += size
        entry = self._entries.get(key)
        if entry is None:
            self._miss(key, size)
            self._prefetch(key)
            return False
        entry.hits += 1
        entry.stamp = self._now
        if entry.sampled:
            self._hits.append((key, entry.size))
        if entry.unread:
            entry.unread = False
            assert self._prefetcher is not None
            self._prefetcher.record_outcome(key, "used")
            self._prefetch(key)
        return True

    def _miss(self, key: str, size: int) -> None:
        outcome = self.outcome
        outcome.misses += 1
        outcome.bytes_missed += size
        outcome.first_accesses += key not in self._sizes
        self._sizes[key] = size
        self._report_hits()
        if size <= self.policy.capacity:
            entry = self._entry(key, size, unread=False)
            if self._has_room(size) or self.policy.admit(entry):
                self._insert(entry, self.policy.insert)

    def _report_hits(self) -> None:
        if self._hits:
            self.policy.observe(self._hits)
            self._hits = []
        while self.policy.process_observed():
            pass

    def _has_room(self, size: int) -> bool:
        return self._used + size <= self.policy.capacity

    def _entry(self, key: str, size: int, *, unread: bool) -> SimulatedEntry:
        sampled = self.policy.samples(key)
        return SimulatedEntry(key, size, self._now, sampled=sampled, unread=unread)

    def _insert(self, entry: SimulatedEntry, enter: Callable[[SimulatedEntry], None]) -> None:
        while not self._has_room(entry.size):
            self._evict()
        self._entries[entry.key] = entry
        self._used += entry.size
        enter(entry)

    def _evict(self) -> None:
        victim = self.policy.evict()
        assert isinstance(victim, SimulatedEntry), "a tier with bytes in use has a victim"
        del self._entries[victim.key]
        self._used -= victim.size
        self.outcome.evictions += 1
        if victim.unread:
            assert self._prefetcher is not None
            self._prefetcher.record_outcome(victim.key, "wasted")

    def _prefetch(self, key: str) -> None:
        if self._prefetcher is None:
            return
        self._prefetcher.observe(key, self._now)
        for guess in self._prefetcher.propose(key, self._size_if_outside):
            size = self._sizes[guess.key]
            self.outcome.bytes_fetched_ahead += size
            self._report_hits()
            self._insert(
                self._entry(guess.key, size, unread=True), self.policy.insert_without_access
            )

    def _size_if_outside(self, key: str) -> int | None:
        return None if key in self._entries else self._sizes.get(key)

    def check(self) -> None:
        """Assert that policy, entries and bytes agree, and that the capacity is kept."""
        self.policy.check()
        assert len(self.policy) == len(self._entries)
        assert self._used == sum(entry.size for entry in self._entries.values())
        assert self._used <= self.policy.capacity
        if self._prefetcher is not None:
            self._prefetcher.check()


def replay(trace: Trace, policy: Policy, prefetcher: Prefetcher | None = None) -> SimulationResult:
    """Run `trace` through an empty tier of the policy's capacity and return what was counted."""
    return Simulator(policy, prefetcher).replay(trace)
