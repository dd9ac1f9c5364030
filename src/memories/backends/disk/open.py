"""Opens a store for writing: checkpoint, replay of what is behind it, sweep of what is left over.

After a clean end there is nothing to replay and opening costs the same for any number of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from memories.backends.disk.blocks import RunDamagedError
from memories.backends.disk.fd_cache import HandleCache
from memories.backends.disk.files import Files, sync_file
from memories.backends.disk.follower import open_runs, read_manifest
from memories.backends.disk.index import Index
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.log import Log
from memories.backends.disk.log_format import (
    FILE,
    PACKED,
    SEGMENT_HEADER_BYTES,
    IndexRow,
    Position,
    unpack_place,
)
from memories.backends.disk.lost_and_found import LostAndFound
from memories.backends.disk.manifest import IndexManifest
from memories.backends.disk.paths import StorePaths, numbers
from memories.backends.disk.reader import FrameReader, GoneError
from memories.backends.disk.replay import START, Replay, ReplayResult, apply
from memories.backends.disk.rows import live_records, run_rows
from memories.backends.disk.run import Run
from memories.backends.disk.run_writer import write_run
from memories.backends.disk.size_limits import SizeLimits
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.backends.disk.writer import Writer
from memories.model.record import Record

Verify = Callable[[Record, memoryview], None]
SPILL_ROWS = 200_000


class StoreOpening:
    """The steps of opening one store for writing."""

    def __init__(
        self,
        layout: StorePaths,
        files: Files,
        *,
        mmap: bool,
        full: bool,
        verify: Verify | None,
        repair: bool,
        distrust_index: bool,
        capacity: int | None = None,
        guard: WriterLock | None = None,
    ) -> None:
        self._layout, self._files, self._guard = layout, files, guard
        self._mmap, self._full, self._repair = mmap, full, repair
        self._verify, self._capacity = verify, capacity
        self._handles = HandleCache(layout, files)
        self._reading = FrameReader(layout, files, self._handles, map_large=mmap)
        self._seen: set[int] = set()
        self._tail: dict[int, str] = {}
        self._manifest, runs = (None, ()) if distrust_index else self._checkpoint()
        self.index = Index(runs)
        self.ledger = (
            SpaceAccounting() if self._manifest is None else SpaceAccounting.load(self._manifest)
        )

        self.start = START
        if self._manifest is not None:
            self.start = Position(self._manifest.segment, self._manifest.offset)

    def run(self) -> tuple[Writer, list[str]]:
        """Return the writer, and what was found damaged; it needs the lock that was taken."""
        assert self._guard is not None
        start, first_new = self.start, self.ledger.next_file
        replayed = self.replay()
        self._sweep(replayed, first_new)
        scale = SizeLimits.of(self._capacity, self._held() + self._guard.home.free_bytes())
        log = Log(
            self._layout, self._files, self._handles, replayed.end, segment_bytes=scale.segment,
            guard=self._guard,
        )  # fmt: skip
        log.highest = max([replayed.end.segment, *numbers(self._layout.log, ".seg")])
        writer = Writer(
            self._layout, self._files, self._guard, log=log, index=self.index, ledger=self.ledger,
            reading=self._reading, handles=self._handles, scale=scale, full=self._full,
            mmap=self._mmap,
            rebuild=partial(rebuild, self._layout, self._files, self._mmap),
        )  # fmt: skip
        if replayed.end == start and self._manifest is not None:
            writer.covered, writer.saved = start, self._manifest
            self._resume(log)
        else:
            self._sync_tail(start)
            log.synced = start  # Its values are still owed, so nothing may claim that it is whole.
            writer.recent_heads = sum(row.head_bytes for row in self.index.recent.values())
            # What is not there was so before: whoever reads or checks it is told, and it may be
            # brought back. It is not among those that somebody removes from an open store.
            there = set(numbers(self._layout.values, ".val"))
            writer.owe_sync({number: key for number, key in self._tail.items() if number in there})
        return writer, replayed.damage

    def _held(self) -> int:
        ledger = self.ledger
        return ledger.log_bytes + ledger.pack_bytes + ledger.value_bytes

    def replay(self) -> ReplayResult:
        """Read what is behind the checkpoint into the index and the account."""
        return Replay(
            self._layout, self._files, self._enter, repair=self._repair, intact=self._intact
        ).run(self.start)

    def _checkpoint(self) -> tuple[IndexManifest | None, tuple[Run, ...]]:
        manifest = read_manifest(self._layout, self._files)
        if manifest is None:
            return None, ()
        try:
            return manifest, open_runs(self._layout, self._files, manifest, mmap=self._mmap)
        except (RunDamagedError, FileNotFoundError):
            return None, ()

    def _enter(self, row: IndexRow) -> None:
        if row.kind in (FILE, PACKED):
            number = unpack_place(row.record.place).file
            self._seen.add(number)
            if row.kind == FILE:
                self._tail[number] = row.record.key
        apply(self.index, self.ledger, self._layout, row)
        if len(self.index.recent) >= SPILL_ROWS:
            self._spill()

    def _spill(self) -> None:
        """Keep a rebuild of a large index from filling the RAM."""
        number = self.ledger.file_number()
        path = self._layout.run(number)
        self._files.unlink(path)
        write_run(path, self._files, number, run_rows(self.index.freeze()), lambda: None)
        self.index.settle(Run(path, self._files, mmap=self._mmap))

    def _intact(self, row: IndexRow) -> bool:
        if row.kind not in (FILE, PACKED):
            return True
        place = unpack_place(row.record.place)
        try:
            size = self._reading.path(place).stat().st_size
        except FileNotFoundError:
            return False
        if size < place.offset + place.length:
            return False
        if self._verify is None:
            return True
        try:
            self._verify(row.record, self._reading.read(row.record))
        except (ValueError, GoneError):
            return False
        return True

    def _sweep(self, replayed: ReplayResult, first_new: int) -> None:
        layout, files = self._layout, self._files
        aside = LostAndFound(layout, files)
        for number in replayed.void:
            if self._repair:
                aside.whole(layout.segment(number), "It lies behind the end of the history.")
            files.unlink(layout.segment(number))
        existing = set(numbers(layout.log, ".seg"))
        for number in set(self.ledger.segments) - existing:
            self.ledger.dropped_segment(number)
        for number in existing:
            if number not in self.ledger.segments:
                self._count_again(number)
        kept = {run.number for run in self.index.runs}
        for number in set(numbers(layout.index, ".run")) - kept:
            files.unlink(layout.run(number))
        for directory in (layout.root, layout.log, layout.values, layout.index):
            for draft in directory.glob("*.tmp"):
                files.unlink(draft)
        if replayed.damage:
            return  # What no readable record names may belong to one that is not readable.
        for number in numbers(layout.values, ".val"):
            if number >= first_new and number not in self._seen:
                files.unlink(layout.value(number))
        for number in set(numbers(layout.values, ".pack")) - set(self.ledger.packs):
            files.unlink(layout.pack(number))

    def _count_again(self, number: int) -> None:
        """Count a segment that the account does not know: it was left torn, or away for a while."""
        handle = self._handles.get(number)
        self.ledger.grew(number, self._files.size(handle.descriptor))
        rows = live_records(self._files, handle, number, SEGMENT_HEADER_BYTES, self.index)
        for row, _ in rows:
            self.ledger.recount(row)

    def _resume(self, log: Log) -> None:
        path = self._layout.segment(log.end.segment)
        newest = log.highest == log.end.segment and path.exists()
        if newest and path.stat().st_size == log.end.offset:
            log.resume(log.end.segment)

    def _sync_tail(self, start: Position) -> None:
        """Sync what a killed writer had not: it counts as history from now on."""
        for number in numbers(self._layout.log, ".seg"):
            if number >= start.segment:
                sync_file(self._files, self._layout.segment(number))
        self._files.sync_directory(self._layout.log)


def rebuild(layout: StorePaths, files: Files, mmap: bool) -> tuple[Index, SpaceAccounting]:
    """Return the index and the account as the whole log says them."""
    opening = StoreOpening(
        layout, files, mmap=mmap, full=False, verify=None, repair=False, distrust_index=True
    )
    opening.replay()
    return opening.index, opening.ledger
