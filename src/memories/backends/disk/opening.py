"""Opens a store for writing: checkpoint, replay of what is behind it, sweep of what is left over.

After a clean end there is nothing to replay and opening costs the same for any number of keys.
"""

from __future__ import annotations

from collections.abc import Callable

from memories.backends.disk.files import Files
from memories.backends.disk.follow import open_runs, read_manifest
from memories.backends.disk.handles import Handles
from memories.backends.disk.index import Index
from memories.backends.disk.journal import FILE, PACKED, Position, Row, unpack_place
from memories.backends.disk.layout import Layout, numbers
from memories.backends.disk.ledger import Ledger
from memories.backends.disk.log import Log
from memories.backends.disk.manifest import Manifest
from memories.backends.disk.reading import GoneError, Reading
from memories.backends.disk.recover import START, Replay, Replayed, apply
from memories.backends.disk.run import Run, RunDamagedError
from memories.backends.disk.writer import Writer, sync_file

Verify = Callable[[memoryview], None]


class Opening:
    """The steps of opening one store for writing."""

    def __init__(
        self,
        layout: Layout,
        files: Files,
        *,
        mmap: bool,
        full: bool,
        verify: Verify | None,
        repair: bool,
        distrust_index: bool,
    ) -> None:
        self._layout, self._files = layout, files
        self._mmap, self._full, self._repair = mmap, full, repair
        self._verify = verify
        self._handles = Handles(layout, files)
        self._reading = Reading(layout, files, self._handles, mmap=mmap)
        self._seen: set[int] = set()
        self._tail: dict[int, str] = {}
        self._manifest, runs = (None, ()) if distrust_index else self._checkpoint()
        self._index = Index(runs)
        self._ledger = Ledger() if self._manifest is None else Ledger.load(self._manifest)

    def run(self) -> tuple[Writer, list[str]]:
        """Return the writer, and what was found damaged."""
        manifest = self._manifest
        start = START if manifest is None else Position(manifest.segment, manifest.offset)
        first_new = self._ledger.next_file
        replayed = Replay(
            self._layout, self._files, self._enter, repair=self._repair, intact=self._intact
        ).run(start)
        self._sweep(replayed, first_new)
        log = Log(self._layout, self._files, self._handles, replayed.end)
        log.highest = max([replayed.end.segment, *numbers(self._layout.log, ".seg")])
        writer = Writer(
            self._layout, self._files, log=log, index=self._index, ledger=self._ledger,
            reading=self._reading, handles=self._handles, full=self._full, mmap=self._mmap,
        )  # fmt: skip
        if replayed.end == start and manifest is not None:
            writer.covered, writer.saved = start, manifest
            self._resume(log)
        else:
            self._sync_tail(start)
            writer.owe_sync(self._tail)
        return writer, replayed.damage

    def _checkpoint(self) -> tuple[Manifest | None, tuple[Run, ...]]:
        manifest = read_manifest(self._layout, self._files)
        if manifest is None:
            return None, ()
        try:
            return manifest, open_runs(self._layout, self._files, manifest, mmap=self._mmap)
        except (RunDamagedError, FileNotFoundError):
            return None, ()

    def _enter(self, row: Row) -> None:
        if row.kind in (FILE, PACKED):
            number = unpack_place(row.record.place).file
            self._seen.add(number)
            if row.kind == FILE:
                self._tail[number] = row.record.key
        apply(self._index, self._ledger, self._layout, row)

    def _intact(self, row: Row) -> bool:
        if row.kind not in (FILE, PACKED):
            return True
        place = unpack_place(row.record.place)
        try:
            size = self._reading.path(place).stat().st_size
        except FileNotFoundError:
            return False
        if size < place.offset + place.length:
            return False
        if self._verify is None or self._manifest is None:
            return True
        try:
            self._verify(self._reading.read(row.record))
        except (ValueError, GoneError):
            return False
        return True

    def _sweep(self, replayed: Replayed, first_new: int) -> None:
        layout, files = self._layout, self._files
        for number in replayed.void:
            files.unlink(layout.segment(number))
        existing = set(numbers(layout.log, ".seg"))
        for number in set(self._ledger.segments) - existing:
            self._ledger.dropped_segment(number)
        for number in existing:
            if number not in self._ledger.segments:
                self._ledger.grew(number, layout.segment(number).stat().st_size)
        kept = {run.number for run in self._index.runs}
        for number in set(numbers(layout.index, ".run")) - kept:
            files.unlink(layout.run(number))
        for directory in (layout.root, layout.log, layout.values, layout.index):
            for draft in directory.glob("*.tmp"):
                files.unlink(draft)
        if replayed.damage:
            return  # What no readable record names may belong to one that is not readable.
        for suffix, path in ((".val", layout.value), (".pack", layout.pack)):
            for number in numbers(layout.values, suffix):
                if number >= first_new and number not in self._seen:
                    files.unlink(path(number))

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
