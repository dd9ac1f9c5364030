"""The one who changes a store: syncs what was committed, mends, gives dead files up, checkpoints.

What is dead is unlinked only after a sync of everything that replaced it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from copy import copy

from memories.backends.disk import log_format
from memories.backends.disk import manifest as manifests
from memories.backends.disk import paths as layouts
from memories.backends.disk.committer import MARK_RECORD, Committer
from memories.backends.disk.files import sync_file
from memories.backends.disk.follower import read_manifest
from memories.backends.disk.log_format import (
    FILE,
    INLINE,
    MARK,
    PACKED,
    SEGMENT_HEADER_BYTES,
    IndexRow,
    Position,
)
from memories.backends.disk.manifest import IndexManifest
from memories.backends.disk.reader import AbsentError
from memories.backends.disk.replay import NOWHERE, START
from memories.backends.disk.rows import live_records, moved, run_rows, unsynced_rows
from memories.backends.disk.run import Run
from memories.backends.disk.run_writer import write_run
from memories.errors import StorageError
from memories.foundation.call_owner import Owner
from memories.foundation.logging import logger
from memories.model.record import Record


class Writer(Committer):
    """Commits to one store, and keeps it in order."""

    # -- durability ------------------------------------------------------------------------------

    def sync(self) -> None:
        """Return once everything committed survives a power cut; then unlink what is dead."""
        with self._syncing:
            self.require_home()
            with self.lock:
                self._mend()
                self._rescue()
                values = dict(self._unsynced)
                self._begun = values.keys()
                dead, end = list(self.ledger.retired), self.log.end
            lost = self._sync_values(values)
            self.log.sync(end)  # Behind it are records whose values are not synced yet.
            with self.lock:
                for number in values:
                    self._unsynced.pop(number, None)
                self._owing = False
                self._retire(dead)
        self.release()
        if lost:
            raise StorageError(
                f"somebody removed the files of {', '.join(repr(key[:60]) for key in lost)} before "
                "they were synced; store them again. Everything else is durable"
            )

    def _sync_values(self, values: dict[int, str]) -> list[str]:
        """Sync value files; return the keys of those that are not there, though they should be."""
        lost = []
        for number, key in values.items():
            try:
                sync_file(self.files, self.layout.value(number))
            except FileNotFoundError:
                with self.lock:
                    row = self.row(key)
                if row is not None and row.kind == FILE:
                    named = log_format.unpack_place(row.record.place).file == number
                    lost += [key] if named else []  # Else it was replaced meanwhile.
            except OSError:
                self._suspect.add(number)
                raise
        if values:
            self.files.sync_directory(self.layout.values)
        return lost

    def _rescue(self) -> None:
        """Write anew what lies in segments that somebody removed while they were open here.

        It can be read for as long as they are. What was not synced goes first, and to where a
        replay looks for it.
        """
        gone = [number for number in self.handles.unnamed() if number in self.ledger.segments]
        if not gone:
            return
        self.require_home()  # It may be the directory that has gone, since it was looked at.
        layouts.require(self.layout)
        self._sync_values(dict(self._unsynced))
        self._write_again(mark=True)
        # First in its segment, for the copies say how far the log was synced when they were new.
        self._append_head(MARK, MARK_RECORD, NOWHERE)
        for number in gone:
            handle = self.handles.get(number)
            rows = list(live_records(self.files, handle, number, SEGMENT_HEADER_BYTES, self.index))
            if rows:
                self.restate(rows)
            self.doom_segment(number)
            logger.warning(
                "somebody removed %s while the store was open; %d records were written anew from "
                "what could still be read of it", self.layout.segment(number), len(rows),
            )  # fmt: skip

    def _mend(self) -> None:
        """Finish what was interrupted; after a failed sync, write again what it may have lost.

        For the kernel forgets a failure.
        """
        if self._away:
            self.require_home()
        self._whole()
        while self._suspect:
            number = next(iter(self._suspect))
            self._rewrite_value(number)
            self._suspect.discard(number)
            self._unsynced.pop(number, None)
        if self.log.suspect:
            self._write_again()

    def _write_again(self, *, mark: bool = False) -> None:
        """Let the log go on from where it is synced, with what came after that once more.

        With `mark` it says that nothing before is owed, where what said so may not be there.
        """
        rows = unsynced_rows(self.files, self.handles, self.log, self.index)
        self._commit(
            [(row.record.key, row) for row, _ in rows], lambda: self._replace(rows, mark=mark)
        )

    def _replace(self, rows: Sequence[tuple[IndexRow, bytes]], *, mark: bool) -> None:
        records = [data for _, data in rows]
        if mark:
            body, begin = log_format.encode_record(MARK_RECORD), self.log.next_segment
            records.append(log_format.pack_head(MARK, body, oldest=NOWHERE, synced=begin))
        positions = self.log.replace_unsynced(records)
        for (row, _), (segment, offset) in zip(rows, positions, strict=False):
            self.ledger.grew(segment, offset + row.extent)
            self._enter(row, moved(row, segment, offset))
        self.ledger.grew(self.log.end.segment, self.log.end.offset)

    def _rewrite_value(self, number: int) -> None:
        row = self.row(self._unsynced.get(number, ""))
        if (
            row is None
            or row.kind != FILE
            or log_format.unpack_place(row.record.place).file != number
        ):
            return
        frame, owner = self.reading.read(row.record), Owner()
        try:
            copy = self.new_file(owner, row.record.key)
            self.write_value(copy, [frame])
            place = log_format.pack_place(FILE, copy, 0, frame.nbytes)
            self._enter_head(row, FILE, log_format.placed(row.record, frame.nbytes, place))
        finally:
            self.let_go(owner)

    def require_log(self) -> None:
        """Raise StorageError if a segment with records that count is not there."""
        self.require_home()
        with self.lock:
            for number, stats in self.ledger.segments.items():
                path = self.layout.segment(number)
                if (stats.live or stats.graves) and not path.exists():
                    raise StorageError(
                        f"{path} is not there, and without it the index cannot be built again: "
                        "its keys would be absent. Bring it back"
                    )

    def rebuild(self) -> None:
        """Build index and account again from the log."""
        with self.lock:
            self.require_log()
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

    def end_pack(self, pack: int) -> None:
        """Keep a pack only for the records that name it."""
        with self.lock:
            self._drafts.pop(pack, None)
        self.changed.set()

    def write_packs(self, batches: Iterable[Sequence[Record]]) -> int:
        """Journal many records whose frames lie in packs; return how many."""
        owner = Owner()
        count = 0
        try:
            self.adopting.add(owner)
            for records in batches:
                self.write_packed(records)
                count += len(records)
        finally:
            self.let_go(owner)
            self.changed.set()
        return count

    # -- copies for compaction -------------------------------------------------------------------

    def restate(self, records: Sequence[tuple[IndexRow, bytes]]) -> None:
        """Append live records of the log once more, as they are. The caller holds the lock."""
        self._mend()
        self._commit([(row.record.key, row) for row, _ in records], lambda: self._restate(records))

    def _restate(self, records: Sequence[tuple[IndexRow, bytes]]) -> None:
        segment, offset = self.log.append(
            [data for _, data in records], sum(len(data) for _, data in records)
        )
        for row, data in records:
            self.ledger.grew(segment, offset + len(data))
            self._enter(row, moved(row, segment, offset))
            offset += len(data)

    def rewrite(self, row: IndexRow) -> None:
        """Write a record anew, its frame too unless that has a file of its own.

        Raises:
            AbsentError: the frame is not there, or cannot be read.
            GoneError: it is cut short.
        """
        if row.kind not in (INLINE, PACKED):
            with self.lock:
                if self.row(row.record.key) == row:
                    self._mend()
                    self._enter_head(row, row.kind, row.record)
            return
        frame, key = self._frame_of(row), row.record.key
        if frame.nbytes < self.scale.large:
            with self.lock:
                if self.row(key) == row:
                    self._mend()
                    self._enter_inline(row, row.record, [frame], frame.nbytes)
            return
        owner = Owner()
        try:
            number = self.new_file(owner, key)
            self.write_value(number, [frame])
            place = log_format.pack_place(FILE, number, 0, frame.nbytes)
            with self.lock:
                if self.row(key) == row:
                    self._mend()
                    self._enter_head(row, FILE, log_format.placed(row.record, frame.nbytes, place))
        finally:
            self.let_go(owner)

    def _frame_of(self, row: IndexRow) -> memoryview:
        try:
            return self.reading.read(row.record)
        except OSError as error:
            raise AbsentError(f"it cannot be read: {error.strerror or error}") from error

    def drafts(self) -> Set[int]:
        """Return the files whose records are still to come."""
        return self._drafts.keys()

    def files_in_use(self) -> set[int]:
        """Return the value files and packs that are no orphans though no key names them."""
        dead = set(self.ledger.retired) | set(self.graves.values) | self.graves.packs
        return dead.union(self._drafts, self.ledger.packs, self._unsynced)

    def owe_sync(self, values: dict[int, str]) -> None:
        """Sync these value files with the next sync: a killed writer had not."""
        with self.lock:
            self._unsynced.update(values)
            self._owing = bool(values)
        if values:
            self.changed.set()

    # -- what is dead ----------------------------------------------------------------------------

    def doom_segment(self, number: int) -> None:
        """Unlink a segment that nothing refers to any more, as soon as no view is open."""
        with self.lock:
            if number in self.ledger.segments:  # Else it was rescued meanwhile.
                self.graves.segment(number, self.ledger.segments[number].size)
                self.ledger.dropped_segment(number)

    def doom_pack(self, number: int) -> None:
        """Unlink a pack that nothing refers to any more, as soon as no view is open."""
        with self.lock:
            self.graves.pack(number, self.ledger.packs[number].size)
            self.ledger.dropped_pack(number)

    def release(self) -> None:
        """Unlink what is doomed, unless a view is open; whoever returns has waited for others."""
        with self._releasing:
            self.require_home()  # The names that are unlinked may be another store's.
            with self.lock:
                doomed = self.graves.doomed()
            for path in doomed:
                self.graves.unlink(path)

    def pin(self, view: object) -> None:
        """Keep every file until `unpin`, or until `view` dies."""
        with self.lock:
            self.graves.pin(view)

    def unpin(self, view: object) -> None:
        """Let files go again, with the next sync."""
        with self.lock:
            self.graves.unpin(view)
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
            self._mend()
            if len(self.index.tables) > 1:
                self.index.thaw()  # The checkpoint before was interrupted.
            if seal:
                self.log.cut()
            self._commit([], lambda: self._append_head(MARK, MARK_RECORD, NOWHERE))
            frozen, heads = self.index.freeze(), self.recent_heads
            number = self.ledger.file_number()
            manifest = self.manifest()
        path = self.layout.run(number)
        self.sweep_runs()
        try:
            self.sync()
            rows = run_rows(frozen)
            count = write_run(path, self.files, number, rows, pace, self.require_home)
            run = Run(path, self.files, mmap=self.mmap) if count else None
        except BaseException:
            with self.lock:
                self.index.thaw()
            self.discard(path)
            raise
        manifest.runs = [run.number for run in self.index.runs]
        if run is not None:
            manifest.runs.insert(0, number)
        # From here on the manifest may name the run; if that fails, the next checkpoint thaws.
        self.save(manifest, number)
        with self.lock:
            self.saved = manifest
            self.index.settle(run)
            self.index_bytes = sum(run.bytes for run in self.index.runs)
            self.recent_heads -= heads
            self.covered = Position(manifest.segment, manifest.offset)

    def save(self, manifest: IndexManifest, run: int) -> None:
        """Save a manifest that names `run`, which was written for it."""
        self._unnamed.add(run)
        self.require_home()
        manifests.save(manifest, self.layout, self.files)
        self._unnamed.discard(run)

    def sweep_runs(self) -> None:
        """Unlink the runs whose manifest could not be saved: on a full disk each try leaves one."""
        if not self._unnamed:
            return
        manifest = read_manifest(self.layout, self.files)
        named = set() if manifest is None else set(manifest.runs)
        for number in self._unnamed - named:  # It may have been saved, and failed after that.
            self.discard(self.layout.run(number))
        self._unnamed &= named

    def manifest(self) -> IndexManifest:
        """Return a checkpoint of this moment; whoever saves it syncs the log first."""
        ledger, end = self.ledger, self.log.end
        return IndexManifest(
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
