"""The tiers: volatile ones hold entries in RAM or on a device, durable ones frames in a backend.

A tier has a budget of bytes, keeps payloads in its own form, and knows which of them should leave
first. It moves nothing and names no key in the catalog: the mover does.
"""

from __future__ import annotations

import time
from abc import ABC
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, cast

from memories import codecs
from memories.backends.base import Backend
from memories.codecs.base import carries_code
from memories.devices.base import Device
from memories.engine.access_sampler import AccessSampler
from memories.engine.budget import BackendBudget, Budget
from memories.engine.device_payload import DevicePayload, size_on_device
from memories.engine.hit_clock import HitClock
from memories.engine.hit_counter import HitCounter
from memories.engine.newcomers import Arrived
from memories.engine.payload import FramePayload, PackedFrame, PartsPayload, Payload
from memories.engine.small_entries import entries_of
from memories.engine.small_frames import load_small
from memories.engine.victims import Arrival, PolicyVictims, Victims
from memories.errors import MemoriesError
from memories.foundation.host_limits import ENTRY_BYTES
from memories.frames.compression_history import MEASURED_NBYTES, CompressionHistory
from memories.frames.signing import Keyring
from memories.frames.writer import PlainPacker
from memories.model.entry import (
    Common,
    Entry,
    ExpiringEntry,
    PackedEntry,
    SharedEntry,
    common_of,
)
from memories.model.record import DEFAULT_TERMS, Record, Version
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.backends.bucket import BucketBackend
    from memories.backends.disk import DiskBackend

MIN_DEVICE_BYTES = 64 << 10  # A smaller value is read faster from RAM than over a bus.
ROOMY_SHARE = 2  # A tier is roomy that is filled to one part in so many.
DISK_BANDWIDTH = 1e9  # Bytes per second, before it was measured.
SCARCE_SHARE = 0.5  # Of a tier filled beyond it the room is worth more than time.
WHOLE_BYTES = 512 * 1024  # Up to here one request for all of it is as fast as two for a part.


_new = tuple.__new__  # What a named tuple does, without its argument parsing.
Packed = tuple[Record, Sequence[memoryview]]  # A record without its place, and its frame.


class EvictionThreads:
    """The threads that are making room in a tier."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def add(self) -> None:
        """Count this thread."""
        self._threads.add(get_ident())

    def remove(self) -> None:
        """Count this thread no more."""
        self._threads.discard(get_ident())

    def reset(self) -> None:
        """Count no thread, while no call is under way."""
        self._threads.clear()

    @property
    def several(self) -> bool:
        """Return whether there is more than one."""
        return len(self._threads) > 1


class Account(Protocol):
    """Counts bytes: those of a tier, or of several that are one pool."""

    @property
    def used(self) -> int:
        """Return the bytes held now."""

    @property
    def effective(self) -> int:
        """Return the bytes that may be held."""

    @property
    def headroom(self) -> int:
        """Return the bytes that could be charged now."""


class Pool(Account, Protocol):
    """Two tiers in RAM whose entries one policy orders; see `RamPool`."""

    def align(self) -> None:
        """Let the stamps of both tiers go on from the same number."""

    def other(self, tier: VolatileTier, /) -> VolatileTier:
        """Return the other tier."""

    def offer_aside(self, tier: VolatileTier, /) -> Entry | None:
        """Return an entry of `tier` that the other tier has room for, None if there is none."""

    def takes(self, tier: VolatileTier, entry: Entry, /) -> bool:
        """Return whether `entry` may make room in `tier` by a change of its rank."""


class Tier(ABC):
    """One level of the hierarchy."""

    budget: Budget | BackendBudget

    def __init__(
        self, name: TierName, *, victims: Victims[Any], counter: HitCounter, hit_clock: HitClock
    ) -> None:
        self.name = name
        self.victims = victims
        self.counter = counter
        self.hit_clock = hit_clock
        self.eviction_threads = EvictionThreads()

    @property
    def account(self) -> Account:
        """What counts the bytes that the victims of this tier take."""
        return self.budget

    def prepare_decision(self) -> None:
        """Prepare the stamps for a decision about what leaves."""

    def holds(self, size: int) -> bool:
        """Return whether a value of `size` bytes could ever lie here."""
        return size <= self.budget.effective

    def admits(self, key: str, size: int, *, hits: int) -> bool:
        """Return whether a value may come in on its merit: for free room, or in another's place.

        `hits` is how often it was read elsewhere. A value that has no other tier to go to comes in
        whatever this returns.
        """
        if size <= self.account.headroom:
            return True
        self.victims.settle()
        if size <= self.account.headroom:
            return True
        self.prepare_decision()
        return self.victims.admits(Arrival(key, size, hits=hits, stamp=self.counter.stamp()))

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name} {self.budget.used} of {self.budget.effective} B>"
        )


class VolatileTier(Tier):
    """A tier in RAM, or in the memory of `device`: an entry holds the payload of each version.

    The bytes of an entry that has left stay charged until the last view of them dies. With a
    device, small values of the host, immutable objects and pickles stay live in RAM, on the budget
    of the tier, since no device could do anything with them.
    """

    def __init__(
        self,
        name: TierName,
        *,
        budget: Budget,
        victims: PolicyVictims,
        counter: HitCounter,
        hit_clock: HitClock,
        sampler: AccessSampler,
        trust: Keyring,
        has_expired: Callable[[Entry], bool],
        device: Device | None = None,
    ) -> None:
        super().__init__(name, victims=victims, counter=counter, hit_clock=hit_clock)
        self.victims: PolicyVictims = victims
        self.budget: Budget = budget
        self.common = common_of(name, counter.tick)  # Of entries without terms, by the short way.
        self.device = device
        self.pool: Pool | None = None  # The one that this tier is a part of.
        self._ticks = {name: counter.tick}  # Of plain entries, by the tiers of the pool.
        self._sampler = sampler
        victims.is_roomy = self._is_roomy
        self._trust = trust
        self._has_expired = has_expired

    def join(self, pool: Pool, ticks: dict[TierName, Callable[[], int]]) -> None:
        """Become a part of `pool`, of whose tiers these are the `ticks`."""
        self.pool, self._ticks = pool, ticks

    @property
    def account(self) -> Account:
        """What counts the bytes that the victims of this tier take."""
        return self.pool or self.budget

    def prepare_decision(self) -> None:
        """Make the stamps comparable with those of the other tier of the pool."""
        if self.pool is not None:
            self.pool.align()

    def common_with(self, entry: Entry) -> Callable[[], Common]:
        """Return what gives what `entry`, now in the other tier of the pool, has once it lies here.

        This may wait for a lock of the policy; the result is called under that of the catalog.
        """
        tick = self._tick(entry.key, entry.size, self.counter.tick)
        return lambda: common_of(self.name, tick, entry.terms, entry.backed, entry.hits)

    def suits(self, payload: Payload) -> bool:
        """Return whether an unnamed tier may be this one: some of the value belongs on the device.

        RAM suits every value.
        """
        if self.device is None:
            return True
        parts = payload.description()
        return parts is not None and self.device.name in codecs.home_devices(parts)

    def convert(self, payload: Payload) -> Payload:
        """Return `payload` in the form of this tier; its `size` is what storing it will take.

        No bytes cross to a device before that is reserved: `put` brings them over.
        """
        if not self._crosses(payload):
            return payload.to_host(self._trust)
        parts = payload.unmoved_parts(self._trust)
        return PartsPayload(parts, size_on_device(parts), payload.sharing)

    def put(
        self, payload: Payload, version: Version, *, hits: int = 0, backed: TierName | None = None
    ) -> Entry:
        """Return a new entry around a converted payload, whose size the caller has reserved.

        `backed` is the durable tier that holds this version too.

        Raises:
            DeviceFullError: the device has no room, whatever leaves it.
            DeviceLostError: the device failed.
        """
        if self.device is not None and isinstance(payload, PartsPayload):
            payload = DevicePayload.upload(
                payload.unmoved_parts(self._trust), payload.size, self.device
            )
        tick = self._tick(version.key, payload.size, self.counter.tick)

        common = common_of(self.name, tick, version.terms, backed, hits)
        entry = payload.entry_type(
            version.key,
            version.number,
            payload.content,
            payload.size,
            version.stored_at,
            common,
            self.counter.stamp(),
        )
        return entry if version.terms.expires_at is None else self._expiring(entry)

    def load_all(self, values: Iterable[tuple[Record, bytes]]) -> list[Entry]:
        """Return new entries around the values of small frames that cold holds as well.

        Those that a single read must read are left out. The caller reserves the sizes, and calls
        `settle`: from then on their hits are sampled.
        """
        counter = self.counter
        common = common_of(self.name, counter.tick, DEFAULT_TERMS, TierName.COLD)
        return entries_of(values, common, counter, self._load)

    def _load(self, record: Record, frame: bytes) -> Entry | None:
        try:
            value = load_small(frame, record.key)
        except MemoriesError:
            return None
        if value is None:
            return None
        plain, terms, stored_at = self.counter.tick, record.terms, record.stored_at
        tick = plain if terms.expires_at is None else self._tick(record.key, value.size, plain)
        common = common_of(self.name, tick, terms, record.tier)
        key, version, stamp = record.key, record.version, self.counter.stamp()
        entry = value.kind(key, version, value.content, value.size, stored_at, common, stamp)
        return entry if terms.expires_at is None else self._expiring(entry)

    def _expiring(self, entry: Entry) -> Entry:
        """Return an entry around `entry` that looks at its time to live."""
        expiring = ExpiringEntry(
            entry.key,
            entry.version,
            entry.payload,
            entry.size,
            entry.stored_at,
            entry.common,
            self.counter.stamp(),
        )
        expiring.inner = entry
        expiring.has_expired = self._has_expired
        return expiring

    def settle(self, came: Sequence[Arrived], left: Sequence[Entry]) -> None:
        """Show the policy what came and left by the short way; see `PolicyVictims.apply`."""
        self.victims.apply(came, left, self._sample)

    def _sample(
        self, entries: Sequence[Entry], digests: Sequence[int], chosen: Sequence[Entry]
    ) -> None:
        """Report the hits of those entries from now on that are `chosen`, or in another sample."""
        below, recording = self._sampler.sampled_below(), self._sampler.recording
        for entry in chosen:
            entry.tick = self.victims.noting(entry.key, entry.size, self._ticks[entry.common.tier])
        noted = set(chosen)
        for entry, bits in zip(entries, digests, strict=True):
            if bits < below:
                tick = entry.common.tick if entry in noted else self._ticks[entry.common.tier]
                entry.tick = recording(entry.key, entry.size, tick)

    def _tick(self, key: str, size: int, tick: Callable[[], int]) -> Callable[[], int]:
        """Return what an entry of `key` calls at each hit instead of `tick`."""
        return self._sampler.tick(key, size, self.victims.tick(key, size, tick))

    def _is_roomy(self) -> bool:
        """Return whether it will take a while until something has to leave."""
        return ROOMY_SHARE * self.account.used <= self.account.effective

    def release(self, entry: Entry) -> None:
        """Uncharge an entry that has left as soon as the last view of its payload dies."""
        self.budget.release_with(Payload.of_entry(entry).owners(), entry.size)

    def release_batch(self, entries: Iterable[Entry]) -> None:
        """Uncharge entries that have left, each as soon as the last view of its payload dies."""
        freed = 0
        for entry in entries:
            if isinstance(entry, SharedEntry | PackedEntry):
                freed += entry.size  # No view of it can be left.
            else:
                self.release(entry)
        self.budget.release(freed)

    def _crosses(self, payload: Payload) -> bool:
        """Return whether a value goes to the memory of the device."""
        if self.device is None:
            return False
        if payload.sharing is codecs.Sharing.SHARED or carries_code(payload.codec):
            return False
        return payload.host_size >= MIN_DEVICE_BYTES or self.suits(payload)


class DurableTier(Tier):
    """A tier on a disk or in a bucket: frames in a backend.

    An `archive` is paid by the byte, so a frame that comes down to it is compressed anew; and its
    backend only prepares what is written, which counts once the journal has it (see
    `engine/archive.py`). `on_code` is called once, with the first key whose value is a pickle,
    which readers on other machines may not be able to open.
    """

    def __init__(
        self,
        name: TierName,
        *,
        backend: Backend,
        budget: BackendBudget,
        victims: Victims[Record],
        counter: HitCounter,
        hit_clock: HitClock,
        compression: str,
        trust: Keyring,
        archive: bool = False,
        on_code: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(name, victims=victims, counter=counter, hit_clock=hit_clock)
        self.budget: BackendBudget = budget
        self.backend = backend
        self.compression = compression
        self.compression_history = CompressionHistory(0.0 if archive else DISK_BANDWIDTH)
        self._packer = PlainPacker(compression, self.compression_history)
        self._is_archive = archive
        self._trust = trust
        self._on_code = on_code

    def convert(self, payload: Payload, version: Version, *, evicted: bool = False) -> PackedFrame:
        """Return `payload` as a frame bound to `version`; a frame that is not recompressed stays.

        An evicted frame is copied unchanged: recompressing it would delay the store that waits for
        the space.
        """
        plain = payload.plain()
        if plain is not None:
            frame = self._packer.pack(plain, version.key, version.number)
            if frame is not None:
                codec, _, nbytes = plain
                size, host_size = len(frame), nbytes + ENTRY_BYTES
                return _new(PackedFrame, (codec, (memoryview(frame),), size, host_size))
        if payload.size >= MEASURED_NBYTES:
            budget = self.budget
            self.compression_history.scarce = budget.used > SCARCE_SHARE * budget.effective
        return payload.to_frame(
            key=version.key,
            version=version.number,
            compression=self.compression,
            trust=self._trust,
            history=self.compression_history,
            recompress=self._is_archive and not evicted,
        )

    def write(self, frame: PackedFrame, version: Version, *, archived: bytes = b"") -> Record:
        """Write a converted frame, whose size the caller has reserved, and return its record.

        `archived` is where glacier holds a copy of this version, if it does.
        """
        record = self._new_record(frame, version, archived)
        if self._is_archive:
            written = cast("BucketBackend", self.backend).prepare(record, frame.segments)
        else:
            started = time.perf_counter()
            written = self.backend.write(record, frame.segments)
            self.compression_history.record_write(frame.size, time.perf_counter() - started)
        self.budget.release(frame.size)
        return written

    def write_if_room(self, frame: PackedFrame, version: Version, host_size: int) -> Record | None:
        """Write a small converted frame, if there is room for it and for `host_size` bytes in all.

        Not for an archive.
        """
        size, budget = frame.size, self.budget
        coming = budget.announce(size)
        try:
            record = self._new_record(frame, version, b"")
            if host_size > size:
                coming += host_size - size
            backend: DiskBackend = self.backend  # type: ignore[assignment]
            return backend.write_if_room(record, frame.segments, size, coming)
        finally:
            budget.release(size)

    def pack(self, payload: Payload, version: Version) -> Packed:
        """Return what `write_batch` writes of a version; nothing is written yet."""
        plain = payload.plain()
        if plain is not None:  # The way of most values of a batch, in fewer calls.
            codec, _, nbytes = plain
            key, number, stored_at, terms = version
            whole = self._packer.pack(plain, key, number)
            if whole is not None:
                record = Record(
                    key=key, version=number, tier=self.name, size=nbytes + ENTRY_BYTES,
                    stored=len(whole), stored_at=stored_at, kind=codec, terms=terms,
                )  # fmt: skip
                return record, (memoryview(whole),)
        frame = self.convert(payload, version)
        return self._new_record(frame, version, b"", stored=frame.size), frame.segments

    def write_batch(self, values: Sequence[Packed]) -> list[Record]:
        """Write versions of different keys together, and return their records.

        Where the medium takes only the first of them, those are written and returned; it raises if
        there are none. The caller has reserved their size, and releases it. Not for an archive.
        """
        return cast("DiskBackend", self.backend).write_many(values)

    @property
    def takes_batches(self) -> bool:
        """Return whether `write_batch` may be called."""
        return not self._is_archive

    def _new_record(
        self, frame: PackedFrame, version: Version, archived: bytes, stored: int = 0
    ) -> Record:
        if self._on_code is not None and carries_code(frame.codec):
            on_code, self._on_code = self._on_code, None
            on_code(version.key)
        return Record(
            key=version.key,
            version=version.number,
            tier=self.name,
            size=frame.host_size,
            stored=stored,
            stored_at=version.stored_at,
            kind=frame.codec,
            terms=version.terms,
            archived=archived,
        )

    def read(self, record: Record, *, private: bool = False) -> FramePayload:
        """Return the frame that a record names, unverified as yet; `private` as in `of_frame`."""
        read = self.backend.read_private if private else self.backend.read
        return Payload.of_frame(read(record), key=record.key, private=private)

    def read_part(self, record: Record) -> FramePayload:
        """Return the frame, of which only regions are read.

        If it is large and far away, only the bytes of those regions travel.
        """
        length = self.backend.ranged_length(record)
        if length is None or length <= WHOLE_BYTES:
            return self.read(record)
        fetch = partial(self.backend.read_ranges, record)
        return Payload.of_ranges(fetch, length, key=record.key)

    def read_many(self, records: Sequence[Record]) -> list[FramePayload]:
        """Return the frames, requested together, in the order of `records`."""
        frames = self.backend.read_many(records)
        return [
            Payload.of_frame(frame, key=record.key)
            for record, frame in zip(records, frames, strict=True)
        ]

    @property
    def remote(self) -> bool:
        """Return whether the backend is so far away that many reads should be one request."""
        return self.backend.remote


AnyTier = VolatileTier | DurableTier


class Settle(Protocol):
    """Reports what waits to be reported of entries, and of keys without one."""

    def __call__(self, entries: Sequence[Entry], keys: Sequence[str] = (), /) -> None:
        """Report it before they change."""


class Tiers(dict[TierName, AnyTier]):
    """The tiers by name, fastest first; also by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.volatile: dict[TierName, VolatileTier] = {}
        self.durable: dict[TierName, DurableTier] = {}
        # `Settlement.settle_before`; the hierarchy sets it before anything is stored.
        self.settle: Settle

    def add(self, tier: AnyTier) -> None:
        """Add the next slower tier."""
        self[tier.name] = tier
        if isinstance(tier, VolatileTier):
            self.volatile[tier.name] = tier
        else:
            self.durable[tier.name] = tier

    def victims(self) -> Iterable[Victims[Any]]:
        """Return the victims of all tiers; those of a pool are the same."""
        return dict.fromkeys([tier.victims for tier in self.values()])

    def release(self, entry: Entry) -> None:
        """Release the payload of an entry that has left the catalog."""
        tier = self.volatile[entry.tier]
        tier.victims.discard(entry)
        tier.release(entry)

    def release_batch(self, entries: Iterable[Entry]) -> None:
        """Release the payloads of entries that have left the catalog."""
        for name, left in _by_tier(entries).items():
            self.volatile[name].victims.discard_batch(left)
            self.volatile[name].release_batch(left)

    def release_moved(self, moved: Sequence[tuple[Entry, Entry]]) -> None:
        """Release what entries hold that have moved to another tier in RAM: each old, each new."""
        for name, left in _by_tier([old for old, _ in moved]).items():
            self.volatile[name].victims.discard_batch(left)
        stayed: Counter[TierName] = Counter()
        for old, new in moved:
            if new.payload is old.payload:
                stayed[old.tier] += old.size  # The memory is charged to the other tier now.
            else:
                self.volatile[old.tier].release(old)
        for name, nbytes in stayed.items():
            self.volatile[name].budget.release(nbytes)

    def load(self, found: Entry | Record) -> Payload:
        """Return the payload that an entry holds or a record names."""
        if isinstance(found, Entry):
            return Payload.of_entry(found)
        return self.durable[found.tier].read(found)


def _by_tier(entries: Iterable[Entry]) -> dict[TierName, list[Entry]]:
    by_tier: dict[TierName, list[Entry]] = {}
    for entry in entries:
        by_tier.setdefault(entry.tier, []).append(entry)
    return by_tier


def version_of(found: Entry | Record) -> Version:
    """Return the version that an entry or a record stands for."""
    return Version(found.key, found.version, found.stored_at, found.terms)
