"""Restores a snapshot into a hierarchy: its frames are adopted, key by key under each key's lock.

Everything in the file is journaled first, and what that replaces is removed afterwards. So at every
moment, after a crash as well, each key has its old value or its restored one. A pending file is
read where it lies until the disk store has copied it; what it replaces in durable tiers is removed
after that. Where cold has no room for the file, each value is stored by itself; only if the tiers
have no room for old and restored values together, the old ones are removed first.

`DiskBackend.adopt` takes the batches from a generator, which runs on in between:

    adopt (disk)                      _batches and _batch (here)
    next(batches)          ------->   lock the keys, choose versions, prepare removals
    append one batch to    <-------   yield the records
    the journal
    next(batches)          ------->   release what the batch replaced, bring values into RAM if the
                                      caller waits for that, unlock the keys

If the append fails, the generator is closed at its `yield`: the locks are released, and only what
was wholly appended replaces anything. Two callbacks would have to hand over the locks instead.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from contextlib import closing, contextmanager
from enum import StrEnum

from memories.backends.base import LARGE_BYTES
from memories.backends.disk import DiskBackend
from memories.backends.disk.import_file import Adopted, Adoption
from memories.engine.archive import is_archived
from memories.engine.batch_write import batched
from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.engine.verified_frames import MAX_REMEMBERED
from memories.errors import TierFullError
from memories.foundation.keys import INTERNAL
from memories.foundation.periodic import Latch
from memories.foundation.units import format_size
from memories.model.entry import Entry
from memories.model.events import Failed, Removed
from memories.model.record import DEFAULT_TERMS, Record
from memories.model.tiers import Cause, TierName
from memories.snapshot.archive_references import bucket_of, holder_of
from memories.snapshot.incremental_chain import IncrementalChain, LocatedRow
from memories.snapshot.manifest import Reference, SnapshotRow
from memories.snapshot.reader import SnapshotFile
from memories.snapshot.tier_restore import Arrivals

_BATCH_ROWS = 512  # Keys that are locked and journaled together.


class Mode(StrEnum):
    """What a restore does with keys that exist already."""

    REPLACE = "replace"  # Every key that is not in the snapshot is removed.
    MERGE = "merge"  # Keys of the snapshot are overwritten, others stay.
    KEEP = "keep"  # Existing keys stay as they are.


class Restore:
    """One restore of one chain into one hierarchy.

    Attributes:
        since: Restored records have versions above this one.
        imported: Set once all pending files are copied, or cannot be.
        shared: Whether the store shares the blocks of all files, and has copied none.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        chain: IncrementalChain,
        mode: Mode,
        *,
        copy_later: bool = False,
        arrivals: Arrivals | None = None,
        verified: bool = False,
    ) -> None:
        """`verified` says that every byte of the chain's files was verified."""
        self._hierarchy = hierarchy
        self._chain = chain
        self._mode = mode
        self._arrivals = arrivals  # Brings each batch into RAM, where the caller waits for that.
        self._copy_later = copy_later  # Whether files that cannot be shared may be pending.
        self._verified = verified
        self._large: list[Record] = []  # Adopted from the file at hand; kept if it was verified.
        self.imported = Latch()
        self.imported.set()
        # Keys that are to be removed from the archive, and the versions of those removals.
        self._removals: list[tuple[str, int]] = []
        self.since = hierarchy.catalog.next_version()
        self._now = hierarchy.clock.wall()
        self.shared = True
        self._had_keys = len(hierarchy.catalog) > 0

    def check(self) -> None:
        """Refuse what cannot be restored here, before anything is changed.

        Raises:
            InvalidOptionError: it refers to an archive, and the glacier tier is disabled.
            CorruptDataError: the archive no longer has an object that it refers to.
            TierFullError: the tiers together have no room for it.
        """
        self._check_references()
        if not self._fits_cold():
            self._check_room()

    def run(self) -> None:
        """Adopt or store every value, then remove what the mode says."""
        for file in self._chain.files:
            file.require_in_place()
        if not self._fits_cold():
            self._store_values()
        elif self._adopt():
            self._finish_later()
            return
        self._link_references()
        if self._replaces():
            self._remove_others()

    def _adopt(self) -> bool:
        """Adopt every file; return whether one of them is pending."""
        try:
            return self._adopt_files()
        except BaseException:
            self._end_removals()
            if self._copy_later:
                self._hierarchy.catalog.journal.import_soon(self._import_ended)
            raise

    def _adopt_files(self) -> bool:
        journal, pending = self._hierarchy.catalog.journal, False
        for number, file in enumerate(self._chain.files):
            descriptor = file.fileno() if self._copy_later else None
            with closing(self._batches(number)) as batches:
                if journal.is_encrypted:
                    adopted = _write_frames(journal, file, batches)
                else:
                    adopted = journal.adopt(file.path, batches, descriptor=descriptor)
            self.shared &= adopted.shared
            pending |= adopted.pending
            if adopted.shared:
                self._remember_verified()
            self._large.clear()
            if not pending:
                self._end_removals()
        return pending

    def _remember_verified(self) -> None:
        """Let no read verify the large values again whose bytes were verified where they lie."""
        for adopted in self._large:
            found = self._hierarchy.catalog.record(adopted.key)
            if found is not None and found.version == adopted.version:
                self._hierarchy.verified.add(found)

    def _finish_later(self) -> None:
        """Hide what the files replace until they are copied, and remove it then."""
        journal = self._hierarchy.catalog.journal
        try:
            self._link_references()
            if self._replaces():
                self._drop_old_entries()
                journal.hide_older(self.since, self._removing)
        finally:
            self.imported = Latch()
            journal.import_soon(self._import_ended)

    @contextmanager
    def _removing(self, record: Record) -> Iterator[None]:
        """Remove a record from the archive, too, if the block removes it from the journal."""
        with self._hierarchy.mover.archive.removing(record, self.since):
            yield
        self._emit_replaced(record)

    def _emit_replaced(self, found: Entry | Record) -> None:
        now = self._hierarchy.clock.monotonic()
        gone = Removed(found.key, now, found.tier, found.size, Cause.REPLACED)
        self._hierarchy.events.emit(gone)

    def _import_ended(self, error: BaseException | None) -> None:
        """Remove what pending files have replaced, or report why they are not copied."""
        hierarchy = self._hierarchy
        if error is None:
            self._end_removals()
            if self._replaces() and self._had_keys:
                hierarchy.catalog.journal.shrink()
        else:
            now, path = hierarchy.clock.monotonic(), str(self._chain.top.path)
            hierarchy.events.emit(Failed(path, now, "copy into the store", error))
        self.imported.set()

    def _fits_cold(self) -> bool:
        size, cold = self._chain.file_bytes, self._hierarchy.tiers[TierName.COLD].budget
        return size <= cold.headroom and self._hierarchy.catalog.journal.make_room(size)

    def _replaces(self) -> bool:
        return self._mode is Mode.REPLACE

    def _check_room(self) -> None:
        needed = sum(row.size for row in self._chain.rows())
        if needed > self._room():
            self._hierarchy.expire_overdue()
        room = self._room()
        if needed > room:
            raise TierFullError(
                f"{self._chain.top.path} holds {format_size(needed)}, and all tiers together have "
                f"room for {format_size(room)}: nothing was changed; make a tier larger, or "
                "restore into another store"
            )

    def _room(self) -> int:
        self._hierarchy.settlement.settle()  # What was removed a moment ago is still charged.
        tiers = self._hierarchy.tiers.values()
        return sum(t.budget.effective if self._replaces() else t.budget.headroom for t in tiers)

    def _wanted(self, row: SnapshotRow) -> bool:
        terms = row.terms
        if terms is not None and terms.expires_at is not None and terms.expires_at <= self._now:
            return False
        return self._mode is not Mode.KEEP or self._hierarchy.catalog.lookup(row.key) is None

    def _batches(self, number: int) -> Generator[list[Adoption], None, None]:
        """Yield the records of one file, in batches whose keys stay locked until the next one."""
        locks = self._hierarchy.locks
        for rows in self._chain.batches(_BATCH_ROWS):
            mine = self._chain.located(rows, number)
            with locks.try_lock_all([row.key for row, _, _ in mine]) as held:
                free = mine
                if len(held) < len(mine):
                    free = [item for item in mine if item[0].key in held]
                yield from self._batch(free, number)
            if free is not mine:
                for item in mine:
                    if item[0].key not in held:
                        with locks.lock(item[0].key):
                            yield from self._batch([item], number)

    def _batch(self, items: list[LocatedRow], number: int) -> Iterator[list[Adoption]]:
        """Yield the records of one batch of a file; then release what they replaced."""
        catalog, wanted = self._hierarchy.catalog, items
        with_terms = [row for row, _, _ in items if row.terms is not None]
        if with_terms or self._mode is Mode.KEEP:
            wanted = [item for item in items if self._wanted(item[0])]
        entry_of = catalog.entries.get
        found = [entry_of(row.key) for row, _, _ in wanted]
        entries = [entry for entry in found if entry is not None]
        # The first version is above all that these keys have had, because a `store` may have
        # overwritten one since the restore began. They get those that follow.
        gone, *versions = catalog.next_versions(1 + len(wanted))
        for old in self._archived([row.key for row, _, _ in wanted]):
            self._hierarchy.mover.archive.prepare_removal(old, gone)
            self._removals.append((old.key, gone))
        adoptions = [
            (_record(row, version, TierName.COLD), offset, length)
            for (row, offset, length), version in zip(wanted, versions, strict=True)
        ]
        try:
            yield adoptions
        except BaseException:
            # The append has failed, or was not begun. What was wholly appended by then counts.
            self._drop_replaced(entries)
            raise
        self._hierarchy.mover.batch.drop(entries)
        if self._verified and len(self._large) < MAX_REMEMBERED:
            self._large += [one for one, _, length in adoptions if length >= LARGE_BYTES]
        if not self._copy_later:
            self._end_removals()
        if self._arrivals is not None:
            self._arrivals.enter(number, [row for row, _, _ in wanted], adoptions)

    def _archived(self, keys: list[str]) -> list[Record]:
        """Return the records of those of `keys` that are in the archive."""
        if TierName.GLACIER not in self._hierarchy.tiers:
            return []
        found = map(self._hierarchy.catalog.record, keys)
        return [record for record in found if record is not None and is_archived(record)]

    def _end_removals(self) -> None:
        """Remove from the archive what was replaced; what a failure has spared stays."""
        is_pending = self._hierarchy.catalog.journal.is_pending
        removals = self._removals
        self._removals = [(key, gone) for key, gone in removals if is_pending(key)]
        for key, gone in removals:
            self._hierarchy.mover.archive.resolve_removal(key, gone)

    def _drop_replaced(self, entries: Sequence[Entry]) -> None:
        """Remove those of `entries` from RAM whose restored version is journaled."""
        record = self._hierarchy.catalog.record
        found = [(entry, record(entry.key)) for entry in entries]
        self._hierarchy.mover.batch.drop(
            [entry for entry, one in found if one is not None and one.version > entry.version]
        )

    def _release_entry(self, entry: Entry | None) -> None:
        """Remove a key's entry from RAM, now that its restored version is journaled."""
        if entry is not None:
            self._hierarchy.catalog.drop(entry)
            self._hierarchy.mover.release(entry)

    def _store_values(self) -> None:
        """Store value by value, where cold has no room for the file.

        Each is copied to the tier it had, or to the first one below it with room. Keys that are not
        in the snapshot make room before. Old values of the others do so only where the tiers
        together cannot hold them beside restored ones.
        """
        if self._replaces():
            self._remove_others({row.key for row in self._chain.rows()})
        for row in self._chain.rows():
            frame = self._chain.frame(row)
            if frame is None or not self._wanted(row):
                continue
            try:
                self._store(row, frame)
            except TierFullError:
                if not self._replaces():
                    raise
                self._remove_others()
                self._store(row, frame)

    def _store(self, row: SnapshotRow, frame: memoryview) -> None:
        payload = Payload.of_frame(frame, key=row.key)
        tier = row.tier if row.tier in self._hierarchy.tiers else TierName.COLD
        terms = row.terms or DEFAULT_TERMS
        self._hierarchy.put(row.key, payload, tier=tier, terms=terms)

    def _drop_old_entries(self) -> None:
        """Remove old entries from RAM; their records stay in the journal until the import ended."""
        locks, keys = self._hierarchy.locks, list(self._hierarchy.catalog.entries)
        for batch in batched(key for key in keys if key[0] != INTERNAL):
            with locks.try_lock_all(batch) as held:
                self._drop_old(key for key in batch if key in held)
            for key in batch:
                if key not in held:
                    with locks.lock(key):
                        self._drop_old([key])

    def _drop_old(self, keys: Iterable[str]) -> None:
        found = [self._hierarchy.catalog.entries.get(key) for key in keys]
        entries = [entry for entry in found if entry is not None and entry.version < self.since]
        self._hierarchy.mover.batch.drop(entries)
        for entry in entries:
            if not entry.backed:
                self._emit_replaced(entry)

    def _remove_others(self, kept: Set[str] = frozenset()) -> None:
        """Remove every key that the restore has not written, except those of `kept`."""
        hierarchy = self._hierarchy
        journal = hierarchy.catalog.journal
        journal.remove_hidden()
        if not self._had_keys:
            return
        for keys in batched(key for key in self._other_keys() if key not in kept):
            _, left = hierarchy.mover.batch.remove(keys, Cause.REPLACED, self._is_old)
            for key in left:
                with hierarchy.locks.lock(key):
                    found = hierarchy.catalog.lookup(key)
                    if found is not None and self._is_old(found):
                        hierarchy.mover.drop(found, Cause.REPLACED)
        journal.shrink()

    def _is_old(self, found: Entry | Record) -> bool:
        return found.version < self.since

    def _other_keys(self) -> Iterator[str]:
        """Yield the keys that may have a version from before the restore."""
        catalog = self._hierarchy.catalog
        for key, entry in list(catalog.entries.items()):
            if entry.version < self.since and key[0] != INTERNAL:
                yield key
        for record in catalog.journal.scan():
            if record.version < self.since:
                yield record.key

    def _references(self) -> Iterator[tuple[SnapshotRow, Reference]]:
        if not self._chain.top.references:
            return
        for row in self._chain.rows():
            if isinstance(row.where, Reference):
                yield row, row.where

    def _check_references(self) -> None:
        places = [where.place for _, where in self._references()]
        if places:
            root = self._chain.top.root
            bucket = bucket_of(self._hierarchy, root.archive)
            bucket.require_there(*places)
            bucket.protect(*places, holder=holder_of(root.id))

    def _link_references(self) -> None:
        catalog = self._hierarchy.catalog
        for row, where in self._references():
            with self._hierarchy.locks.lock(row.key):
                if not self._wanted(row):
                    continue
                entry = catalog.entries.get(row.key)
                version = catalog.next_version()
                record = _record(row, version, TierName.GLACIER, where.place)
                self._hierarchy.mover.archive.link(record)
                self._release_entry(entry)


def _write_frames(
    journal: DiskBackend, file: SnapshotFile, batches: Iterable[Sequence[Adoption]]
) -> Adopted:
    """Write the frames of a file one by one into an encrypted store, which can adopt none.

    Each batch is in the log before the next one is asked for.
    """
    count = 0
    for batch in batches:
        items = [(record, [file.frame(offset, length)]) for record, offset, length in batch]
        count += len(items)
        while items:  # Where the disk refuses one, the next turn raises why.
            items = items[len(journal.write_many(items)) :]
    return Adopted(count, shared=False)


def _record(row: SnapshotRow, version: int, tier: TierName, place: bytes = b"") -> Record:
    """Return the record to be journaled for `row`: a new version of its key."""
    return Record(
        key=row.key,
        version=version,
        tier=tier,
        size=row.size,
        stored=row.where.length,
        stored_at=row.stored_at,
        kind=row.kind,
        terms=row.terms or DEFAULT_TERMS,
        place=place,
    )
