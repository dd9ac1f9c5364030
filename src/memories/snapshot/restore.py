"""Taking a snapshot into a hierarchy: adopted as it lies, key by key under each key's lock.

First everything that the file holds is taken in, then what it replaces is let go, so that at every
moment, a crash included, each key has its old value or its restored one. A file that is lent is
read where it lies and durable later: what it replaces in durable tiers is let go of after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

from memories.engine.archive import is_archived
from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.errors import TierFullError
from memories.foundation.keys import INTERNAL
from memories.foundation.periodic import Latch
from memories.foundation.units import format_size
from memories.model.entry import Entry
from memories.model.events import Failed, Removed
from memories.model.record import DEFAULT_TERMS, Record
from memories.model.tiers import Cause, TierName
from memories.snapshot.archive_references import bucket_of, holder_of
from memories.snapshot.incremental_chain import IncrementalChain
from memories.snapshot.manifest import Reference, SnapshotRow

_BATCH_ROWS = 512  # So many keys are locked, journaled and let go at once.

Adoption = tuple[Record, int, int]
Advance = Callable[[int], object]


class Located(NamedTuple):
    """A row, and where its frame lies in its file."""

    row: SnapshotRow
    offset: int
    length: int


class Mode(StrEnum):
    """What a restore does to keys that are there already."""

    REPLACE = "replace"  # Everything else goes.
    MERGE = "merge"  # The snapshot's keys win, others stay.
    KEEP = "keep"  # Keys that are there win.


class Restore:
    """One restore of one chain into one hierarchy."""

    def __init__(
        self, hierarchy: Hierarchy, chain: IncrementalChain, mode: Mode, *, lend: bool = False
    ) -> None:
        self._hierarchy = hierarchy
        self._chain = chain
        self._mode = mode
        self._lend = lend  # Whether files that cannot be shared may be copied later.
        self.arrived = Latch()  # Whether all that was lent is durable, or failed to be.
        self.arrived.set()
        # What is about to be replaced in the archive, and as of which number it is gone there.
        self._outdated: list[tuple[str, int]] = []
        self.since = hierarchy.catalog.next_version()  # What it restores has later versions.
        self._now = hierarchy.clock.wall()
        self.shared = True  # What it has adopted are the bytes themselves, no copies of them.
        self._had_keys = len(hierarchy.catalog) > 0

    def check(self) -> None:
        """Refuse what cannot be restored here, before anything is changed.

        Raises:
            InvalidOptionError: it refers to an archive, and the glacier tier is disabled.
            CorruptDataError: the archive no longer has an object that it refers to.
            TierFullError: the tiers together have no room for it.
        """
        self._check_references()
        if not self._adoptable():
            self._check_room()

    def run(self) -> None:
        """Take everything in, then let go what the mode says."""
        for file in self._chain.files:
            file.require_in_place()
        if not self._adoptable():
            self._store_each()
        elif self._adopt_each():
            self._settle_soon()
            return
        self._note_references()
        if self._replaces():
            self._remove_others()

    def _adopt_each(self) -> bool:
        """Adopt every file; return whether one of them is only lent as yet."""
        try:
            return self._adopt_files()
        except BaseException:
            self._let_outdated_go()
            if self._lend:
                self._hierarchy.catalog.journal.import_soon(self._told)
            raise

    def _adopt_files(self) -> bool:
        journal, lent = self._hierarchy.catalog.journal, False
        for number, file in enumerate(self._chain.files):
            descriptor = file.fileno() if self._lend else None
            adopted = journal.adopt(file.path, self._adoptions(number), descriptor=descriptor)
            self.shared &= adopted.shared
            lent |= adopted.pending
            if not lent:
                self._let_outdated_go()
        return lent

    def _settle_soon(self) -> None:
        """Finish what must wait until the files that are lent are durable here."""
        journal = self._hierarchy.catalog.journal
        try:
            self._note_references()
            if self._replaces():
                self._drop_old_entries()
                journal.hide_older(self.since, self._hidden_gone)
        finally:
            self.arrived = Latch()
            journal.import_soon(self._told)

    @contextmanager
    def _hidden_gone(self, record: Record) -> Iterator[None]:
        """Have the record of a key which the snapshot does not have go durably in the block."""
        with self._hierarchy.mover.archive.removing(record, self.since):
            yield
        self._say_replaced(record)

    def _say_replaced(self, found: Entry | Record) -> None:
        now = self._hierarchy.clock.monotonic()
        gone = Removed(found.key, now, found.tier, found.size, Cause.REPLACED)
        self._hierarchy.events.emit(gone)

    def _told(self, error: BaseException | None) -> None:
        """Hear that all is durable, or why it is not."""
        hierarchy = self._hierarchy
        if error is None:
            self._let_outdated_go()
            if self._replaces() and self._had_keys:
                hierarchy.catalog.journal.shrink()
        else:
            now, path = hierarchy.clock.monotonic(), str(self._chain.top.path)
            hierarchy.events.emit(Failed(path, now, "copy into the store", error))
        self.arrived.set()

    def _adoptable(self) -> bool:
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
        tiers = self._hierarchy.tiers.values()
        return sum(t.budget.effective if self._replaces() else t.budget.headroom for t in tiers)

    def _wanted(self, row: SnapshotRow) -> bool:
        ends = (row.terms or DEFAULT_TERMS).expires_at
        if ends is not None and ends <= self._now:
            return False
        return self._mode is not Mode.KEEP or self._hierarchy.catalog.lookup(row.key) is None

    def _adoptions(self, number: int) -> Iterator[list[Adoption]]:
        """Yield what lies in one file, in batches; keys stay locked until they are journaled."""
        locks = self._hierarchy.locks
        for rows in self._chain.batches(_BATCH_ROWS):
            located = [(row, self._chain.locate(row)) for row in rows]
            mine = [Located(row, *at[1:]) for row, at in located if at and at[0] == number]
            with locks.try_lock_all([item.row.key for item in mine]) as held:
                yield from self._adopt([item for item in mine if item.row.key in held])
            for item in mine:
                if item.row.key not in held:
                    with locks.lock(item.row.key):
                        yield from self._adopt([item])

    def _adopt(self, items: list[Located]) -> Iterator[list[Adoption]]:
        """Yield what is to be journaled, and then let go what it replaced."""
        catalog, wanted = self._hierarchy.catalog, [i for i in items if self._wanted(i.row)]
        shadows = [catalog.entries.get(row.key) for row, _, _ in wanted]
        # Above what these keys have had, which a store may have changed since the restore began,
        # and below what they get.
        gone = catalog.next_version()
        for old in self._archived([item.row.key for item in wanted]):
            self._hierarchy.mover.archive.prepare_removal(old, gone)
            self._outdated.append((old.key, gone))
        batch = [
            (self._record(row, TierName.COLD), offset, length) for row, offset, length in wanted
        ]
        yield batch
        for shadow in shadows:
            self._let_go(shadow)
        if not self._lend:
            self._let_outdated_go()

    def _archived(self, keys: list[str]) -> list[Record]:
        """Return which of `keys` the archive holds something of."""
        if TierName.GLACIER not in self._hierarchy.tiers:
            return []
        found = map(self._hierarchy.catalog.record, keys)
        return [record for record in found if record is not None and is_archived(record)]

    def _let_outdated_go(self) -> None:
        """Remove from the archive what was replaced; what was not, for it failed, stays there."""
        is_lent = self._hierarchy.catalog.journal.is_pending
        outdated = self._outdated
        self._outdated = [(key, gone) for key, gone in outdated if is_lent(key)]
        for key, gone in outdated:
            self._hierarchy.mover.archive.resolve_removal(key, gone)

    def _record(self, row: SnapshotRow, tier: TierName, place: bytes = b"") -> Record:
        """Return what the journal is to say of `row`: a new version of its key."""
        return Record(
            key=row.key,
            version=self._hierarchy.catalog.next_version(),
            tier=tier,
            size=row.size,
            stored=row.where.length,
            stored_at=row.stored_at,
            kind=row.kind,
            terms=row.terms or DEFAULT_TERMS,
            place=place,
        )

    def _let_go(self, shadow: Entry | None) -> None:
        """Give up the payload that stood for a key until its restored version was journaled."""
        if shadow is not None:
            self._hierarchy.catalog.drop(shadow)
            self._hierarchy.mover.release(shadow)

    def _store_each(self) -> None:
        """Where cold has no room for the file: store value by value, each as far down as it must.

        Copies, and makes room first.
        """
        if self._replaces():
            self._hierarchy.clear()
        for row in self._chain.rows():
            frame = self._chain.frame(row)
            if frame is not None and self._wanted(row):
                payload = Payload.of_frame(frame, key=row.key)
                terms = row.terms or DEFAULT_TERMS
                tier = row.tier if row.tier in self._hierarchy.tiers else TierName.COLD
                self._hierarchy.put(row.key, payload, tier=tier, terms=terms)

    def _drop_old_entries(self) -> None:
        """Let go of what is in RAM and is to be seen no more; its records stay in the journal."""
        hierarchy = self._hierarchy
        for key in list(hierarchy.catalog.entries):
            with hierarchy.locks.lock(key):
                entry = hierarchy.catalog.entries.get(key)
                if entry is not None and entry.version < self.since and key[0] != INTERNAL:
                    self._let_go(entry)
                    if not entry.backed:
                        self._say_replaced(entry)

    def _remove_others(self) -> None:
        hierarchy = self._hierarchy
        journal = hierarchy.catalog.journal
        journal.remove_hidden()
        if not self._had_keys:
            return
        for key in hierarchy.catalog.keys(""):
            found = hierarchy.catalog.lookup(key)
            if found is None or found.version >= self.since:
                continue
            with hierarchy.locks.lock(key):
                found = hierarchy.catalog.lookup(key)
                if found is not None and found.version < self.since:
                    hierarchy.mover.drop(found, Cause.REPLACED)
        journal.shrink()

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

    def _note_references(self) -> None:
        catalog = self._hierarchy.catalog
        for row, where in self._references():
            with self._hierarchy.locks.lock(row.key):
                if not self._wanted(row):
                    continue
                shadow = catalog.entries.get(row.key)
                record = self._record(row, TierName.GLACIER, where.place)
                self._hierarchy.mover.archive.link(record)
                self._let_go(shadow)
