"""A sample of the keys, followed through all tiers: what was accessed, in which order.

Not a judge. Whoever learns from the accesses is told of them in the background; readers only leave
a note, and those of keys outside the sample not even that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from memories.engine.hit_clock import SampledTick
from memories.foundation.fork_lock import new_lock
from memories.model.entry import Entry, ExpiringEntry
from memories.model.events import Event, Retrieved, Stored
from memories.policies.hashing import digest
from memories.policies.miss_ratio_curve import MissRatioCurve, ReuseDistanceSampler

SAMPLED_KEYS = 2048
NOTES_PER_LOOK = 256
MAX_NOTES = 2048

Tick = Callable[[], int]
Listener = Callable[[str, int, bool], None]  # Key, size, and whether it was read: not stored.


class _SampledTick(SampledTick):
    """Tells of a hit before it counts it."""

    __slots__ = ("_sampler",)

    def __init__(self, key: str, size: int, inner: Tick, sampler: AccessSampler) -> None:
        super().__init__(key, size, inner)
        self._sampler = sampler

    def __call__(self) -> int:
        self._sampler.record(self.key, self.size, read=True)
        return self.inner()

    def wanted(self) -> bool:
        return self._sampler.samples(self.key)


class AccessSampler:
    """Knows the reuse distances of a sample, and lets one listener hear of single accesses."""

    def __init__(self) -> None:
        self._reuse = ReuseDistanceSampler(sampled_keys=SAMPLED_KEYS)
        self._notes: deque[tuple[int, int, bool]] = deque(maxlen=MAX_NOTES)
        self._lock = new_lock()
        self._listener: Listener | None = None

    def tick(self, key: str, size: int, tick: Tick) -> Tick:
        """Return what an entry of `key` shall call at each hit in the place of `tick`."""
        if isinstance(tick, _SampledTick):
            return tick
        return _SampledTick(key, size, tick, self) if self.samples(key) else tick

    def samples(self, key: str) -> bool:
        """Return whether accesses to `key` are of use to anybody."""
        return self._listener is not None or self._reuse.samples(key)

    def observe(self, event: Event) -> None:
        """Hear of what was stored."""
        if isinstance(event, Stored):
            self.record(event.key, event.size, read=False)

    def observe_reads(self, reads: Sequence[Retrieved]) -> None:
        """Hear of reads that durable tiers answered."""
        for read in reads:
            self.record(read.key, read.size, read=True)

    def set_listener(self, listener: Listener | None, entries: Iterable[Entry]) -> None:
        """Tell `listener` of every access from now on, also to what is in RAM already."""
        self._listener = listener
        if listener is not None:
            for found in entries:
                entry = found.inner if isinstance(found, ExpiringEntry) else found
                entry.tick = self.tick(entry.key, entry.size, entry.tick)

    def process_notes(self) -> None:
        """Read some of the notes; the sample shrinks where more come than are read."""
        with self._lock:
            try:
                self._process_notes()
            except BaseException:
                # Its sums may disagree for good; another sample is soon as good as this one was.
                self._reuse = ReuseDistanceSampler(sampled_keys=SAMPLED_KEYS)
                raise

    def _process_notes(self) -> None:
        for _ in range(min(len(self._notes), NOTES_PER_LOOK)):
            bits, size, read = self._notes.popleft()
            self._reuse.observe_digest(bits, size, counts=read)
        if len(self._notes) > MAX_NOTES // 2:
            self._notes.clear()
            self._reuse.halve()

    def curve(self, reads: int) -> MissRatioCurve:
        """Return the miss-ratio curve of everything read so far, `reads` in all."""
        while self._notes:
            self.process_notes()
        with self._lock:
            return self._reuse.curve(reads)

    def record(self, key: str, size: int, *, read: bool) -> None:
        """Take a note of an access, and tell the listener."""
        bits = digest(key)
        if self._reuse.samples_digest(bits):
            self._notes.append((bits, size, read))
        listener = self._listener
        if listener is not None:
            listener(key, size, read)
