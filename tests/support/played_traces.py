"""Replays traces in a manager whose clock is that of the trace and of its reads."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memories import MigrationSettings
from memories.core.wiring import assemble
from memories.engine.payload import Payload
from memories.migration.simulated_tiers import SECONDS
from memories.model.record import DEFAULT_TERMS
from memories.model.tiers import TierName
from memories.options.settings import make_settings
from memories.simulate.traces import Trace
from memories.testing.clock import ManualClock

SIZE = 20_000
CHARGED = SIZE + 33 + 224  # With what `bytes` and an entry take beside the content.
LOOK_SECONDS = 0.1


class PlayedTiers:
    """A manager of four tiers; each value has `SIZE` bytes."""

    def __init__(self, lifecycle: Any, clock: ManualClock) -> None:
        self.hierarchy = lifecycle.services.hierarchy
        self.migrator = lifecycle.services.migrator
        self._clock = clock
        self._chance = random.Random(1)
        self._seen: set[str] = set()
        self._looked_at = 0.0

    def replay(self, trace: Trace, counted: str = "") -> Counter[TierName]:
        """Run every access; return which tiers answered the repeated reads of `counted` keys."""
        answered: Counter[TierName] = Counter()
        started = self._clock.monotonic()
        for at, key, _ in zip(*trace, strict=True):
            self._clock.advance(max(started + at - self._clock.monotonic(), 1e-6))
            if key in self._seen:
                tier = self.hierarchy.lookup(key).tier
                answered[tier] += key.startswith(counted)
                self.hierarchy.read(key)
                self._clock.advance(SECONDS[tier])
            else:
                self.store(key)
            self.look()
        return answered

    def store(self, key: str, tier: TierName | None = None) -> None:
        """Store a new value, where the manager wants it unless a tier is named."""
        self._seen.add(key)
        value = self._chance.randbytes(SIZE)
        self.hierarchy.put(key, Payload.of(value), tier=tier, terms=DEFAULT_TERMS)

    def look(self) -> None:
        """Let the migrator look, if it is time."""
        if self._clock.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock.monotonic()
            self.migrator.tick()


@contextmanager
def played(folder: Path, capacities: Mapping[TierName, int]) -> Iterator[PlayedTiers]:
    """Make a manager whose hot, warm and cold have these capacities."""
    clock = ManualClock()
    options: dict[str, Any] = {
        "storage_path": folder, "glacier_url": None, "storage_options": None,
        "hot_device": "cpu", "eviction_policy": "auto", "compression": None,
        "durability": "relaxed", "exit_flush_seconds": 0.0, "write_through": False,
        "on_full": "raise", "rules": (), "prefetch": "off", "read_only": False,
        "takeover": False, "trusted_keys": (),
    }  # fmt: skip
    texts = [f"{capacities[name]} B" for name in list(TierName)[:3]]
    late = MigrationSettings(interval_seconds=3600)
    lifecycle = assemble(make_settings(*texts, True, **options), late, clock)
    assert lifecycle.services.migrator is not None
    try:
        yield PlayedTiers(lifecycle, clock)
    finally:
        lifecycle.abandon()


def in_time(keys: list[str], gap: float = 1e-2) -> Trace:
    """Return accesses to values of `SIZE`, one every `gap` seconds."""
    return Trace([number * gap for number in range(len(keys))], keys, [CHARGED] * len(keys))
