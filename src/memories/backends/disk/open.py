"""Opens a store for writing: reads the checkpoint, replays the log behind it, removes leftovers.

After a clean end nothing has to be replayed, and opening costs the same for any number of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from memories.backends.disk.fd_cache import HandleCache
from memories.backends.disk.files import Files, sync_file
from memories.backends.disk.follower import open_runs, read_manifest
from memories.backends.disk.index import Index
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.log import Log
from memories.backends.disk.log_format import (
    FILE,
    MARK,
    PACKED,
    SEGMENT_HEADER_BYTES,
    TOMBSTONE,
    IndexRow,
    Position,
    RenameMark,
    renaming_of,
    unpack_place,
)
from memories.backends.disk.lost_and_found import LostAndFound
from memories.backends.disk.manifest import IndexManifest
from memories.backends.disk.paths import StorePaths, drafts, numbers
from memories.backends.disk.reader import FrameReader, GoneError
from memories.backends.disk.replay import START, Replay, ReplayResult, apply, live_records
from memories.backends.disk.run import Run
from memories.backends.disk.run_table import RunDamagedError
from memories.backends.disk.run_writer import run_rows, write_run
from memories.backends.disk.size_limits import SizeLimits
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.backends.disk.writer import Writer
from memories.model.record import Record

Verify = Callable[[Record, memoryview], None]
SPILL_ROWS = 200_000
REBUILD_TRIES = 8


class StoreOpening:
    """The steps of opening one store for writing."""

    def __init__(
        self,
        paths: StorePaths,
        files: Files,
        *,
        mmap: bool,
        full: bool,
        verify: Verify | None,
        repair: bool,
        distrust_index: bool,
        limits: Callable[[int], SizeLimits] | None = None,
        writer_lock: WriterLock | None = None,
    ) -> None:
        self._paths, self._files, self._writer_lock = paths, files, writer_lock
        self._mmap, self._full, self._repair = mmap, full, repair
        self._verify = verify
        self._limits = limits or partial(SizeLimits.of, None)
        self._handles = HandleCache(paths, files)
        self._reader = FrameReader(paths, files, self._handles, map_large=mmap)
        self._begin(*((None, ()) if distrust_index else self._checkpoint()))

    def _begin(self, manifest: IndexManifest | None, runs: tuple[Run, ...]) -> None:
        """Begin with what a checkpoint says, or with nothing and the whole log."""
        self._seen: set[int] = set()
        self._tail: dict[int, str] = {}
        self._renaming: RenameMark | None = None  # The latest one.
        self._manifest, self.index = manifest, Index(runs)
        self.accounting = SpaceAccounting() if manifest is None else SpaceAccounting.load(manifest)
        self.start = START if manifest is None else Position(manifest.segment, manifest.offset)

    def run(self) -> tuple[Writer, list[str]]:
        """Return the writer, and what was found damaged. The caller holds the writer lock."""
        assert self._writer_lock is not None
        try:
            replayed = self._recover()
        except RunDamagedError:
            self.index.close()
            self._begin(None, ())
            replayed = self._recover()
        start = self.start
        limits = self._limits(self._held() + self._writer_lock.directory.free_bytes())
        log = Log(
            self._paths, self._files, self._handles, replayed.end, segment_bytes=limits.segment,
            writer_lock=self._writer_lock,
        )  # fmt: skip
        log.highest = max([replayed.end.segment, *numbers(self._paths.log, ".seg")])
        writer = Writer(
            self._paths, self._files, self._writer_lock, log=log, index=self.index,
            accounting=self.accounting, reader=self._reader, limits=limits, full=self._full,
            mmap=self._mmap,
            rebuild=partial(rebuild, self._paths, self._files, self._mmap),
        )  # fmt: skip
        if replayed.end == start and self._manifest is not None:
            writer.index_files.covered, writer.index_files.saved = start, self._manifest
            self._resume(log)
        else:
            self._sync_tail(start)
            log.synced = (
                start  # Its values are not synced yet, so that no record may say that it is.
            )
            writer.space.recent_heads = sum(row.head_bytes for row in self.index.recent.values())
            # A file that is missing now was missing before: a read or a check reports it, and it
            # may be brought back. Only files removed while the store is open count as lost.
            there = set(numbers(self._paths.values, ".val"))
            writer.inherit_unsynced(
                {number: key for number, key in self._tail.items() if number in there}
            )
        self._finish_renaming(writer)
        return writer, replayed.damage

    def _recover(self) -> ReplayResult:
        first_new = self.accounting.next_file
        replayed = self.replay()
        self._sweep(replayed, first_new)
        return replayed

    def _finish_renaming(self, writer: Writer) -> None:
        """Remove the old key of a renaming that was torn: its value has the new key already."""
        renaming = self._renaming
        if renaming is None:
            return
        new, old = writer.row(renaming.new), writer.row(renaming.old)
        if (
            new is not None
            and new.record.version == renaming.version
            and old is not None
            and old.kind != TOMBSTONE
            and old.record.version < renaming.gone
        ):
            writer.remove(renaming.old, renaming.gone)

    def _held(self) -> int:
        accounting = self.accounting
        return accounting.log_bytes + accounting.pack_bytes + accounting.value_bytes

    def replay(self) -> ReplayResult:
        """Read what is behind the checkpoint into the index and the accounting."""
        return Replay(
            self._paths, self._files, self._enter, repair=self._repair, intact=self._intact
        ).run(self.start)

    def _checkpoint(self) -> tuple[IndexManifest | None, tuple[Run, ...]]:
        manifest = read_manifest(self._paths, self._files)
        if manifest is None:
            return None, ()
        try:
            return manifest, open_runs(self._paths, self._files, manifest, mmap=self._mmap)
        except (RunDamagedError, FileNotFoundError):
            return None, ()

    def _enter(self, row: IndexRow) -> None:
        if row.kind == MARK:
            self._renaming = renaming_of(row.record) or self._renaming
        if row.kind in (FILE, PACKED):
            number = unpack_place(row.record.place).file
            self._seen.add(number)
            if row.kind == FILE:
                self._tail[number] = row.record.key
        apply(self.index, self.accounting, self._paths, row)
        if len(self.index.recent) >= SPILL_ROWS:
            self._spill()

    def _spill(self) -> None:
        """Write the rows in RAM as a run, so that a rebuild of a large index does not fill it."""
        number = self.accounting.file_number()
        path = self._paths.run(number)
        self._files.unlink(path)
        write_run(path, self._files, number, run_rows(self.index.freeze()), lambda: None)
        self.index.add_run(Run(path, self._files, mmap=self._mmap))

    def _intact(self, row: IndexRow) -> bool:
        if row.kind not in (FILE, PACKED):
            return True
        place = unpack_place(row.record.place)
        try:
            size = self._reader.path(place).stat().st_size
        except FileNotFoundError:
            return False
        if size < place.offset + place.length:
            return False
        if self._verify is None:
            return True
        try:
            self._verify(row.record, self._reader.read(row.record))
        except (ValueError, GoneError):
            return False
        return True

    def _sweep(self, replayed: ReplayResult, first_new: int) -> None:
        paths, files = self._paths, self._files
        lost_and_found = LostAndFound(paths, files)
        for number in replayed.void:
            if self._repair:
                lost_and_found.add_file(
                    paths.segment(number), "it lies behind the end of the history"
                )
            files.unlink(paths.segment(number))
        existing = set(numbers(paths.log, ".seg"))
        for number in set(self.accounting.segments) - existing:
            self.accounting.remove_segment(number)
        for number in existing:
            if number not in self.accounting.segments:
                self._count_again(number)
        kept = {run.number for run in self.index.runs}
        for number in set(numbers(paths.index, ".run")) - kept:
            files.unlink(paths.run(number))
        for draft in list(drafts(paths)):
            files.unlink(draft)
        if replayed.damage:
            return  # A file that no readable record names may belong to an unreadable one.
        for number in numbers(paths.values, ".val"):
            if number >= first_new and number not in self._seen:
                files.unlink(paths.value(number))
        for number in set(numbers(paths.values, ".pack")) - set(self.accounting.packs):
            files.unlink(paths.pack(number))

    def _count_again(self, number: int) -> None:
        """Count a segment that the accounting lacks: it was left torn, or was away for a while."""
        handle = self._handles.get(number)
        self.accounting.extend_segment(number, self._files.size(handle.descriptor))
        rows = live_records(self._files, handle, number, SEGMENT_HEADER_BYTES, self.index.row)
        for row, _ in rows:
            self.accounting.recount(row)

    def _resume(self, log: Log) -> None:
        path = self._paths.segment(log.end.segment)
        newest = log.highest == log.end.segment and path.exists()
        if newest and path.stat().st_size == log.end.offset:
            log.resume(log.end.segment)

    def _sync_tail(self, start: Position) -> None:
        """Sync what a killed writer had not: it is part of the history from now on."""
        for number in numbers(self._paths.log, ".seg"):
            if number >= start.segment:
                sync_file(self._files, self._paths.segment(number))
        self._files.sync_directory(self._paths.log)


def rebuild(paths: StorePaths, files: Files, mmap: bool) -> tuple[Index, SpaceAccounting]:
    """Return the index and the accounting that the whole log yields.

    A segment that nothing refers to may be unlinked after it was listed: the log is then read anew.
    """
    for left in reversed(range(REBUILD_TRIES)):
        opening = StoreOpening(
            paths, files, mmap=mmap, full=False, verify=None, repair=False, distrust_index=True
        )
        try:
            opening.replay()
            break
        except FileNotFoundError:
            if not left:
                raise
    return opening.index, opening.accounting
