"""The four tiers without values: replays a trace through the objects that decide in a manager.

One policy of RAM says what enters and what leaves it, the planner which rank an entry has there,
and the promotion gate how cold a key on the disk is and whether one of the archive returns to it.
Sizes are counted, nothing is stored, and the clock is that of the trace and of the reads.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from memories import policies
from memories.backends.base import LARGE_BYTES
from memories.engine.batch_write import MAX_VALUE
from memories.engine.cold_reader import SLOW_BYTES
from memories.engine.cold_victims import POOL, REST, SAMPLE
from memories.migration.key_cursor import KeyCursor
from memories.migration.planner import Planner, TierState
from memories.model.entry import Entry, SharedEntry, common_of
from memories.model.tiers import TierName
from memories.options.migration import MigrationSettings
from memories.policies.promotion_gate import PromotionGate
from memories.simulate.traces import Trace

HOT, WARM, COLD, GLACIER = TierName
EXCHANGE_SHARE = 16  # One part in so many of a tier may be exchanged per turn, as in a manager.
DURABLE_BAND = 0.01
SECONDS = {HOT: 1e-6, WARM: 1e-5, COLD: 1e-3, GLACIER: 0.1}  # What a read takes, unless given.


@dataclass(slots=True)
class TieredResult:
    """Which tier answered the repeated reads, and what that took."""

    reads: Counter[TierName] = field(default_factory=Counter)
    seconds: float = 0.0
    stored_bytes: int = 0  # Asked for, by stores and by reads.
    moved_bytes: int = 0

    def share(self, *names: TierName) -> float:
        """Return the share of the repeated reads that these tiers answered."""
        return sum(self.reads[name] for name in names) / max(self.reads.total(), 1)

    @property
    def seconds_per_read(self) -> float:
        """The mean time of a repeated read."""
        return self.seconds / max(self.reads.total(), 1)

    @property
    def moved(self) -> float:
        """Bytes moved for each byte stored or read."""
        return self.moved_bytes / max(self.stored_bytes, 1)


class _Below(NamedTuple):
    """A key on the disk or in the archive."""

    size: int
    tier: TierName
    archived: bool  # Whether the archive holds it, too.


class _Keys:
    """Keys in no order, of which samples are drawn."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._places: dict[str, int] = {}
        self._chance = random.Random(0)

    def add(self, key: str) -> None:
        self._places[key] = len(self._keys)
        self._keys.append(key)

    def remove(self, key: str) -> None:
        place, last = self._places.pop(key), self._keys.pop()
        if last != key:
            self._keys[place], self._places[last] = last, place

    def sample(self, most: int) -> list[str]:
        return self._chance.sample(self._keys, min(most, len(self._keys)))

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._places


class SimulatedTiers:
    """A manager's tiers as far as keys and sizes go.

    Args:
        capacities: Bytes of hot, warm and cold; the archive holds everything.
        policy: The eviction policy of RAM, by name.
        seconds: What a read of each tier takes.
    """

    def __init__(
        self,
        capacities: Mapping[TierName, int],
        policy: str = "auto",
        *,
        seconds: Mapping[TierName, float] = SECONDS,
    ) -> None:
        self.result = TieredResult()
        self._capacities = dict(capacities)
        self._seconds = seconds
        self._settings = MigrationSettings()
        self._ram = capacities[HOT] + capacities[WARM]
        self._policy = policies.make(policy, self._ram)
        self._gate = PromotionGate()
        self._planner = Planner(promote=True, demote_idle=True)
        self._entries: dict[str, Entry] = {}
        self._below: dict[str, _Below] = {}
        self._used: Counter[TierName] = Counter()
        self._hits: list[tuple[str, int]] = []
        self._waiting: OrderedDict[str, bool] = OrderedDict()  # Reads that wait for a turn.
        self._stamp = 0
        self._times = [0.0]  # By stamp.
        self._now = self._looked_at = 0.0
        self._cursor = KeyCursor(lambda: tuple(self._entries), 0.0)
        self._on_disk = _Keys()
        self._coldest: list[str] = []

    def replay(self, trace: Trace) -> TieredResult:
        """Run every access of `trace`, and return the counts so far."""
        # A trace that follows another one goes on from there.
        earlier = self._now - trace.times[0] if trace.times else 0.0
        for at, key, size in zip(*trace, strict=True):
            self._now = max(self._now + 1e-6, earlier + at)
            self.access(key, size)
            if self._now - self._looked_at >= self._settings.interval_seconds:
                self._looked_at = self._now
                self._turn()
        return self.result

    def access(self, key: str, size: int) -> TierName | None:
        """Run one access; return the tier that answered, None for the first one, a store."""
        self._stamp += 1
        self._times.append(self._now)
        self.result.stored_bytes += size
        entry, below = self._entries.get(key), self._below.get(key)
        if entry is None and below is None:
            self._store(key, size)
            return None
        if entry is not None:
            entry.mark()
            if self._policy.samples(key):
                self._hits.append((key, entry.size))
            tier = entry.tier
        else:
            assert below is not None
            tier = below.tier
            self._read_below(key, below)
        self.result.reads[tier] += 1
        self.result.seconds += self._seconds[tier]
        self._now += self._seconds[tier]
        return tier

    def _store(self, key: str, size: int) -> None:
        if self._admits(key, size, hits=0):
            self._enter(key, size)
        else:
            self._gate.record(key, 0)
            self._write(key, _Below(size, COLD, archived=False))

    def _read_below(self, key: str, below: _Below) -> None:
        room = int(self._settings.high_watermark * self._capacities[COLD]) - self._used[COLD]
        hits = self._gate.touches(key)
        returns = self._gate.touch(key, below.size, room=room)
        least = SLOW_BYTES if below.tier is COLD else 0
        if not least <= below.size < LARGE_BYTES:
            self._waiting.setdefault(key, returns)
        elif self._admits(key, below.size, hits=hits):
            self._promote(key, below)
        elif below.tier is GLACIER and returns:
            self._waiting.setdefault(key, True)

    def _promote(self, key: str, below: _Below) -> None:
        self.result.moved_bytes += below.size
        self._enter(key, below.size)

    def _admits(self, key: str, size: int, *, hits: int) -> bool:
        if size > self._ram:
            return False
        self._learn()
        if self._in_ram + size <= self._ram:
            return True
        node = self._entry(key, size, WARM)
        node.hits = hits
        return self._policy.admit(node)

    def _learn(self) -> None:
        if self._hits:
            self._policy.observe(self._hits)
            self._hits = []

    @property
    def _in_ram(self) -> int:
        return self._used[HOT] + self._used[WARM]

    def _entry(self, key: str, size: int, tier: TierName) -> Entry:
        common = common_of(tier, lambda: self._stamp)
        return SharedEntry(key, 1, None, size, 0.0, common, self._stamp)

    def _enter(self, key: str, size: int) -> None:
        while self._in_ram + size > self._ram:
            self._evict()
        tier = HOT if self._used[HOT] + size <= self._capacities[HOT] else WARM
        entry = self._entry(key, size, tier)
        self._entries[key] = entry
        self._used[tier] += size
        self._policy.insert(entry)

    def _evict(self) -> None:
        """Move what the policy chooses to the disk, where it may lie already."""
        victim = self._policy.evict()
        assert isinstance(victim, Entry), "RAM with bytes in use has a victim"
        del self._entries[victim.key]
        self._used[victim.tier] -= victim.size
        below = self._below.get(victim.key)
        if below is None or below.tier is GLACIER:
            self.result.moved_bytes += victim.size
            self._write(victim.key, _Below(victim.size, COLD, archived=below is not None))
        self._gate.record(victim.key, victim.hits)

    def _write(self, key: str, below: _Below) -> None:
        """Put a key on the disk, from which the coldest leave for it."""
        if below.size > self._capacities[COLD]:
            self._below[key] = below._replace(tier=GLACIER, archived=True)
            return
        while self._used[COLD] + below.size > self._capacities[COLD]:
            self._evict_coldest()
        self._below[key] = below
        self._on_disk.add(key)
        self._used[COLD] += below.size

    def _evict_coldest(self) -> None:
        while True:
            if len(self._coldest) <= REST:
                self._sample()
            key = self._coldest.pop()
            below = self._below.get(key)
            if below is not None and below.tier is COLD:
                break
        if not below.archived:
            self.result.moved_bytes += below.size
        self._used[COLD] -= below.size
        self._below[key] = below._replace(tier=GLACIER, archived=True)
        self._on_disk.remove(key)

    def _sample(self) -> None:
        """Choose the coldest of a sample and of those that are left of the sample before it."""
        found = {*self._coldest, *self._on_disk.sample(SAMPLE)}
        self._coldest = sorted(found, key=self._coldness)[-POOL:]

    def _coldness(self, key: str) -> tuple[bool, float, str]:
        saved = self._seconds[GLACIER] - self._seconds[COLD]
        coldness = self._gate.coldness_of(key, self._below[key].size, saved, len(self._on_disk))
        return key in self._entries, coldness, key

    def _turn(self) -> None:
        """Do what the migrator does in one turn."""
        self._learn()
        while self._policy.process_observed():
            pass  # A manager does this in the background, too.
        self._rank()
        high, low = self._settings.high_watermark, self._settings.low_watermark
        if self._in_ram > high * self._ram:
            while self._in_ram > low * self._ram:
                self._evict()
        if self._used[COLD] > high * self._capacities[COLD]:
            while self._used[COLD] > max(low, high - DURABLE_BAND) * self._capacities[COLD]:
                self._evict_coldest()
        exchange = self._capacities[WARM] // EXCHANGE_SHARE
        while self._waiting and exchange > 0:
            key, returns = self._waiting.popitem(last=False)
            below = self._below.get(key)
            if below is None or key in self._entries:
                continue
            if self._admits(key, below.size, hits=max(self._gate.touches(key) - 1, 0)):
                if below.size > min(high * self._ram - self._in_ram, MAX_VALUE):
                    exchange -= below.size
                self._promote(key, below)
            elif below.tier is GLACIER and returns:
                exchange -= below.size
                self.result.moved_bytes += below.size
                self._write(key, below._replace(tier=COLD))

    def _rank(self) -> None:
        """Let the planner move entries between hot and warm, where there is room."""
        states = {}
        for name in (HOT, WARM):
            headroom = int(self._settings.low_watermark * self._capacities[name])
            states[name] = TierState(
                self._capacities[name], headroom - self._used[name],
                self._capacities[name] // EXCHANGE_SHARE, self._times.__getitem__,
            )  # fmt: skip
        keys, looked_at = self._cursor.next_slice(self._now)
        for move in self._planner.plan(
            self._found(keys), states, now=self._now, looked_at=looked_at
        ):
            entry = move.entry
            if self._used[move.target] + entry.size > self._capacities[move.target]:
                continue
            if move.target is WARM:
                self._planner.record_demotion(entry, self._times[entry.stamp])
            self._used[entry.tier] -= entry.size
            self._used[move.target] += entry.size
            entry.common = common_of(
                move.target, entry.common.tick, arrived_hits=min(entry.hits, 255)
            )

    def _found(self, keys: Iterable[str]) -> Iterator[Entry]:
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None:
                yield entry

    def check(self) -> None:
        """Assert that every key is where the counts say, and that no tier exceeds its bytes."""
        self._policy.check()
        held: Counter[TierName] = Counter()
        for entry in self._entries.values():
            held[entry.tier] += entry.size
        for key, below in self._below.items():
            assert (key in self._on_disk) is (below.tier is COLD)
            held[COLD] += below.size if below.tier is COLD else 0
        assert len(self._policy) == len(self._entries)
        for name in (HOT, WARM, COLD):
            assert held[name] == self._used[name]
            assert held[name] <= self._capacities[name] or name is WARM
        assert held[HOT] + held[WARM] <= self._ram


def lru_chain(
    trace: Trace,
    capacities: Mapping[TierName, int],
    seconds: Mapping[TierName, float] = SECONDS,
) -> TieredResult:
    """Run `trace` through LRUs of these sizes: each read lifts a key to hot, victims sink."""
    result = TieredResult()
    names = list(TierName)
    limits = [*(capacities[name] for name in names[:3]), float("inf")]
    tiers: list[OrderedDict[str, int]] = [OrderedDict() for _ in names]
    held = [0] * len(names)
    for key, size in zip(trace.keys, trace.sizes, strict=True):
        result.stored_bytes += size
        at = next((number for number, tier in enumerate(tiers) if key in tier), None)
        if at is not None:
            result.reads[names[at]] += 1
            result.seconds += seconds[names[at]]
            held[at] -= tiers[at].pop(key)
            result.moved_bytes += size * (at > 0)
        tiers[0][key] = size
        held[0] += size
        for number in range(3):
            while held[number] > limits[number]:
                victim, length = tiers[number].popitem(last=False)
                held[number] -= length
                tiers[number + 1][victim] = length
                held[number + 1] += length
                result.moved_bytes += length
    return result
