"""The one who changes a store: appends to the log, keeps index and account in step, syncs.

Everything that changes happens under one lock, in the order of the log. What is dead is unlinked
only after a sync of everything that replaced it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from pathlib import Path

from memories.backends.disk import journal
from memories.backends.disk import manifest as manifests
from memories.backends.disk.blocks import RunDamagedError
from memories.backends.disk.files import Files, append, sync_file
from memories.backends.disk.handles import Handle, Handles
from memories.backends.disk.index import Index, Table
from memories.backends.disk.journal import (
    FILE,
    INLINE,
    MARK,
    NOTE,
    PACKED,
    SEGMENT_HEADER_BYTES,
    TOMBSTONE,
    Position,
    Row,
)
from memories.backends.disk.layout import Layout
from memories.backends.disk.ledger import Ledger
from memories.backends.disk.log import Log
from memories.backends.disk.manifest import Manifest
from memories.backends.disk.reading import Reading
from memories.backends.disk.recover import NOWHERE, START, Walk, oldest_of
from memories.backends.disk.reserve import Reserve
from memories.backends.disk.run import Run, pack_row
from memories.backends.disk.run_writer import write_run
from memories.entry import Record, TierName

LARGE_BYTES = 1 << 20  # Values from here on get a file of their own.
_MARK = Record(key="", version=0, tier=TierName.COLD, size=0, stored_at=0.0)
Frame = Sequence[memoryview]


class Writer:
    """Commits to one store."""

    def __init__(
        self,
        layout: Layout,
        files: Files,
        *,
        log: Log,
        index: Index,
        ledger: Ledger,
        reading: Reading,
        handles: Handles,
        full: bool,
        mmap: bool,
        rebuild: Callable[[], tuple[Index, Ledger]],
    ) -> None:
        self.layout, self.files, self.reading = layout, files, reading
        self._handles = handles
        self._full = full
        self.mmap = mmap
        self.reserve = Reserve(layout, files)
        self._rebuild = rebuild
        self._unsynced: dict[int, str] = {}  # Value files, and the keys they belong to.
        self._drafts: set[int] = set()  # Files that are written but not yet journaled.
        self._suspect: set[int] = set()  # Those of them whose sync failed.
        self._dead_values: dict[int, int] = {}  # Value files that are doomed, and their bytes.
        self.covered = START  # How far the manifest covers the log.
        self.saved: Manifest | None = None
        self._syncing = threading.Lock()
        self._pins = 0
        self._doomed: list[tuple[Path, Callable[[], None]]] = []
        self._held = 0  # Bytes of unlinked value files that somebody still has mapped.
        self.unreadable: set[int] = set()  # Segments that compaction cannot walk.
        self.lock = threading.RLock()
        self.log, self.index, self.ledger = log, index, ledger
        self.index_bytes = sum(run.bytes for run in index.runs)
        self.changed = threading.Event()

    # -- commits ---------------------------------------------------------------------------------

    def write(self, record: Record, frame: Frame) -> Record:
        """Keep a frame; see `Backend.write`."""
        length = sum([buffer.nbytes for buffer in frame])
        if length >= LARGE_BYTES:
            return self._write_large(record, frame, length)
        with self.lock:
            self._mend()
            old = self.row(record.key)
            if old is not None and old.record.version > record.version:
                return record if old.kind == TOMBSTONE else old.record
            row = self._append_inline(record, frame, length, oldest_of(old))
            self._enter(old, row)
        if self._full:
            self._sync_or_undo(old, row)
        return row.record

    def write_head(self, kind: int, record: Record) -> Record:
        """Journal a record whose frame lies elsewhere, or a tombstone."""
        with self.lock:
            self._mend()
            old = self.row(record.key)
            if old is not None and old.record.version > record.version:
                return old.record
            row = self._append_head(kind, record, oldest_of(old))
            self._enter(old, row)
        if self._full:
            self._sync_or_undo(old, row)
        return row.record

    def amend(self, record: Record) -> Record:
        """Journal `record` for the version that lies here already; its frame stays where it is."""
        with self.lock:
            self._mend()
            old = self.row(record.key)
            if old is None or old.record.version != record.version:
                raise ValueError(f"{record.key!r} is not at version {record.version}")
            if old.kind == INLINE:
                frame = [self.reading.read(old.record)]
                row = self._append_inline(record, frame, frame[0].nbytes, oldest_of(old))
            else:
                row = self._append_head(old.kind, record, oldest_of(old))
            self._enter(old, row)
        if self._full:
            self._sync_or_undo(old, row)
        return row.record

    def _write_large(self, record: Record, frame: Frame, length: int) -> Record:
        number = self._write_value(frame)
        place = journal.pack_place(FILE, number, 0, length)
        if not self._full:
            with self.lock:
                self._unsynced[number] = record.key
        kept = None
        try:
            kept = self.write_head(FILE, journal.placed(record, length, place))
        finally:
            if kept is None or kept.place != place:
                self._discard_value(number)
            self._drafts.discard(number)
        return kept

    def _write_value(self, frame: Frame) -> int:
        number = self.new_file()
        path = self.layout.value(number)
        descriptor = self.files.create(path)
        try:
            append(self.files, descriptor, frame)
            if self._full:
                self.files.sync(descriptor)
            if self._full:
                self.files.sync_directory(self.layout.values)
        except BaseException:
            self._discard_value(number)
            self._drafts.discard(number)
            raise
        finally:
            self.files.close(descriptor)
        return number

    def _discard_value(self, number: int) -> None:
        with self.lock:
            self._unsynced.pop(number, None)
        self.files.unlink(self.layout.value(number))

    def _append_inline(self, record: Record, frame: Frame, length: int, oldest: int) -> Row:
        body = journal.encode_record(record)
        data = frame[0] if len(frame) == 1 else b"".join(frame)
        head = journal.pack_head(
            INLINE,
            body,
            oldest=oldest,
            synced=self.log.synced,
            frame_length=length,
            frame_sum=journal.frame_sum((data,)),
        )
        whole = b"".join((head, data, journal.padding(length)))
        extent = len(whole)
        segment, offset = self.log.append((whole,), extent)
        place = journal.pack_place(INLINE, segment, offset + len(head), length)
        self.ledger.grew(segment, offset + extent)
        return Row(journal.placed(record, length, place), INLINE, segment, offset, extent, oldest)

    def _append_head(self, kind: int, record: Record, oldest: int) -> Row:
        body = journal.encode_record(record)
        head = journal.pack_head(kind, body, oldest=oldest, synced=self.log.synced)
        segment, offset = self.log.append((head,), len(head))
        self.ledger.grew(segment, offset + len(head))
        return Row(record, kind, segment, offset, len(head), oldest)

    def _enter(self, old: Row | None, row: Row) -> None:
        self.index.put(row)
        self.ledger.replace(old, row)
        if not self.changed.is_set():
            self.changed.set()

    def _sync_or_undo(self, old: Row | None, row: Row) -> None:
        try:
            self.log.sync()
        except BaseException:
            with self.lock:
                if self.row(row.record.key) is row:
                    back = old if old is not None else row._replace(kind=TOMBSTONE)
                    self._enter(row, back)
                    self.ledger.revive(back)
            raise

    def adopt(self, pack: int, size: int, rows: Iterable[Record]) -> int:
        """Journal the records of a pack that lies at its place already; return how many."""
        with self.lock:
            self.ledger.adopted(pack, size)
            self.ledger.packs[pack].live += 1  # Not empty, though no record names it yet.
        count = 0
        try:
            for record in rows:
                self.write_head(PACKED, record)
                count += 1
        finally:
            with self.lock:
                self.ledger.packs[pack].live -= 1
                self._drafts.discard(pack)
        return count

    def remove(self, key: str, version: int) -> None:
        """Make a key absent as of `version`."""
        tomb = Record(key=key, version=version, tier=TierName.COLD, size=0, stored_at=0.0)
        try:
            self.write_head(TOMBSTONE, tomb)
        except OSError as error:
            # On a full disk removing is how to make room, so it has a reserve to be written to.
            if not self.reserve.give(error):
                raise
            self.write_head(TOMBSTONE, tomb)

    def note(self, record: Record) -> Record:
        """Journal a record whose frame lies in another backend."""
        return self.write_head(NOTE, record)

    # -- durability ------------------------------------------------------------------------------

    def sync(self) -> None:
        """Return once everything committed survives a power cut; then unlink what is dead."""
        with self._syncing:
            with self.lock:
                self._mend()
                values, self._unsynced = self._unsynced, {}
                dead = len(self.ledger.retired)
            try:
                self._sync_values(values)
                self.log.sync()
            except BaseException:
                with self.lock:
                    self._unsynced = {**values, **self._unsynced}
                raise
            with self.lock:
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

    def row(self, key: str) -> Row | None:
        """Return the newest row of `key`; builds the index again if a run of it is damaged."""
        try:
            return self.index.row(key)
        except RunDamagedError:
            self.rebuild()
            return self.index.row(key)

    def rebuild(self) -> None:
        """Build index and account again from the log."""
        with self.lock:
            index, ledger = self._rebuild()
            ledger.last_version = max(ledger.last_version, self.ledger.last_version)
            ledger.next_file = max(ledger.next_file, self.ledger.next_file)
            self.index.take(index)
            self.ledger, self.covered, self.saved = ledger, START, None
            self.index_bytes = sum(run.bytes for run in index.runs)

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
        if frame.nbytes < LARGE_BYTES:
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

    def new_file(self) -> int:
        """Return a number for a file that is about to be written and then journaled."""
        with self.lock:
            number = self.ledger.file_number()
            self._drafts.add(number)
            return number

    def files_in_use(self) -> set[int]:
        """Return the value files and packs that are no orphans though no key names them."""
        dead = {number for number, _ in self.ledger.retired}
        return self._drafts | dead | set(self._dead_values) | set(self._unsynced)

    def owe_sync(self, values: dict[int, str]) -> None:
        """Sync these value files with the next sync: a killed writer had not."""
        with self.lock:
            self._unsynced.update(values)
        if values:
            self.changed.set()

    # -- what is dead ----------------------------------------------------------------------------

    def _retire(self, count: int) -> None:
        dead, self.ledger.retired = self.ledger.retired[:count], self.ledger.retired[count:]
        for number, size in dead:
            self._dead_values[number] = size
            path = self.layout.value(number)
            self._doomed.append((path, partial(self._value_gone, number, path)))

    def _value_gone(self, number: int, path: Path) -> None:
        mapped = self.reading.mapped(path)
        with self.lock:
            size = self._dead_values.pop(number, 0)
            self.ledger.value_bytes -= size
            if mapped is not None:
                self._held += size
                weakref.finalize(mapped, self._let_go, size)

    def _let_go(self, size: int) -> None:
        with self.lock:
            self._held -= size

    def doom_segment(self, number: int) -> None:
        """Unlink a segment that nothing refers to any more, as soon as no view is open."""
        with self.lock:
            size = self.ledger.dropped_segment(number)
            self._held += size
            self._doomed.append(
                (self.layout.segment(number), partial(self._segment_gone, number, size))
            )

    def _segment_gone(self, number: int, size: int) -> None:
        self._handles.forget(number)
        self._let_go(size)

    def doom_pack(self, number: int) -> None:
        """Unlink a pack that nothing refers to any more, as soon as no view is open."""
        path = self.layout.pack(number)
        with self.lock:
            size = self.ledger.dropped_pack(number)
            self._held += size
            self._doomed.append((path, partial(self._pack_gone, path, size)))

    def _pack_gone(self, path: Path, size: int) -> None:
        mapped = self.reading.mapped(path)
        if mapped is None:
            self._let_go(size)
        else:
            weakref.finalize(mapped, self._let_go, size)

    def release(self) -> None:
        """Unlink what is doomed, unless a view is open."""
        with self.lock:
            if self._pins or not self._doomed:
                return
            doomed, self._doomed = self._doomed, []
        for at, (path, then) in enumerate(doomed):
            try:
                self.files.unlink(path)
            except BaseException:
                with self.lock:
                    self._doomed += doomed[at:]
                raise
            then()

    def pin(self) -> None:
        """Keep every file until `unpin`."""
        with self.lock:
            self._pins += 1

    def unpin(self) -> None:
        """Let files go again."""
        with self.lock:
            self._pins -= 1

    # -- checkpoints -----------------------------------------------------------------------------

    def checkpoint(self, pace: Callable[[], None] = lambda: None) -> None:
        """Write the recent rows as a run of the index, and a manifest that covers the log."""
        if self.log.end == self.covered:
            return
        self.sync()
        with self.lock:
            self._append_head(MARK, _MARK, NOWHERE)
            frozen = self.index.freeze()
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
            value_bytes=ledger.value_bytes,
            retired=[*self._dead_values.items(), *ledger.retired],
        )

    def physical(self) -> int:
        """Return the bytes taken on the medium."""
        ledger = self.ledger
        files = ledger.log_bytes + ledger.pack_bytes + ledger.value_bytes
        return files + self.index_bytes + self._held + self.reserve.bytes


def run_rows(table: Table) -> Iterator[tuple[bytes, bytes, float | None]]:
    """Yield the rows of a table as `write_run` takes them."""
    for key, row in sorted((key.encode(), row) for key, row in table.items()):
        yield key, pack_row(row, journal.encode_record), row.record.terms.expires_at


def moved(row: Row, segment: int, offset: int) -> Row:
    """Return `row` after its log record was copied to another place."""
    if row.kind != INLINE:
        return row._replace(segment=segment, offset=offset, oldest=oldest_of(row))
    place = journal.unpack_place(row.record.place)
    inside = place.offset - row.offset
    packed = journal.pack_place(INLINE, segment, offset + inside, place.length)
    record = journal.placed(row.record, row.record.stored, packed)
    return Row(record, INLINE, segment, offset, row.extent, oldest_of(row))


def unsynced_rows(layout: Layout, files: Files, log: Log, index: Index) -> list[tuple[Row, bytes]]:
    """Return the live records behind the synced part of the log, with their bytes."""
    found = []
    for number in range(log.synced.segment, log.end.segment + 1):
        path = layout.segment(number)
        start = log.synced.offset if number == log.synced.segment else SEGMENT_HEADER_BYTES
        if not path.exists():
            continue
        handle = Handle(files, files.open(path))
        walk = Walk(files, handle, start, files.size(handle.descriptor))
        for offset, head in walk:
            row = index.row(head.record.key)
            if row is not None and (row.segment, row.offset) == (number, offset):
                found.append((row, walk.bytes(offset, head.extent)))
    return found
