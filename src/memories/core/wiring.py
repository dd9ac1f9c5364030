"""Makes the services of a manager and connects them; the only module that knows every class."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memories import policies
from memories.backends.base import Backend
from memories.backends.disk import DiskBackend
from memories.backends.disk.file_system import is_in_ram
from memories.backends.disk.files import UnsyncedFiles
from memories.backends.disk.temp_directory import new_temp_directory
from memories.codecs.registry import load_builtin
from memories.core.finalizer import wait_for_directory
from memories.core.kept_options import KeptOptions
from memories.core.lifecycle import Lifecycle
from memories.core.services import Services
from memories.core.size_doubts import warn_of_sizes
from memories.core.write_behind import WriteBehind
from memories.devices import Device, find_device
from memories.engine.access_sampler import AccessSampler
from memories.engine.budget import BackendBudget, Budget
from memories.engine.catalog import Catalog
from memories.engine.cold_victims import ColdVictims
from memories.engine.entry_table import EntryTable
from memories.engine.expiry import Expiry
from memories.engine.fetch_costs import FetchCosts
from memories.engine.heap_trim import HeapTrim, keep_blocks
from memories.engine.hierarchy import Hierarchy
from memories.engine.hit_clock import HitClock
from memories.engine.hit_counter import HitCounter
from memories.engine.ram_pool import RamPool
from memories.engine.recency import RecencyTracker
from memories.engine.tier import AnyTier, DurableTier, Tiers, VolatileTier
from memories.engine.victims import NoVictims, PolicyVictims
from memories.errors import CorruptDataError, InvalidOptionError
from memories.foundation.clock import Clock, SystemClock
from memories.foundation.fork_lock import HeldLocks
from memories.foundation.host_limits import disk_room, host_room
from memories.foundation.logging import logger
from memories.foundation.units import MAX_BYTES
from memories.frames import compression
from memories.frames.reader import open_frame
from memories.frames.signing import Keyring
from memories.frames.store_binding import StoreBinding
from memories.migration.migrator import Migrator
from memories.migration.prefetching import Prefetching
from memories.model.entry import Entry
from memories.model.events import KINDS, EventBus, Moved, Removed, Stored, Written
from memories.model.record import Record
from memories.model.rules import Rules
from memories.model.tiers import TierName
from memories.observe.counters import EventCounters
from memories.observe.move_log import MoveLog
from memories.observe.telemetry_service import TelemetryService
from memories.options.described import described
from memories.options.migration import MigrationSettings
from memories.options.settings import Settings
from memories.policies.base import Policy
from memories.policies.predictors import PREDICTORS, Prefetcher

if TYPE_CHECKING:
    from memories.core.archive import ArchiveService

_MAX_VERSION = 2**61  # So that later versions can be written and read.
STAND_IN = "host RAM, standing in for a GPU"


def assemble(
    settings: Settings,
    migration: MigrationSettings | Literal[False] | None = None,
    clock: Clock | None = None,
) -> Lifecycle:
    """Return the running services of a manager, in their lifecycle.

    Raises:
        InvalidOptionError: a policy, a compression or a device is unknown.
        StorageError: the directory or the bucket cannot be used.
        StoreLockedError: another manager is the writer of the store.
    """
    _check(settings)
    load_builtin()
    if migration is not None and migration is not False:
        check_migration(migration)
    device = find_device(settings.hot_device)
    if not settings.read_only:
        warn_of_sizes(settings, device=device is not None)
    with HeldLocks() as held:
        wiring = _Wiring(settings, clock or SystemClock(), device, held)
        return wiring.start(migration)


def check_migration(migration: object) -> None:
    """Raise InvalidOptionError unless `migration` is a `MigrationSettings`."""
    if not isinstance(migration, MigrationSettings):
        raise InvalidOptionError(
            f"migration must be MigrationSettings(...), False or None, not {migration!r:.60}"
        )


def _check(settings: Settings) -> None:
    """Raise InvalidOptionError before a directory or a lock is touched."""
    for name in settings.policies.values():
        policies.require_known(name)
    for name in settings.compression.values():
        compression.parse_spec(name)
    if settings.glacier_url is not None and not settings.glacier_enabled:
        raise InvalidOptionError("glacier_url is given but glacier_memory_enabled is False")
    for rule in settings.rules:
        tiers = (rule.tier, rule.min_tier, rule.max_tier, rule.move_to)
        if TierName.GLACIER in tiers[:2] + tiers[3:] and not settings.glacier_enabled:
            raise InvalidOptionError(
                f"the rule for {rule.prefix!r} needs glacier; pass glacier_memory_enabled=True"
            )
    if settings.read_only and settings.storage_path is None and settings.glacier_url is None:
        raise InvalidOptionError(
            "read_only=True needs the storage_path of an existing store, or the glacier_url of an "
            "archive"
        )
    if settings.read_only and settings.takeover:
        raise InvalidOptionError("takeover=True is for a writer: give it without read_only=True")


class _Wiring:
    """The parts of one manager while they are made."""

    def __init__(
        self, settings: Settings, clock: Clock, device: Device | None, held: HeldLocks
    ) -> None:
        self.settings = settings
        self.held = held
        self.clock = clock
        self.device = device
        self.table = EntryTable()
        self.trust = Keyring(trusted=settings.trusted_keys)
        self.expiry = Expiry(clock.wall)
        self.recency = RecencyTracker()
        self.sampler = AccessSampler()
        self.costs = FetchCosts()
        self.media: dict[TierName, str] = {}
        self.tiers = Tiers()
        self.backends: list[Backend] = []
        self.catalog: Catalog | None = None
        self.remove_private: Callable[[], None] | None = None
        self.purge_archive: Callable[[int], None] | None = None
        self.archive: ArchiveService | None = None
        self.binding: StoreBinding | None = None

    def start(self, migration: MigrationSettings | Literal[False] | None) -> Lifecycle:
        """Make and start every part; where one fails, close the others."""
        try:
            return self._start(migration)
        except BaseException:
            for backend in reversed(self.backends):
                backend.close()
            if self.remove_private is not None:
                self.remove_private()
            raise

    def _start(self, migration: MigrationSettings | Literal[False] | None) -> Lifecycle:
        settings = self.settings
        path = self._directory()
        follows = settings.read_only and settings.storage_path is not None
        ends = self.remove_private is not None and settings.durability == "relaxed"
        unsynced: dict[str, Any] = {"files": UnsyncedFiles()} if ends else {}
        journal = DiskBackend(
            path / "cold",
            durability=settings.durability,
            read_only=follows,
            verify=_verify_frame,
            capacity_bytes=settings.capacities[TierName.COLD],
            shared=settings.glacier_enabled,  # The map of the archive is beside it.
            encryption=settings.encryption,
            **unsynced,
        )
        self.backends.append(journal)
        self.binding = self.trust.binding = StoreBinding(self.trust, journal)
        if not follows and not self.binding.own:
            self.binding.identify()
        self._add_volatile_tiers()
        self._add_cold(journal, path)
        if settings.glacier_enabled:
            self._add_glacier(path, journal)
        events, counters, move_log = EventBus(), EventCounters(), MoveLog()
        for observer, of_batch, kinds in (
            (counters.observe, counters.observe_batch, KINDS),
            (move_log.observe, move_log.observe_batch, (Moved, Removed)),
            (self.sampler.observe, self.sampler.observe_batch, (Stored, Moved)),
            (self.costs.observe, self.costs.observe_batch, (Moved, Written)),
        ):
            events.subscribe(observer, of_batch, kinds=kinds)
        keep_blocks()
        heap = HeapTrim(self.clock.monotonic)
        events.subscribe(heap.observe, heap.observe_batch, kinds=(Moved, Removed))
        events.subscribe_reads(counters.count_reads)
        events.subscribe_reads(self.sampler.observe_reads)
        events.subscribe_reads(self.costs.observe_reads)
        self.table.version = self._latest_version()
        catalog = self.catalog = Catalog(journal, self.table, Rules(settings.rules))
        hierarchy = Hierarchy(
            self.tiers,
            catalog,
            clock=self.clock,
            expiry=self.expiry,
            events=events,
            trust=self.trust,
            drop_when_full=settings.drop_when_full,
            write_through=settings.write_through,
            read_only=settings.read_only,
        )
        hierarchy.operations.holds_lock = events.holds_lock = self.held.any_here
        if self.device is not None:
            self.device.make_room = partial(hierarchy.evict_bytes, TierName.HOT)
        migrator = None
        if migration is not False and not settings.read_only:
            migrator = Migrator(
                hierarchy, migration or MigrationSettings(), self.recency, self.sampler
            )
            migrator.start()
        services = Services(
            settings=settings,
            clock=self.clock,
            hierarchy=hierarchy,
            backends=self.backends,
            media=self.media,
            migration=False if migration is False else migration or MigrationSettings(),
            device=self.device,
            migrator=migrator,
            prefetching=None if settings.read_only else self._prefetching(hierarchy),
            write_behind=WriteBehind(hierarchy),
            access_sampler=self.sampler,
            move_log=move_log,
            fetch_costs=self.costs,
            telemetry=self._telemetry(hierarchy, counters, move_log),
            opened_at=self.table.version,
            remove_private=self.remove_private,
            purge_archive=self.purge_archive,
            storage_options=KeptOptions(settings.storage_options),
        )
        lifecycle = Lifecycle(services)
        if self.archive is not None:
            lifecycle.ends_before(self.archive.stop, "the archive's return")
            self.archive.attach(hierarchy)
        return lifecycle

    def _telemetry(
        self, hierarchy: Hierarchy, counters: EventCounters, move_log: MoveLog
    ) -> TelemetryService:
        named = self.settings.storage_path if self.remove_private is None else None
        if self.settings.encryption is not None:
            named = None  # The files for other processes name keys, and are not encrypted.
        # It refers to what it reads, not to the manager: its thread must not keep that alive.
        return TelemetryService(
            partial(counters.read, hierarchy, self.media),
            hierarchy,
            move_log,
            self.clock,
            None if self.settings.read_only else named,
            {
                "store": None if named is None else named.resolve().name,
                "configuration": described(self.settings),
            },
        )

    def _latest_version(self) -> int:
        """Return the highest version so far.

        The highest version of an archive that does not answer is unknown. Then the present time in
        milliseconds is taken, which exceeds any count of stores: values stored meanwhile are newer
        than any value found in the archive later.
        """
        latest = max(backend.last_version() for backend in self.backends)
        if latest > _MAX_VERSION:
            raise CorruptDataError(
                f"the store claims to have given the version {latest}, which no store reaches: its "
                "log or its archive was forged; restore it from a backup or a snapshot"
            )
        if self.archive is not None and self.archive.bucket.away is not None:
            return max(latest, int(1000 * self.clock.wall()))
        return latest

    def _prefetching(self, hierarchy: Hierarchy) -> Prefetching:
        wanted = self.settings.prefetch
        if wanted == "off":
            return Prefetching(hierarchy, None)
        kinds = PREDICTORS.values() if wanted == "auto" else [PREDICTORS[wanted]]
        return Prefetching(hierarchy, Prefetcher([kind() for kind in kinds], budget_bytes=0))

    def _directory(self) -> Path:
        if self.settings.storage_path is not None:
            if not self.settings.read_only:
                wait_for_directory(self.settings.storage_path)
            return self.settings.storage_path
        private = new_temp_directory(self.settings.temporary_in)
        self.remove_private = private.remove
        return private.path

    def _add_volatile_tiers(self) -> None:
        """Add hot and warm; without a GPU both share one budget of the host's RAM."""
        host = Budget(
            MAX_BYTES, room=host_room, monotonic=self.clock.monotonic, lock=self.table.lock
        )
        if self.device is None:
            logger.info("no GPU in use: the hot tier is %s", STAND_IN)
            self._add_volatile(TierName.HOT, STAND_IN, parent=host)
        else:
            device = self.device
            logger.info("the hot tier is %s", device.title)
            self._add_volatile(TierName.HOT, device.title, device=device, room=device.room)
        self._add_volatile(TierName.WARM, "host RAM", parent=host)
        if self._pooled:
            hot, warm = self.tiers.volatile[TierName.HOT], self.tiers.volatile[TierName.WARM]
            entries = self.table.entries
            RamPool(hot, warm, lambda: list(entries.values()), entries.get)

    def _add_volatile(
        self, name: TierName, medium: str, *, device: Device | None = None, **account: Any
    ) -> None:
        capacity = self.settings.capacities[name]
        budget = Budget(capacity, monotonic=self.clock.monotonic, lock=self.table.lock, **account)
        counter = HitCounter()
        if self._pooled and name is TierName.WARM:
            victims = self.tiers.volatile[TierName.HOT].victims
        else:
            victims = self._victims(name)
        tier = VolatileTier(
            name,
            budget=budget,
            victims=victims,
            counter=counter,
            hit_clock=self._hit_clock(counter),
            sampler=self.sampler,
            trust=self.trust,
            has_expired=self.expiry.has_expired,
            device=device,
        )
        self._add(tier, medium)

    @property
    def _pooled(self) -> bool:
        """Return whether hot and warm are one pool: the same medium, and one policy."""
        policy = self.settings.policies
        return self.device is None and policy[TierName.HOT] == policy[TierName.WARM]

    def _victims(self, name: TierName) -> PolicyVictims:
        """Return the victims of a tier in RAM; those of hot are of the pool, if there is one."""
        capacities, find = self.settings.capacities, self.table.entries.get
        if not self._pooled:
            entries = partial(self._entries, name)
            # At each call, since `resize` changes the capacities.
            return PolicyVictims(
                lambda: self._policy(name, capacities[name]), self._may_leave, entries, find
            )
        names = (TierName.HOT, TierName.WARM)
        return PolicyVictims(
            lambda: self._policy(TierName.WARM, sum(capacities[one] for one in names)),
            self._may_leave_pool,
            self._all_entries,
            find,
        )

    def _policy(self, name: TierName, capacity: int) -> Policy:
        policy = self.settings.policies[name]
        if policies.accepts_option(policy, "cost"):
            return policies.make(policy, capacity, cost=self.costs.below(name))
        return policies.make(policy, capacity)

    def _entries(self, name: TierName) -> list[Entry]:
        assert self.catalog is not None, "nothing is stored before the catalog is made"
        return [entry for entry in list(self.catalog.entries.values()) if entry.tier is name]

    def _all_entries(self) -> list[Entry]:
        return list(self.table.entries.values())

    def _add_cold(self, journal: DiskBackend, path: Path) -> None:
        capacity = self.settings.capacities[TierName.COLD]
        budget = BackendBudget(
            capacity,
            measure=journal.measure,
            taken=lambda: journal.usage().physical,
            give_back=journal.unlink_obsolete,
        )
        victims = ColdVictims(
            journal, TierName.COLD, self._may_leave, self.recency, self.costs.saved,
            self.table.entries, self._sinks,
        )  # fmt: skip
        counter = HitCounter()
        tier = DurableTier(
            TierName.COLD,
            backend=journal,
            budget=budget,
            victims=victims,
            counter=counter,
            hit_clock=self._hit_clock(counter),
            compression=self.settings.compression[TierName.COLD],
            trust=self.trust,
        )
        self._add(tier, "RAM (tmpfs)" if is_in_ram(path) else "local disk")

    def _add_glacier(self, path: Path, journal: DiskBackend) -> None:
        # Imported at use: most managers have no archive.
        from memories.backends.bucket import BucketBackend
        from memories.backends.bucket.open_store import local_path
        from memories.backends.bucket.options import BucketLimits
        from memories.core.archive import AWAY_SECONDS, ArchiveService

        # A reader without a storage_path copies the records of the bucket to its own journal.
        bare = self.settings.read_only and self.settings.storage_path is None
        url = self.settings.glacier_url
        if url is None:
            url = str(path / "glacier")
            level = logging.WARNING if self.remove_private else logging.INFO
            logger.log(level, "no glacier_url: %s stands in for object storage", url)
        directory = local_path(url)
        bucket = BucketBackend(
            url,
            storage_options=self.settings.storage_options,
            directory=None if bare else path / "archive",
            read_only=self.settings.read_only,
            takeover=self.settings.takeover,
            away_seconds=AWAY_SECONDS,
            lasting=self.remove_private is None,
            limits=BucketLimits.within(journal.beside_bytes) if journal.beside_bytes else None,
            full=self.settings.durability == "full",
            version=journal.last_version,
            wall=self.clock.wall,
            verify=_verify_frame,
            encryption=self.settings.encryption,
        )
        self.backends.append(bucket)
        self.purge_archive = partial(bucket.clear, purge=True)
        budget = BackendBudget(
            MAX_BYTES, measure=lambda: (bucket.usage().live, _glacier_room(directory))
        )
        medium = "object storage" if directory is None else "a local directory"
        counter = HitCounter()
        tier = DurableTier(
            TierName.GLACIER,
            backend=bucket,
            budget=budget,
            victims=NoVictims(),
            counter=counter,
            hit_clock=self._hit_clock(counter),
            archive=True,
            on_code=self._archive_code,
            compression=self.settings.compression[TierName.GLACIER],
            trust=self.trust,
        )
        self._add(tier, medium)
        writes = not self.settings.read_only or bare
        assert self.binding is not None, "it is made with the journal"
        self.binding.places.append(bucket)
        self.archive = ArchiveService(bucket, journal if writes else None, self.media, self.binding)
        self.archive.adopt()

    def _archive_code(self, key: str) -> None:
        """Warn that a pickle is archived, and state in the archive whose it is."""
        _warn_of_code(key)
        assert self.archive is not None, "nothing is archived before"
        self.archive.state_store()

    def _hit_clock(self, counter: HitCounter) -> HitClock:
        return HitClock(counter, self.clock.monotonic())

    def _add(self, tier: AnyTier, medium: str) -> None:
        self.media[tier.name] = medium
        self.tiers.add(tier)

    def _may_leave(self, found: Entry | Record) -> bool:
        """Return whether the terms of `found` allow that it leaves its tier for room."""
        if found.terms.pinned:
            return False
        lower = any(name.rank > found.tier.rank and found.terms.admits(name) for name in self.tiers)
        return lower or found.terms.evictable or self.settings.drop_when_full

    def _sinks(self, record: Record) -> bool:
        """Return whether a slower tier admits `record` and has room for it."""
        return any(
            name.rank > record.tier.rank
            and record.terms.admits(name)
            and tier.budget.headroom >= record.stored
            for name, tier in self.tiers.items()
        )

    def _may_leave_pool(self, found: Entry) -> bool:
        """Return whether the terms of `found` allow that it leaves RAM for room."""
        if found.terms.pinned:
            return False
        lower = any(name.durable and found.terms.admits(name) for name in self.tiers)
        return lower or found.terms.evictable or self.settings.drop_when_full


def _verify_frame(record: Record, frame: memoryview) -> None:
    open_frame(frame, key=record.key).verify()


def _warn_of_code(key: str) -> None:
    logger.warning(
        "%r is archived as a pickle, like others to come: another machine can read those only with "
        "this user's signing key. Run `memories key export` and keep it apart from the bucket",
        key[:200],
    )


def _glacier_room(directory: Path | None) -> int:
    """Return the bytes that an archive in `directory` may still take; None is a bucket."""
    if directory is None:
        return MAX_BYTES
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent  # It is away for the moment, or not made yet.
    return disk_room(directory)
