"""Changes a store: commits records, syncs them, writes checkpoints, drops files that are dead.

A `Writer` puts its parts in order under one lock: `Space` says whether there is room, `Appender`
makes a commit one step, `Unsynced` says what a sync still owes, `IndexFiles` keeps the runs. A dead
file is unlinked only after a sync of everything that replaced it.

Longer than 600 lines because all of it runs under one lock, in an order that keeps the store whole
after an interrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import takewhile
from typing import NamedTuple, TypeVar

from memories.backends.disk import log_format
from memories.backends.disk import paths as store_paths
from memories.backends.disk.appender import Appender, Entered, Frame
from memories.backends.disk.fd_cache import Handle
from memories.backends.disk.files import Files, append, append_early
from memories.backends.disk.index import Index
from memories.backends.disk.index_files import IndexFiles, forget_tombstones, manifest_of
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.log import Log
from memories.backends.disk.log_format import (
    FILE,
    INLINE,
    NOTE,
    PACKED,
    SEGMENT_HEADER_BYTES,
    TOMBSTONE,
    IndexRow,
    Position,
    unpack_place,
)
from memories.backends.disk.obsolete_files import ObsoleteFiles
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.reader import AbsentError, FrameReader
from memories.backends.disk.replay import START, live_records
from memories.backends.disk.run_table import RunDamagedError, read_mended
from memories.backends.disk.run_writer import merged_rows, run_rows
from memories.backends.disk.size_limits import SizeLimits
from memories.backends.disk.size_limits import blocks as in_blocks
from memories.backends.disk.space import FreeSpace, Reserve, Space
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.backends.disk.tombstones import ForgottenTombstones
from memories.backends.disk.unsynced import Unsynced
from memories.errors import StorageError
from memories.foundation.call_owner import CallOwner
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.model.record import Record
from memories.model.tiers import TierName

T = TypeVar("T")


class UnnamedFile(NamedTuple):
    """A file that is written but not yet named by the log."""

    owner: CallOwner | None  # The call that writes it, if the file ends with that call.
    key: str  # The key it is for, if it holds one value.


class Writer:
    """Commits to one store, and keeps it in order. Any thread may call it.

    Locks are taken in this order: `index_files.merge_lock`, `upkeep_lock`, `unsynced.sync_lock`,
    `lock`.
    """

    def __init__(
        self,
        paths: StorePaths,
        files: Files,
        writer_lock: WriterLock,
        *,
        log: Log,
        index: Index,
        accounting: SpaceAccounting,
        reader: FrameReader,
        limits: SizeLimits,
        full: bool,
        mmap: bool,
        rebuild: Callable[[], tuple[Index, SpaceAccounting]],
    ) -> None:
        self.paths, self.files, self.reader = paths, files, reader
        self.writer_lock = writer_lock
        self.log, self.index, self.accounting = log, index, accounting
        self._full = full
        self._rebuild = rebuild
        self.obsolete = ObsoleteFiles(paths, files, reader)
        self.space = Space(
            limits,
            accounting,
            self.obsolete,
            reserve=Reserve(paths, files, limits.reserve, 2 * limits.segment),
            free=FreeSpace(lambda: max(0, writer_lock.directory.free_bytes() - limits.beside)),
            runs=index.runs,
        )
        self.unsynced = Unsynced(paths, files, full=full)
        self.appender = Appender(
            paths, log, index, accounting, space=self.space, unsynced=self.unsynced,
            obsolete=self.obsolete, full=full, seal=files.seal,
        )  # fmt: skip
        self.index_files = IndexFiles(paths, files, writer_lock, mmap=mmap)
        self.lock = new_lock()
        self.upkeep_lock = new_lock()  # One compaction or checkpoint at a time.
        self.unnamed: dict[int, UnnamedFile] = {}
        # Calls that wait for upkeep; while there are any, upkeep does not pause.
        self.waiting: set[CallOwner] = set()
        self.importing: set[CallOwner] = set()  # Calls that write many records at once.
        # What compaction cannot read: segments that it cannot walk, and packs.
        self.unreadable: dict[str, set[int]] = {"segment": set(), "pack": set()}

    def keys(self) -> int:
        """Return how many keys are seen; it waits for a commit, which enters the index first."""
        with self.lock:
            overlay = self.appender.overlay
            return self.accounting.keys + (0 if overlay is None else overlay.extra)

    def row(self, key: str) -> IndexRow | None:
        """Return the newest row of `key`; rebuilds the index if a run of it is damaged."""
        return read_mended(lambda: self.index.row(key), self.rebuild)

    def _rows(self, keys: Sequence[str]) -> list[IndexRow | None]:
        """Return what `row` returns of each key."""
        rows = self.reader.small.rows(keys)
        return [self.row(key) for key in keys] if rows is None else rows

    # -- commits ---------------------------------------------------------------------------------

    def write(self, record: Record, frame: Frame, granted: int = 0) -> Record:
        """Store a frame; see `Backend.write`. `granted` bytes are claimed for it already."""
        length, seal = 0, self.files.seal
        for buffer in frame:
            length += buffer.nbytes
        if seal is not None:
            length = seal.frame_length(length)
        if length >= self.space.limits.large:
            return self._write_large(record, frame, length, granted)
        if seal is not None:
            frame = [seal.frame(record, frame)]
        with self.lock:
            self._mend_if_needed()
            self.space.require(length, granted)
            old = self.row(record.key)
            if old is not None and (newer := _newer(old, record)) is not None:
                return newer
            entered = self._enter(old, INLINE, record, frame, length)
        if self._full:
            self._sync_or_undo(*entered)
        return entered[0][1].record

    def _enter(
        self,
        old: IndexRow | None,
        kind: int,
        record: Record,
        frame: Frame = (),
        length: int = 0,
    ) -> list[Entered]:
        """Append a record in the place of `old`; and the removal of the key that it renames."""
        renames = self.appender.renames
        leaving = renames.get(record.key) if renames and kind != TOMBSTONE else None
        if leaving is not None:
            tomb = _tombstone(*leaving)
            gone = (tomb, self.row(tomb.key))
            return self.appender.renamed((record, old), kind, frame, length, gone)
        if kind == INLINE:
            return [(old, self.appender.inline(old, record, frame, length))]
        return [(old, self.appender.head(old, kind, record))]

    def write_if_room(
        self, record: Record, frame: Frame, length: int, coming: int
    ) -> Record | None:
        """Store a small frame of `length` bytes if there is room for `coming` bytes, else None."""
        if self.files.seal is not None:
            frame = [self.files.seal.frame(record, frame)]
            length = frame[0].nbytes
        with self.lock:
            self._mend_if_needed()
            if not self.space.takes(length, coming):
                return None
            old = self.row(record.key)
            if old is not None and (newer := _newer(old, record)) is not None:
                return newer
            row = self.appender.inline(old, record, frame, length)
        if self._full:
            self._sync_or_undo((old, row))
        return row.record

    def write_batch(self, items: Sequence[tuple[Record, Frame]], granted: int = 0) -> list[Record]:
        """Store small frames of different keys with one append; see `DiskBackend.write_many`."""
        if self.files.seal is not None:
            items = [(record, [self.files.seal.frame(record, frame)]) for record, frame in items]
        length = sum([buffer.nbytes for _, frame in items for buffer in frame])
        with self.lock:
            self._mend_if_needed()
            self.space.require(length, granted)
            found, newer = list[tuple[Record, IndexRow | None, Frame]](), dict[str, Record]()
            olds = self._rows([record.key for record, _ in items])
            for (record, frame), old in zip(items, olds, strict=True):
                late = None if old is None else _newer(old, record)
                if late is None:
                    found.append((record, old, frame))
                else:
                    newer[record.key] = late
            entered = self.appender.inlines(found) if found else []
        if self._full:
            self._sync_or_undo(*entered)
        if not newer:
            return [row.record for _, row in entered]
        stored = newer | {row.record.key: row.record for _, row in entered}
        keys = [record.key for record, _ in items]
        return [stored[key] for key in takewhile(stored.__contains__, keys)]

    def remove_batch(self, items: Sequence[tuple[str, int]]) -> int:
        """Remove different keys with one append; see `DiskBackend.remove_many`."""
        with self.lock:
            self._mend()
            found = []
            for key, version in items:
                tomb, old = _tombstone(key, version), self.row(key)
                if _newer(old, tomb) is None:
                    found.append((tomb, old))
            entered = self.appender.tombstones(found) if found else []
        if self._full:
            self._sync_or_undo(*entered)
        if len(entered) == len(found):
            return len(items)
        refused = found[len(entered)][0].key
        return [key for key, _ in items].index(refused)

    def write_head(self, kind: int, record: Record) -> Record:
        """Write a record whose frame lies elsewhere, or a tombstone."""
        with self.lock:
            self._mend()
            old = self.row(record.key)
            if (newer := _newer(old, record)) is not None:
                return newer
            entered = self._enter(old, kind, record)
        if self._full:
            self._sync_or_undo(*entered)
        return entered[0][1].record

    def write_packed(self, records: Sequence[Record]) -> None:
        """Write those records that are the newest of their keys, whose frames lie in packs."""
        with self.lock:
            self._mend()
            found, olds = [], self._rows([record.key for record in records])
            for record, old in zip(records, olds, strict=True):
                if old is None or old.record.version < record.version:
                    found.append((record, old))
            entered = self.appender.packed(found) if found else []
        if self._full:
            self._sync_or_undo(*entered)

    def amend(self, record: Record, granted: int = 0) -> Record:
        """Write `record` for the version that lies here already; its frame stays where it is."""
        with self.lock:
            self._mend()
            old = self.row(record.key)
            if old is None or old.record.version != record.version:
                raise ValueError(f"{record.key!r} is not at version {record.version}")
            if old.kind == INLINE:
                frame = [self.reader.stored(old.record)]
                self.space.require(frame[0].nbytes, granted)
                row = self.appender.inline(old, record, frame, frame[0].nbytes)
            else:
                row = self.appender.head(old, old.kind, record)
        if self._full:
            self._sync_or_undo((old, row))
        return row.record

    def remove(self, key: str, version: int) -> None:
        """Make a key absent as of `version`."""
        self.on_full_disk(lambda: self.write_head(TOMBSTONE, _tombstone(key, version)))

    def write_note(self, record: Record) -> Record:
        """Write a record whose frame lies in another backend."""
        return self.on_full_disk(lambda: self.write_head(NOTE, record))

    def on_full_disk(self, action: Callable[[], T]) -> T:
        """Return `action()`, which makes room in the end; it may use up the reserve."""
        try:
            return action()
        except OSError as error:
            if not self.space.reserve.release_if_full(error):
                raise
        return action()

    def _write_large(self, record: Record, frame: Frame, length: int, granted: int) -> Record:
        owner = CallOwner()
        try:
            taken = in_blocks(length)
            with self.lock:
                self.space.require(taken, granted)
                if taken > granted:
                    self.space.claims[owner] = taken
            number = self.new_file(owner, record.key)
            blocks: Iterable[Sequence[bytes | memoryview]] = [frame]
            if self.files.seal is not None:
                blocks = ([block] for block in self.files.seal.blocks(record, frame))
            self._write_value(number, blocks)
            place = log_format.pack_place(FILE, number, 0, length)
            return self.write_head(FILE, log_format.placed(record, length, place))
        finally:
            self.release(owner)

    # -- what a call holds -----------------------------------------------------------------------

    @contextmanager
    def claimed(self, size: int, owner: CallOwner) -> Iterator[None]:
        """Claim `size` bytes for the length of the block, or until the call of `owner` ends."""
        self.space.claims[owner] = size
        try:
            yield
        finally:
            self.release(owner)

    @contextmanager
    def hurried(self, owner: CallOwner) -> Iterator[None]:
        """Have background upkeep take no rests meanwhile: the call of `owner` waits for it."""
        self.waiting.add(owner)
        try:
            yield
        finally:
            self.release(owner)

    def new_file(self, owner: CallOwner | None = None, key: str = "") -> int:
        """Return a number for a file that is about to be written and then named by a record.

        One for the value of `key` is unlinked by `release(owner)`, unless the log names it by then.
        """
        self.writer_lock.require()
        with self.lock:
            self.appender.finish()
            number = self.accounting.file_number()
            self.unnamed[number] = UnnamedFile(owner, key)
            return number

    def assign_file(self, number: int, owner: CallOwner | None) -> None:
        """Have a file that is to come end with the call of `owner`, or with none."""
        with self.lock:
            self.unnamed[number] = UnnamedFile(owner, "")

    def keep_files(self, numbers: Set[int]) -> None:
        """Have just these files outlive the calls for which their numbers were made."""
        with self.lock:
            for number, one in list(self.unnamed.items()):
                if one.owner is None and number not in numbers:
                    del self.unnamed[number]
            for number in numbers:
                self.unnamed.setdefault(number, UnnamedFile(None, ""))

    def release(self, owner: CallOwner) -> None:
        """End what a call holds: room, and files that neither log nor accounting names."""
        with self.lock:
            self.appender.finish()
            for number in [number for number, one in self.unnamed.items() if one.owner is owner]:
                if not self._is_named(self.unnamed[number].key, number):
                    self.unsynced.values.pop(number, None)
                    self._discard(number)
                del self.unnamed[number]
            self.space.claims.pop(owner, None)
            self.importing.discard(owner)
            self.waiting.discard(owner)
        owner.end()

    def release_ended(self) -> None:
        """End what those calls hold that were interrupted before they could release it."""
        with self.lock:
            self.appender.finish()
            writing = [file.owner for file in self.unnamed.values()]
            owners = {*self.space.claims, *self.importing, *self.waiting, *writing}
        for owner in owners:
            if owner is not None and not owner.alive:
                self.release(owner)

    def _is_named(self, key: str, number: int) -> bool:
        """Return whether a file belongs to the store, as the value of `key` or as a pack."""
        if not key:
            return number in self.accounting.packs
        row = self.row(key)
        return row is not None and row.kind == FILE and _file_of(row) == number

    def _discard(self, number: int) -> None:
        directory = self.writer_lock.directory
        directory.discard(self.files, self.paths.value(number))
        directory.discard(self.files, self.paths.pack(number))

    def _write_value(self, number: int, blocks: Iterable[Sequence[bytes | memoryview]]) -> None:
        """Write a frame into the value file of that number, which no record names yet.

        An encrypted one comes in blocks, and is nowhere in RAM as a whole.
        """
        handle = Handle(self.files, self.files.create(self.paths.value(number)))
        if self._full:
            append_early(self.files, handle.descriptor, blocks)
            self.files.sync(handle.descriptor)
            self.files.sync_directory(self.paths.values)
        else:
            for block in blocks:
                append(self.files, handle.descriptor, block)

    # -- durability ------------------------------------------------------------------------------

    def sync(self) -> None:
        """Return once everything committed survives a power cut; then unlink what is dead."""
        with self.unsynced.sync_lock:
            self.writer_lock.require()
            with self.lock:
                self._mend()
                self._rescue()
                values = dict(self.unsynced.values)
                self.unsynced.started = values.keys()
                dead, end = list(self.accounting.retired), self.log.end
            missing = self.unsynced.sync(values)
            with self.lock:
                # The others were replaced meanwhile.
                lost = [key for number, key in missing.items() if self._is_named(key, number)]
            self.log.sync(end)  # Behind it are records whose values are not synced yet.
            with self.lock:
                for number in values:
                    self.unsynced.values.pop(number, None)
                self.unsynced.inherited = False
                self.appender.retire(dead)
        self.unlink_obsolete()
        if lost:
            raise StorageError(
                f"the files of {', '.join(repr(key[:60]) for key in lost)} were removed before "
                "they were synced: store them again; everything else is durable"
            )

    def _sync_or_undo(self, *entered: Entered) -> None:
        try:
            if self.unsynced.inherited:
                self.sync()  # The log may not claim to be whole while values are owed.
            else:
                self.log.sync()
        except OSError:
            # After any other interruption the log says that they are there, and so they are.
            with self.lock:
                for old, row in entered:
                    if self.row(row.record.key) is row:
                        self.appender.undo(old, row)
            raise
        with self.lock:
            self.appender.retire(
                _file_of(old) for old, _ in entered if old is not None and old.kind == FILE
            )

    def inherit_unsynced(self, values: dict[int, str]) -> None:
        """Include these value files, which a killed writer had not synced, in the next sync."""
        with self.lock:
            self.unsynced.values.update(values)
            self.unsynced.inherited = bool(values)
        if values:
            self.appender.changed.set()

    def _mend(self) -> None:
        """Finish what was interrupted; after a failed sync, write again what it may have lost.

        The kernel reports a failed sync only once, so a second sync would prove nothing.
        """
        if self.writer_lock.doubted:
            self.writer_lock.require()
        self.appender.finish()
        while self.unsynced.suspect:
            number = next(iter(self.unsynced.suspect))
            self._rewrite_value(number)
            self.unsynced.suspect.discard(number)
            self.unsynced.values.pop(number, None)
        if self.log.suspect:
            self.appender.replace_unsynced(self._unsynced_rows(), mark=False)

    def _mend_if_needed(self) -> None:
        if (
            self.appender.started is not None
            or self.writer_lock.doubted
            or self.unsynced.suspect
            or self.log.suspect
        ):
            self._mend()

    def _rewrite_value(self, number: int) -> None:
        row = self.row(self.unsynced.values.get(number, ""))
        if row is None or row.kind != FILE or _file_of(row) != number:
            return
        frame, owner = self.reader.stored(row.record), CallOwner()
        try:
            copy_number = self.new_file(owner, row.record.key)
            self._write_value(copy_number, [[frame]])
            place = log_format.pack_place(FILE, copy_number, 0, frame.nbytes)
            self.appender.head(row, FILE, log_format.placed(row.record, frame.nbytes, place))
        finally:
            self.release(owner)

    def _unsynced_rows(self) -> list[tuple[IndexRow, bytes]]:
        """Return the live records behind the synced part of the log, with their bytes."""
        found = list[tuple[IndexRow, bytes]]()
        synced = self.log.synced
        for number in range(synced.segment, self.log.end.segment + 1):
            start = synced.offset if number == synced.segment else SEGMENT_HEADER_BYTES
            try:
                handle = self.reader.segment(number)
            except FileNotFoundError:
                continue
            found += live_records(self.files, handle, number, start, self.row)
        return found

    def _rescue(self) -> None:
        """Write again what lies in segments that were removed while they were open here.

        They can be read as long as they are open. What was not synced goes first, to where a replay
        looks for it.
        """
        unlinked = self.reader.handles.unnamed()
        gone = [number for number in unlinked if number in self.accounting.segments]
        if not gone:
            return
        self.writer_lock.require()  # The whole directory may have gone since it was checked.
        store_paths.require(self.paths)
        self.unsynced.sync(dict(self.unsynced.values))
        self.appender.replace_unsynced(self._unsynced_rows(), mark=True)
        # This mark comes first in its segment: the copies say how far the log was synced when they
        # were new.
        self.appender.mark()
        for number in gone:
            handle = self.reader.segment(number)
            rows = list(live_records(self.files, handle, number, SEGMENT_HEADER_BYTES, self.row))
            if rows:
                self.copy_records(rows)
            self.drop_segment(number)
            logger.warning(
                "%s was removed while the store was open; %d records were written again from "
                "what could still be read of it", self.paths.segment(number), len(rows),
            )  # fmt: skip

    def require_log(self) -> None:
        """Raise StorageError if a segment with records that count is not there."""
        self.writer_lock.require()
        with self.lock:
            for number, stats in self.accounting.segments.items():
                path = self.paths.segment(number)
                if (stats.live or stats.tombstones) and not path.exists():
                    raise StorageError(
                        f"{path} is not there, and without it the index cannot be rebuilt: "
                        "its keys would be absent; bring it back"
                    )

    def rebuild(self) -> None:
        """Rebuild index and accounting from the log."""
        with self.lock:
            self.require_log()
            obsolete = self.obsolete.numbers()  # Another thread may be unlinking them.
            index, accounting = self._rebuild()
            accounting.leave_out(*obsolete)
            self.index.update_from(index)
            self.accounting.update_from(accounting)
            self.index_files.covered, self.index_files.saved = START, None
            self.space.count_index(index.runs)

    # -- imports ---------------------------------------------------------------------------------

    def begin_pack(self, pack: int, size: int) -> None:
        """Count a pack that is here; it is kept until `end_pack`, though no record names it."""
        with self.lock:
            self.accounting.add_pack(pack, size)

    def end_pack(self, pack: int) -> None:
        """Keep a pack only for the records that name it."""
        with self.lock:
            self.unnamed.pop(pack, None)
        self.appender.changed.set()

    def write_packs(self, batches: Iterable[Sequence[Record]]) -> int:
        """Write many records whose frames lie in packs; return how many.

        They begin a segment: what they replace is then in others, in which often nothing lives
        afterwards, so that these are unlinked without a copy.
        """
        owner = CallOwner()
        count = 0
        try:
            self.importing.add(owner)
            with self.lock:
                self.log.cut()
            for records in batches:
                self.write_packed(records)
                count += len(records)
        finally:
            self.release(owner)
            self.appender.changed.set()
        return count

    # -- copies for compaction -------------------------------------------------------------------

    def copy_records(self, records: Sequence[tuple[IndexRow, bytes]]) -> None:
        """Append live records of the log once more, as they are. The caller holds the lock."""
        self._mend()
        self.appender.copy(records)

    def rewrite(self, row: IndexRow) -> None:
        """Write a record again, its frame too unless that has a file of its own.

        Raises:
            AbsentError: the frame is not there, or cannot be read.
            GoneError: it is cut short.
        """
        if row.kind not in (INLINE, PACKED):
            with self.lock:
                if self.row(row.record.key) == row:
                    self._mend()
                    self.appender.head(row, row.kind, row.record)
            return
        frame, key = self._frame_of(row), row.record.key
        if frame.nbytes < self.space.limits.large:
            with self.lock:
                if self.row(key) == row:
                    self._mend()
                    self.appender.inline(row, row.record, [frame], frame.nbytes)
            return
        owner = CallOwner()
        try:
            number = self.new_file(owner, key)
            self._write_value(number, [[frame]])
            place = log_format.pack_place(FILE, number, 0, frame.nbytes)
            with self.lock:
                if self.row(key) == row:
                    self._mend()
                    placed = log_format.placed(row.record, frame.nbytes, place)
                    self.appender.head(row, FILE, placed)
        finally:
            self.release(owner)

    def _frame_of(self, row: IndexRow) -> memoryview:
        try:
            return self.reader.stored(row.record)
        except OSError as error:
            raise AbsentError(f"it cannot be read: {error.strerror or error}") from error

    # -- obsolete files --------------------------------------------------------------------------

    def files_in_use(self) -> set[int]:
        """Return the value files and packs that are in use although no key names them."""
        dead = set(self.accounting.retired) | set(self.obsolete.values) | self.obsolete.packs
        return dead.union(self.unnamed, self.accounting.packs, self.unsynced.values)

    def drop_segment(self, number: int) -> None:
        """Unlink a segment that nothing refers to any more, as soon as no view is open."""
        with self.lock:
            if number in self.accounting.segments:  # Else it was rescued meanwhile.
                self.obsolete.add_segment(number, self.accounting.segments[number].size)
                self.accounting.remove_segment(number)

    def drop_pack(self, number: int) -> None:
        """Unlink a pack that nothing refers to any more, as soon as no view is open."""
        with self.lock:
            self.obsolete.add_pack(number, self.accounting.packs[number].size)
            self.accounting.remove_pack(number)

    def unlink_obsolete(self) -> None:
        """Unlink obsolete files, unless a view is open; returns after a call in another thread."""
        with self.obsolete.unlink_lock:
            self.writer_lock.require()  # The names that are unlinked may be another store's.
            with self.lock:
                paths = self.obsolete.unpinned()
            for path in paths:
                self.obsolete.unlink(path)

    def pin(self, view: object) -> None:
        """Keep every file until `unpin`, or until `view` dies."""
        with self.lock:
            self.obsolete.pin(view)

    def unpin(self, view: object) -> None:
        """Have the next sync unlink what only `view` kept."""
        with self.lock:
            self.obsolete.unpin(view)
            self.appender.changed.set()

    def close(self) -> None:
        """Close every file. The caller has ended the threads."""
        self.log.close()
        self.index.close()

    # -- checkpoints -----------------------------------------------------------------------------

    def checkpoint(
        self, pace: Callable[[], None] = lambda: None, *, seal: bool = False, whole: bool = False
    ) -> None:
        """Write the recent rows as a run of the index, and a manifest that covers the log.

        With `seal` the log continues in a new segment, so that all others can be compacted. If
        `whole`, the run replaces all others; the caller holds `index_files.merge_lock`.
        """
        if self.log.end == self.index_files.covered and not seal:
            return
        with self.upkeep_lock:
            try:
                self._checkpoint(pace, seal=seal, whole=whole)
            except RunDamagedError:  # Only a whole one reads the runs.
                self.rebuild()
                self._checkpoint(pace, seal=seal, whole=False)

    def _checkpoint(self, pace: Callable[[], None], *, seal: bool, whole: bool) -> None:
        self.sync()
        with self.lock:
            self._mend()
            if len(self.index.tables) > 1:
                self.index.thaw()  # The checkpoint before was interrupted.
            if seal:
                self.log.cut()
            self.appender.mark()
            frozen, heads = self.index.freeze(), self.space.recent_heads
            number = self.accounting.file_number()
            manifest = manifest_of(self.index, self.accounting, self.obsolete, self.log.end)
            forgotten = ForgottenTombstones(sorted(self.accounting.segments))
        merged = self.index.runs if whole else ()
        self.index_files.discard_unnamed_runs()
        try:
            self.sync()
            rows = run_rows(frozen)
            if merged:
                rows = merged_rows([rows, *(run.raw() for run in merged)], forgotten.drops)
            run = self.index_files.write(number, rows, pace)
        except BaseException:
            with self.lock:
                self.index.thaw()
            self.index_files.discard(number)
            raise
        manifest.runs = [] if merged else [run.number for run in self.index.runs]
        if run is not None:
            manifest.runs.insert(0, number)
        if merged:
            forget_tombstones(manifest, forgotten.bytes())
        # From here on the manifest may name the run; if that fails, the next checkpoint thaws.
        self.index_files.save(manifest, number)
        with self.lock:
            if merged and self.index.runs != merged:
                return  # Another thread has rebuilt the index from the log.
            self.index_files.saved = manifest
            self.index.add_run(run, alone=bool(merged))
            forgotten.leave_out(self.index.recent.__contains__)
            self.accounting.forget_tombstones(forgotten.bytes())
            self.space.count_index(self.index.runs)
            self.space.recent_heads -= heads
            self.index_files.covered = Position(manifest.segment, manifest.offset)
        for old in merged:
            self.index_files.discard(old.number)


def _file_of(row: IndexRow) -> int:
    return unpack_place(row.record.place).file


def _tombstone(key: str, version: int) -> Record:
    return Record(key=key, version=version, tier=TierName.COLD, size=0, stored_at=0.0)


def _newer(old: IndexRow | None, record: Record) -> Record | None:
    """Return what `write` returns for a record that came too late, None for one that did not.

    A removed key has no newer value to return.
    """
    if old is None or old.record.version <= record.version:
        return None
    return record if old.kind == TOMBSTONE else old.record
