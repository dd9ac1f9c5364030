"""Commits to a store: a record, and a frame with it, appended to the log and entered in the index.

Everything happens under one lock, in the order of the log. What makes it durable, and what becomes
of the dead, is the writer's business.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from memories.backends.disk import journal
from memories.backends.disk.blocks import RunDamagedError
from memories.backends.disk.files import Files, append
from memories.backends.disk.graveyard import Graveyard
from memories.backends.disk.handles import Handles
from memories.backends.disk.index import Index
from memories.backends.disk.journal import (
    FILE,
    INLINE,
    NOTE,
    PACKED,
    TOMBSTONE,
    Row,
)
from memories.backends.disk.layout import Layout
from memories.backends.disk.ledger import Ledger
from memories.backends.disk.log import Log
from memories.backends.disk.manifest import Manifest
from memories.backends.disk.reading import Reading
from memories.backends.disk.recover import START, oldest_of
from memories.backends.disk.reserve import Reserve
from memories.entry import Record, TierName

LARGE_BYTES = 1 << 20  # Values from here on get a file of their own.
MARK_RECORD = Record(key="", version=0, tier=TierName.COLD, size=0, stored_at=0.0)
Frame = Sequence[memoryview]


class Committer(ABC):
    """The half of the writer that takes records in."""

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
        self.graves = Graveyard(layout, files, handles, reading)
        self._full = full
        self.mmap = mmap
        self.reserve = Reserve(layout, files)
        self._rebuild = rebuild
        self._unsynced: dict[int, str] = {}  # Value files, and the keys they belong to.
        self._drafts: set[int] = set()  # Files that are written but not yet journaled.
        self._suspect: set[int] = set()  # Those of them whose sync failed.
        self.covered = START  # How far the manifest covers the log.
        self.saved: Manifest | None = None
        self._syncing = threading.Lock()
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

    def new_file(self) -> int:
        """Return a number for a file that is about to be written and then journaled."""
        with self.lock:
            number = self.ledger.file_number()
            self._drafts.add(number)
            return number

    def row(self, key: str) -> Row | None:
        """Return the newest row of `key`; builds the index again if a run of it is damaged."""
        try:
            return self.index.row(key)
        except RunDamagedError:
            self.rebuild()
            return self.index.row(key)

    @abstractmethod
    def rebuild(self) -> None:
        """Build index and account again from the log."""

    @abstractmethod
    def _mend(self) -> None:
        """Write again what a failed sync may have lost."""
