"""Follows the accesses to a sample of the keys through all tiers, in their order.

Readers only append a note, and do nothing for keys outside the sample. The notes are read in the
background.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from memories.engine.hit_clock import SampledTick
from memories.foundation.fork_lock import new_lock
from memories.model.entry import Entry, ExpiringEntry
from memories.model.events import Event, Moved, ReadBatch, Retrieved, Stored, ValueEvent
from memories.model.tiers import Cause
from memories.policies.hashing import EVERY_DIGEST, digest, digests
from memories.policies.miss_ratio_curve import MissRatioCurve, ReuseDistanceSampler

SAMPLED_KEYS = 2048
NOTES_PER_LOOK = 256
MAX_NOTES = 2048

Tick = Callable[[], int]
Listener = Callable[[str, int, bool], None]  # Key, size, and whether it was read: not stored.


class _SampledTick(SampledTick):
    """Records a hit, then counts it."""

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
    """Computes the reuse distances of a sample, and reports single accesses to one listener."""

    def __init__(self) -> None:
        self._reuse = ReuseDistanceSampler(sampled_keys=SAMPLED_KEYS)
        self._notes: deque[tuple[int, int, bool]] = deque(maxlen=MAX_NOTES)
        self._lock = new_lock()
        self._listener: Listener | None = None

    def tick(self, key: str, size: int, tick: Tick) -> Tick:
        """Return what an entry of `key` calls at each hit instead of `tick`."""
        if isinstance(tick, _SampledTick):
            return tick
        return self.recording(key, size, tick) if self.samples(key) else tick

    def recording(self, key: str, size: int, tick: Tick) -> Tick:
        """Return the same for a key that is in the sample."""
        return _SampledTick(key, size, tick, self)

    def samples(self, key: str) -> bool:
        """Return whether accesses to `key` are recorded."""
        return self._listener is not None or self._reuse.samples(key)

    def sampled_below(self) -> int:
        """Return a number that the digests of all keys in the sample are below."""
        return EVERY_DIGEST if self._listener is not None else self._reuse.limit

    def observe(self, event: Event) -> None:
        """Record a store."""
        if isinstance(event, Stored):
            self.record(event.key, event.size, read=False)

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Record a batch of stores, and note what a restore has brought into RAM.

        Otherwise no sample would shrink in a program that only reads what was restored, and each
        entry would report its hits.
        """
        first = events[0]
        if isinstance(first, Moved):
            if first.cause is Cause.RESTORED:
                self._note_all([(event.key, event.size) for event in events], read=False)
        elif isinstance(first, Stored):
            self._record_all([(event.key, event.size) for event in events], read=False)
        else:
            return
        if len(self._notes) == MAX_NOTES:
            # They come faster than the migrator reads the notes of them. The sample shrinks
            # now, or entries would report their hits that are not in it later.
            self.process_notes()

    def observe_reads(self, reads: Sequence[Retrieved]) -> None:
        """Record reads that durable tiers answered."""
        read = reads.records if isinstance(reads, ReadBatch) else reads
        self._record_all([(one.key, one.size) for one in read], read=True)

    def set_listener(self, listener: Listener | None, entries: Iterable[Entry]) -> None:
        """Report every access to `listener` from now on; None ends that."""
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
                # Its sums may disagree for ever, so a new sample starts.
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

    def _note_all(self, accesses: list[tuple[str, int]], *, read: bool) -> None:
        limit, notes = self._reuse.limit, self._notes
        for (_, size), bits in zip(accesses, digests([key for key, _ in accesses]), strict=True):
            if bits < limit:
                notes.append((bits, size, read))

    def _record_all(self, accesses: list[tuple[str, int]], *, read: bool) -> None:
        self._note_all(accesses, read=read)
        listener = self._listener
        if listener is not None:
            for key, size in accesses:
                listener(key, size, read)

    def record(self, key: str, size: int, *, read: bool) -> None:
        """Append a note of an access, and report it to the listener."""
        bits = digest(key)
        if self._reuse.samples_digest(bits):
            self._notes.append((bits, size, read))
        listener = self._listener
        if listener is not None:
            listener(key, size, read)
