"""The one who changes a store: syncs what was committed, mends, gives dead files up, checkpoints.

What is dead is unlinked only after a sync of everything that replaced it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from copy import copy

from memories.backends.disk import journal
from memories.backends.disk import manifest as manifests
from memories.backends.disk.committer import MARK_RECORD, Committer
from memories.backends.disk.files import sync_file
from memories.backends.disk.journal import (
    FILE,
    INLINE,
    MARK,
    PACKED,
    Position,
    Row,
)
from memories.backends.disk.manifest import Manifest
from memories.backends.disk.recover import NOWHERE, START, oldest_of
from memories.backends.disk.rows import moved, run_rows, unsynced_rows
from memories.backends.disk.run import Run
from memories.backends.disk.run_writer import write_run
from memories.entry import Record


class Writer(Committer):
    """Commits to one store, and keeps it in order."""

    # -- durability ------------------------------------------------------------------------------

    def sync(self) -> None:
        """Return once everything committed survives a power cut; then unlink what is dead."""
        with self._syncing:
            with self.lock:
                self._mend()
                values, self._unsynced = self._unsynced, {}
                dead, end = list(self.ledger.retired), self.log.end
            try:
                self._sync_values(values)
                self.log.sync(end)  # Behind it are records whose values are not synced yet.
            except BaseException:
                with self.lock:
                    self._unsynced = {**values, **self._unsynced}
                raise
            with self.lock:
                self._owing = False
                self._retire(dead)
        self.release()

    def _sync_values(self, values: dict[int, str]) -> None:
        for number in values:
            try:
                sync_file(self.files, self.layout.value(number))
            except FileNotFoundError:
                continue  # It was replaced and unlinked meanwhile.
            except BaseException:
                self._suspect.add(number)
                raise
        if values:
            self.files.sync_directory(self.layout.values)

    def _mend(self) -> None:
        """After a failed sync, write again what it may have lost: the kernel forgets a failure."""
        while self._suspect:
            number = next(iter(self._suspect))
            self._rewrite_value(number)
            self._suspect.discard(number)
            self._unsynced.pop(number, None)
        if self.log.suspect:
            rows = unsynced_rows(self.layout, self.files, self.log, self.index)
            positions = self.log.replace_unsynced([data for _, data in rows])
            for (row, _), (segment, offset) in zip(rows, positions, strict=True):
                self.ledger.grew(segment, offset + row.extent)
                self._enter(row, moved(row, segment, offset))

    def _rewrite_value(self, number: int) -> None:
        row = self.row(self._unsynced.get(number, ""))
        if row is None or row.kind != FILE or journal.unpack_place(row.record.place).file != number:
            return
        frame = self.reading.read(row.record)
        copy = self._write_value([frame])
        place = journal.pack_place(FILE, copy, 0, frame.nbytes)
        self._unsynced[copy] = row.record.key
        new = self._append_head(
            FILE, journal.placed(row.record, frame.nbytes, place), oldest_of(row)
        )
        self._enter(row, new)
        self._drafts.discard(copy)

    def rebuild(self) -> None:
        """Build index and account again from the log."""
        with self.lock:
            index, ledger = self._rebuild()
            ledger.last_version = max(ledger.last_version, self.ledger.last_version)
            ledger.next_file = max(ledger.next_file, self.ledger.next_file)
            self.index.take(index)
            self.ledger, self.covered, self.saved = ledger, START, None
            self.index_bytes = sum(run.bytes for run in index.runs)

    # -- many at once ----------------------------------------------------------------------------

    def adopt(self, pack: int, size: int, batches: Iterable[Sequence[Record]]) -> int:
        """Journal the records of a pack that lies at its place already; return how many."""
        self.begin_pack(pack, size)
        try:
            return self.write_packs(batches)
        finally:
            self.end_pack(pack)

    def begin_pack(self, pack: int, size: int) -> None:
        """Count a pack that is here; it is kept until `end_pack`, though no record names it."""
        with self.lock:
            self.ledger.adopted(pack, size)
            self.ledger.packs[pack].live += 1

    def end_pack(self, pack: int) -> None:
        """Keep a pack only for the records that name it."""
        with self.lock:
            self.ledger.packs[pack].live -= 1
            self._drafts.discard(pack)
        self.changed.set()

    def write_packs(self, batches: Iterable[Sequence[Record]]) -> int:
        """Journal many records whose frames lie in packs; return how many."""
        with self.lock:
            self.adopting += 1
        count = 0
        try:
            for records in batches:
                self.write_packed(records)
                count += len(records)
        finally:
            with self.lock:
                self.adopting -= 1
            self.changed.set()
        return count

    # -- copies for compaction -------------------------------------------------------------------

    def restate(self, records: Sequence[tuple[Row, bytes]]) -> None:
        """Append live records of the log once more, as they are. The caller holds the lock."""
        self._mend()
        segment, offset = self.log.append(
            [data for _, data in records], sum(len(data) for _, data in records)
        )
        for row, data in records:
            self.ledger.grew(segment, offset + len(data))
            self._enter(row, moved(row, segment, offset))
            offset += len(data)

    def rewrite(self, row: Row) -> None:
        """Write a record anew, its frame too unless that has a file of its own."""
        if row.kind not in (INLINE, PACKED):
            with self.lock:
                if self.row(row.record.key) == row:
                    self._mend()
                    self._enter(row, self._append_head(row.kind, row.record, oldest_of(row)))
            return
        frame, key = self.reading.read(row.record), row.record.key
        if frame.nbytes < self.scale.large:
            with self.lock:
                if self.row(key) == row:
                    self._mend()
                    new = self._append_inline(row.record, [frame], frame.nbytes, oldest_of(row))
                    self._enter(row, new)
            return
        number = self._write_value([frame])
        place = journal.pack_place(FILE, number, 0, frame.nbytes)
        with self.lock:
            current = self.row(key) == row
            if current:
                self._mend()
                self._unsynced[number] = key
                record = journal.placed(row.record, frame.nbytes, place)
                self._enter(row, self._append_head(FILE, record, oldest_of(row)))
        if not current:
            self._discard_value(number)
        self._drafts.discard(number)

    def drafts(self) -> Set[int]:
        """Return the files whose records are still to come."""
        return self._drafts

    def files_in_use(self) -> set[int]:
        """Return the value files and packs that are no orphans though no key names them."""
        dead = set(self.ledger.retired) | set(self.graves.values) | self.graves.packs
        return self._drafts | dead | set(self.ledger.packs) | set(self._unsynced)

    def owe_sync(self, values: dict[int, str]) -> None:
        """Sync these value files with the next sync: a killed writer had not."""
        with self.lock:
            self._unsynced.update(values)
            self._owing = bool(values)
        if values:
            self.changed.set()

    # -- what is dead ----------------------------------------------------------------------------

    def _retire(self, dead: list[int]) -> None:
        for number in dead:
            size = self.ledger.retired.pop(number, None)
            if size is not None:  # Else what was to replace it has failed meanwhile.
                self.ledger.value_bytes -= size
                self.graves.value(number, size)

    def doom_segment(self, number: int) -> None:
        """Unlink a segment that nothing refers to any more, as soon as no view is open."""
        with self.lock:
            self.graves.segment(number, self.ledger.dropped_segment(number))

    def doom_pack(self, number: int) -> None:
        """Unlink a pack that nothing refers to any more, as soon as no view is open."""
        with self.lock:
            self.graves.pack(number, self.ledger.dropped_pack(number))

    def release(self) -> None:
        """Unlink what is doomed, unless a view is open; whoever returns has waited for others."""
        with self._releasing:
            with self.lock:
                doomed = self.graves.take()
            for at, (path, size) in enumerate(doomed):
                try:
                    self.graves.unlink(path, size)
                except BaseException:
                    with self.lock:
                        self.graves.give_back(doomed[at:])
                    raise

    def pin(self) -> None:
        """Keep every file until `unpin`."""
        with self.lock:
            self.graves.pins += 1

    def unpin(self) -> None:
        """Let files go again, with the next sync."""
        with self.lock:
            self.graves.pins -= 1
            self.changed.set()

    def close(self) -> None:
        """Let go of every file; whoever calls has ended the threads."""
        self.log.close()
        self.index.close()

    # -- checkpoints -----------------------------------------------------------------------------

    def checkpoint(self, pace: Callable[[], None] = lambda: None, *, seal: bool = False) -> None:
        """Write the recent rows as a run of the index, and a manifest that covers the log.

        With `seal` the log goes on in a new segment, so that all others can be compacted.
        """
        if self.log.end == self.covered and not seal:
            return
        with self.tidying:
            self._checkpoint(pace, seal=seal)

    def _checkpoint(self, pace: Callable[[], None], *, seal: bool) -> None:
        self.sync()
        with self.lock:
            if seal:
                self.log.cut()
            self._append_head(MARK, MARK_RECORD, NOWHERE)
            frozen, heads = self.index.freeze(), self.recent_heads
            number = self.ledger.file_number()
            manifest = self.manifest()
        try:
            self.sync()
            path = self.layout.run(number)
            rows = run_rows(frozen)
            count = write_run(path, self.files, number, rows, pace)
            run = Run(path, self.files, mmap=self.mmap) if count else None
            manifest.runs = [run.number for run in self.index.runs]
            if run is not None:
                manifest.runs.insert(0, number)
            manifests.save(manifest, self.layout, self.files)
        except BaseException:
            with self.lock:
                self.index.thaw()
            raise
        with self.lock:
            self.index.settle(run)
            self.index_bytes += run.bytes if run is not None else 0
            self.recent_heads -= heads
            self.saved = manifest
            self.covered = Position(manifest.segment, manifest.offset)

    def manifest(self) -> Manifest:
        """Return a checkpoint of this moment; whoever saves it syncs the log first."""
        ledger, end = self.ledger, self.log.end
        return Manifest(
            runs=[run.number for run in self.index.runs],
            segment=end.segment,
            offset=end.offset,
            segments={number: copy(stats) for number, stats in ledger.segments.items()},
            packs={number: copy(stats) for number, stats in ledger.packs.items()},
            next_file=ledger.next_file,
            last_version=ledger.last_version,
            keys=ledger.keys,
            elsewhere=ledger.elsewhere,
            live=ledger.live,
            value_bytes=ledger.value_bytes + sum(self.graves.values.values()),
            retired=[*self.graves.values.items(), *ledger.retired.items()],
        )
