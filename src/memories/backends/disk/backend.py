"""The cold tier's store, which is also the journal of all durable versions: a log and its index.

One process writes a directory; any number may read it, and a forked child becomes a reader. So each
method first asks for what it needs: `_writing` returns the writer, or raises what keeps this
process from writing; `_following` returns the reader's index, read on to now.

Longer than 600 lines because it is the whole interface of the store; its parts do the work.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Literal, Self, TypeVar

from memories.backends.base import Backend, Problem, Usage
from memories.backends.disk import data_keys
from memories.backends.disk import paths as store_paths
from memories.backends.disk.background_import import BackgroundImport, ImportDone, Replaced
from memories.backends.disk.backpressure import admit, admit_head, admit_value, explained, reported
from memories.backends.disk.batch_write import remove_together, write_together
from memories.backends.disk.check import run_check
from memories.backends.disk.compaction import is_due, make_room, run_upkeep, shrink
from memories.backends.disk.fd_cache import HandleCache
from memories.backends.disk.file_system import warn_if_remote
from memories.backends.disk.files import Files, storage_error
from memories.backends.disk.follower import Follower
from memories.backends.disk.import_file import Adopted, Adoption
from memories.backends.disk.index import Index
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.log_format import TOMBSTONE, IndexRow
from memories.backends.disk.maintenance import Maintenance, write_last_checkpoint
from memories.backends.disk.open import StoreOpening, Verify
from memories.backends.disk.overlay_index import OverlayIndex, StoreView
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.reader import (
    AbsentError,
    FrameReader,
    GoneError,
    SourceFiles,
    read_batch,
)
from memories.backends.disk.run_table import RunDamagedError, read_mended
from memories.backends.disk.size_limits import SizeLimits
from memories.backends.disk.small_reads import SmallReads
from memories.backends.disk.space import NoRoomError, Reserve
from memories.backends.disk.store_directory import StoreDirectory
from memories.backends.disk.writer import Writer
from memories.errors import (
    ClosedError,
    CorruptDataError,
    ForkedError,
    KeyNotFoundError,
    MemoriesError,
    StorageError,
)
from memories.foundation.call_owner import CallOwner
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.model.record import Record
from memories.progress import Step, skip
from memories.sealing.master_key import EncryptionKey

T = TypeVar("T")
Durability = Literal["relaxed", "full"]

WORTH_SHARE = 64  # One part in so many of the capacity is worth some upkeep before its time.


class DiskBackend(Backend):
    """Stores frames in a directory.

    Args:
        path: The directory; made if it does not exist and the store is to be written.
        durability: "relaxed": a power cut leaves a prefix of what was acknowledged, at most a
            second short. "full": a write returns once it survives a power cut.
        read_only: Take no lock, write nothing, and see what the writer wrote 100 ms ago or before.
        mmap: Map the index and values of 1 MB and more instead of reading them.
        verify: Raises ValueError for a frame that is not whole; asked, after a crash, about the
            large values that may not have been synced.
        repair: Open although parts of the log are damaged, and keep what can be read.
        capacity_bytes: What may lie on the disk, at any time; None for as much as there is.
        shared: Whether other parts of the manager write to the same disk: some of it is left free
            for them (`beside_bytes`).
        encryption: The master key of an encrypted store; a new store is encrypted with it.
        files: The operating system; a test gives one that fails.

    Raises:
        StoreLockedError: another process, or another backend in this one, is writing it.
        CorruptDataError: the index is lost, and a synced part of the log is damaged.
        EncryptionKeyError: the store is encrypted and this is not its key, or it is not encrypted.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "relaxed",
        read_only: bool = False,
        mmap: bool = True,
        verify: Verify | None = None,
        repair: bool = False,
        capacity_bytes: int | None = None,
        shared: bool = False,
        encryption: EncryptionKey | None = None,
        files: Files | None = None,
    ) -> None:
        self._paths, self._files = StorePaths(Path(path)), Files() if files is None else files
        self._full, self._verify = durability == "full", verify
        self._limits = partial(SizeLimits.of, capacity_bytes, shared=shared)
        self._closed, self._forked, self._read_only = False, False, read_only
        self._directory: StoreDirectory
        self._index: Index | OverlayIndex  # Through which a writer's readers look.
        self._follower: Follower | None = None
        self._writer: Writer | None = None
        self._ending: Writer | None = None  # The writer, while the store is being closed.
        self._maintenance: Maintenance | None = None
        self._imports: BackgroundImport | None = None  # In a forked child those of its parent.
        self._lock: WriterLock | None = None
        self._damage: list[str] = []
        self._follow_lock = new_lock()
        try:
            data_keys.require_fit(self._paths, encryption)
            self._mmap = mmap and not warn_if_remote(self._paths.root)
            self._reader = self._new_reader()
            if read_only:
                store_paths.verify(self._paths)
                self._files.seal = data_keys.open_seal(self._paths, encryption)
                self._directory = StoreDirectory(self._paths.root)
                self._follow()
            else:
                self._open_writer(encryption, repair=repair)
        except MemoriesError:
            raise
        except OSError as error:
            raise storage_error("open a store", self._paths.root, error) from error
        _opened.add(self)

    # -- the contract of backends ---------------------------------------------------------------

    def write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Store `frame`: one append to the log, or one file of its own from 1 MB on.

        Where too much is dead it waits for upkeep, so that the disk never holds more than it may.

        Raises:
            TierFullError: dead bytes that are still read take the room.
        """
        writer = self._writing()
        try:
            return writer.write(record, frame)
        except NoRoomError:
            return admit_value(writer, record, frame)
        except MemoriesError:
            raise
        except (GoneError, OSError) as error:
            action = f"store {record.key!r}"
            raise explained(error, self._paths.root, action) from error

    def write_many(self, items: Sequence[tuple[Record, Sequence[memoryview]]]) -> list[Record]:
        """Store many frames, small ones with one append for all, and return their records.

        Like `write` in a loop: in this order, each for itself. As with `os.write`, the result may
        be shorter: only the first values are stored then, and writing the others raises.

        Raises:
            TierFullError: dead bytes that are still read take the room; nothing is stored.
            StorageError: the disk failed; nothing is stored.
        """
        return write_together(self._writing(), items)

    def read(self, record: Record) -> memoryview:
        """Return the frame that `record` names; from 1 MB on a view of the mapped file.

        Raises:
            CorruptDataError: the medium no longer holds what the record names.
            KeyNotFoundError: the record was replaced or removed, and its bytes given back.
        """
        try:
            return self._reader.read(record)
        except GoneError:
            return self._read_again(record)
        except OSError as error:
            raise storage_error(f"read {record.key!r}", self._paths.root, error) from error

    def read_private(self, record: Record) -> memoryview:
        """Return the frame; from 1 MB on a writable view of the file, mapped for it alone."""
        try:
            return self._reader.read_private(record)
        except (GoneError, OSError):
            return self.read(record)  # It looks again, and says what is wrong.

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frame of each record; small ones that lie close together in one read."""
        frames = read_batch(self._reader, self._files, records, lambda frame, _: frame, b"")
        found = zip(frames, records, strict=True)
        return [memoryview(frame) if frame else self.read(one) for frame, one in found]

    def read_ranges(self, record: Record, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return parts of a frame; of an encrypted one only these are decrypted."""
        if self._files.seal is None:
            return super().read_ranges(record, spans)
        try:
            return self._reader.read_ranges(record, spans)
        except GoneError:
            frame = self._read_again(record)
            return [frame[start:stop] for start, stop in spans]
        except OSError as error:
            raise storage_error(f"read {record.key!r}", self._paths.root, error) from error

    def ranged_length(self, record: Record) -> int | None:
        """Return the length of an encrypted frame; None for others, which are mapped."""
        seal = self._files.seal
        return None if seal is None else seal.opened_length(record.stored)

    @property
    def is_encrypted(self) -> bool:
        """Return whether all that lies here is encrypted."""
        return self._files.seal is not None

    def lookup(self, key: str) -> Record | None:
        """Return the newest record of `key`, or None."""
        row = read_mended(lambda: self._visible_index().row(key), self._distrust_index)
        if row is None and self._closed:
            self._following()  # It found nothing because the files were closed meanwhile.
        return None if row is None or row.kind == TOMBSTONE else row.record

    def newest(self, key: str) -> tuple[int, Record | None]:
        """Return the highest version of `key` in the log, and its record unless it is a removal.

        The version is 0 where the log says nothing. A pending record does not count.
        """
        row = read_mended(lambda: self._log_index().row(key), self._distrust_index)
        if row is None:
            return 0, None
        return row.record.version, None if row.kind == TOMBSTONE else row.record

    def remove(self, key: str, version: int) -> None:
        """Append a tombstone to the log; only a failing disk prevents that."""
        admit_head(self._writing(), f"remove {key!r}", lambda writer: writer.remove(key, version))

    def remove_many(self, items: Sequence[tuple[str, int]]) -> int:
        """Remove each key as of its version, with one append for all; return how many are removed.

        Like `remove` in a loop. The result may be smaller than asked for: only the first keys are
        removed then, and removing the others raises.
        """
        return remove_together(self._writing(), items)

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield records in key order, as of one moment."""
        return self._reading(lambda at: self._visible_index().rows(prefix, at), after)

    def described(self) -> Iterator[Record]:
        """Yield the records with metadata, in key order; those without cost almost nothing."""
        return self._reading(lambda at: self._visible_index().described(at), "")

    def _reading(self, rows: Callable[[str], Iterator[IndexRow]], after: str) -> Iterator[Record]:
        """Yield the records of rows; where the index is damaged, those of the one made anew."""
        try:
            for row in rows(after):
                yield row.record
                after = row.record.key
        except RunDamagedError:
            self._distrust_index()
            yield from self._reading(rows, after)
        if self._closed:
            self._following()

    def ordered(self, prefix: str) -> Callable[[str], Iterator[str]]:
        """Return a function that yields the keys with `prefix` after the given one, as of now."""
        rows = self._visible_index().frozen()

        def keys(after: str) -> Iterator[str]:
            nonlocal rows
            try:
                for row in rows(prefix, after):
                    after = row.record.key
                    yield after
            except RunDamagedError:
                self._distrust_index()
                rows = self._visible_index().frozen()
                yield from keys(after)
            if self._closed:
                self._following()

        return keys

    def usage(self) -> Usage:
        """Return what is held; physical bytes are everything in the directory."""
        writer = self._writer
        if writer is not None:
            with writer.lock:  # A commit changes several figures.
                return Usage(writer.accounting.live, writer.space.physical(), writer.keys())
        accounting = self._following().accounting
        held = accounting.log_bytes + accounting.pack_bytes + accounting.value_bytes
        keys = accounting.keys if self._overlay() is None else sum(1 for _ in self.scan())
        return Usage(accounting.live, held, keys)

    @property
    def commit_lock(self) -> RLock:
        """Return the lock that pauses all commits; acquire it before that of the catalog."""
        writer = self._writer
        return self._follow_lock if writer is None else writer.lock

    def count_keys(self) -> int:
        """Return the number of keys."""
        writer = self._writer
        return self.usage().keys if writer is None else writer.keys()

    def keys_elsewhere(self) -> int:
        """Return how many of the keys have their frame in another backend."""
        writer = self._writer
        elsewhere = (self._following() if writer is None else writer).accounting.elsewhere
        return elsewhere if self._overlay() is None else min(elsewhere, self.usage().keys)

    def last_version(self) -> int:
        """Return the highest version ever written, noted or removed here."""
        writer = self._writer
        return (self._following() if writer is None else writer).accounting.last_version

    def sync(self) -> None:
        """Return once everything committed survives a power cut."""
        if self._read_only or self._forked:
            return
        self._importing().finish()
        writer = self._writing()
        with reported(self._paths.root, "sync"):
            writer.sync()

    # -- beyond the contract ---------------------------------------------------------------------

    @property
    def small_reads(self) -> SmallReads:
        """The fastest way to read, as long as this is the writer."""
        return self._reader.small

    def release_ended(self, done: ImportDone) -> None:
        """End what those calls hold that were interrupted before they could release it.

        Files that they left pending are imported soon; `done` is called as by `import_soon`.
        """
        if self._writer is not None:
            self._importing().release_ended(done)

    def write_if_room(
        self, record: Record, frame: Sequence[memoryview], length: int, coming: int
    ) -> Record | None:
        """Store a small frame of `length` bytes as `write` does, or return None: `write` may wait.

        The store must also have room for `coming` bytes, which others are about to write.
        """
        writer = self._writing()
        if length >= writer.space.limits.large:
            return None
        try:
            return writer.write_if_room(record, frame, length, coming)
        except MemoriesError:
            raise
        except (GoneError, OSError) as error:
            raise explained(error, self._paths.root, f"store {record.key!r}") from error

    def use_neighbours(
        self, records: Sequence[Record], use: Callable[[bytes, Record], T], alone: T
    ) -> list[T]:
        """Return `use(frame, record)` of each record, `alone` for those that `read` must read.

        Frames that lie close together are read in one call of the system.

        Raises:
            OSError: the disk failed.
        """
        return read_batch(self._reader, self._files, records, use, alone)

    @contextmanager
    def renaming(self, new: str, old: str, gone: int) -> Iterator[None]:
        """Have the next value or note of `new` remove `old` as of `gone`, in one step."""
        renames = self._writing().appender.renames
        renames[new] = (old, gone)
        try:
            yield
        finally:
            renames.pop(new, None)

    def write_note(self, record: Record) -> Record:
        """Write a record whose frame lies in another backend; `lookup` and `scan` return it."""
        return admit_head(
            self._writing(), f"note {record.key!r}", lambda writer: writer.write_note(record)
        )

    def amend(self, record: Record) -> Record:
        """Write other terms for the version of `record.key` that is here; the frame stays."""
        writer = self._writing()
        if writer.appender.overlay is not None and writer.appender.overlay.amend(record):
            return record
        return admit(
            writer,
            f"amend {record.key!r}",
            lambda writer, granted: writer.amend(record, granted),
        )

    def refresh(self) -> None:
        """In a reader, see at once what the writer has written until now."""
        if self._writer is None:
            self._following().refresh(now=True)

    @contextmanager
    def view(self) -> Iterator[StoreView]:
        """Yield all records as of now; what they name stays readable until the block ends."""
        writer = self._writer
        if writer is None:
            follower = self._following()
            follower.refresh(now=True)
            rows = self._visible_index().frozen()
            yield StoreView(rows, follower.accounting, self._distrust_index)
            return
        with writer.lock:
            view = StoreView(self._index.frozen(), writer.accounting, self._distrust_index)
            writer.pin(view)
        try:
            yield view
        finally:
            writer.unpin(view)

    def soonest(self) -> float | None:
        """Return a time before which no record's ends; None if none will."""
        return read_mended(lambda: self._visible_index().soonest(), self._distrust_index)

    def expired(self, now: float) -> Iterator[Record]:
        """Yield the records whose time had ended at `now`, perhaps twice; others cost nothing."""
        return self._reading(lambda _: self._visible_index().expired(now), "")

    def charged(self) -> int:
        """Return what the capacity is charged: for packed values a quarter more than they take."""
        writer = self._writer
        return self._following().accounting.charge if writer is None else writer.space.charged()

    def measure(self) -> tuple[int, int]:
        """Return the bytes charged and those that may still be, by capacity and file system."""
        writer = self._writer
        if writer is None:
            return self.charged(), self._directory.free_bytes()
        return writer.space.measure()

    def room(self) -> int:
        """Return the bytes that may still be charged, by the capacity and by the file system."""
        return self.measure()[1]

    @property
    def beside_bytes(self) -> int:
        """Return the bytes of the disk that are left to others, 0 if none are."""
        return 0 if self._writer is None else self._writer.space.limits.beside

    def resize(self, capacity_bytes: int) -> None:
        """Let the store take so many bytes of the disk from now on; dead ones are given back."""
        writer = self._writing()
        writer.space.limits = writer.space.limits._replace(capacity=capacity_bytes)
        with reported(self._paths.root, "do upkeep"), writer.hurried(CallOwner()):
            run_upkeep(writer, lambda: None, quiet=True)

    def make_room(self, size: int) -> bool:
        """Give dead bytes back until `size` more may lie here; return whether they may."""
        with reported(self._paths.root, "make room"):
            return make_room(self._writing(), size)

    def dead(self) -> int:
        """Return the bytes that are held for what is removed or replaced by now."""
        return self._writing().accounting.dead

    def shrink(self, before: int = 0) -> None:
        """Give back what was removed since `before` bytes were dead, where most of a file was.

        What the disk refuses now, upkeep tries again, and `check` reports.
        """
        writer = self._writing()
        try:
            shrink(writer, before)
        except OSError:
            writer.appender.changed.set()

    def catch_up(self) -> bool:
        """Do upkeep that is behind, if that gives back much; return whether it was done.

        What upkeep writes about small values that come and go could fill a small store by itself.
        """
        space = (writer := self._writing()).space
        if 4 * space.heads_charged() < space.limit(space.physical()) // WORTH_SHARE:
            return False
        with reported(self._paths.root, "do upkeep"), writer.hurried(CallOwner()):
            run_upkeep(writer, lambda: None, quiet=True)
        return True

    def unlink_obsolete(self) -> None:
        """Unlink now what a thread would unlink soon; see `Writer.unlink_obsolete`."""
        self._writing().unlink_obsolete()

    def check(
        self, *, repair: bool = False, dry_run: bool = False, progress: Step | None = None
    ) -> list[Problem]:
        """Verify the index, the log and every frame; see `check.py` for what is mended how.

        Raises:
            StorageError: the directory is not there, or cannot be read.
        """
        act = repair and not dry_run
        known = [Problem(None, what, act) for what in self._damage]
        if self._maintenance is not None:
            known += [Problem(None, what, False) for what in self._maintenance.problems()]
        if self._imports is not None and self._imports.failure is not None:
            known.append(Problem(None, str(self._imports.failure), False))
        with reported(self._paths.root, "check the store"):
            self._visible_index()
            problems = run_check(
                self._paths, self._files, self._directory, self._reader, self._log_index,
                self._distrust_index, self._writer, repair=repair, dry_run=dry_run,
                verify=self._verify, known=known, progress=progress or skip,
            )  # fmt: skip
        if act:
            self._damage = []
        return problems

    # -- imports ---------------------------------------------------------------------------------

    def adopt(
        self,
        path: str | os.PathLike[str],
        batches: Iterable[Sequence[Adoption]],
        *,
        descriptor: int | None = None,
    ) -> Adopted:
        """Take over a file of frames as it lies: each item is a record, its offset and length.

        Shares the file's blocks where the file system can (see `import_file`); the file must not
        change afterwards. Each batch, of different keys, is written in one append before the next
        one is asked for, so that the caller can hold their locks. With a `descriptor` of the file,
        what cannot be shared is read through it until `import_soon` or `sync` has copied it.
        """
        writer = self._writing()
        try:
            return self._importing().adopt(Path(path), batches, descriptor)
        except OSError as error:
            raise storage_error(f"adopt {path}", writer.paths.root, error) from error

    def hide_older(self, below: int, replaced: Replaced) -> None:
        """Hide every version below this one, and remove it once no file is pending.

        `replaced` is entered with each record that is removed, for as long as that takes.
        """
        self._importing().hide_older(below, replaced)

    def import_soon(self, done: ImportDone) -> None:
        """Copy pending files in the background; call `done` with None when all is durable.

        Where that fails, `done` is called with the error.
        """
        self._importing().start(done)

    def remove_hidden(self) -> None:
        """Remove hidden versions now: what replaced them is durable already, or removed itself."""
        self._importing().remove_hidden()

    def statement(self, name: str) -> bytes | None:
        """Return the identity of the store, or a statement about another one; None if absent.

        Raises:
            StorageError: it cannot be read.
        """
        return store_paths.read_statement(self._paths, name)

    def put_statement(self, name: str, data: bytes) -> None:
        """Keep a statement in the place of what is kept under its name; durable on return."""
        self._writing()
        with reported(self._paths.root, "write a statement"):
            store_paths.write_statement(self._paths, self._files, name, data)

    def statements(self) -> list[str]:
        """Return the names of all statements."""
        return store_paths.statement_names(self._paths)

    def is_pending(self, key: str) -> bool:
        """Return whether a crash would lose what `lookup` returns for `key`: it is not copied."""
        overlay = self._overlay()
        return overlay is not None and overlay.is_pending(key)

    def _importing(self) -> BackgroundImport:
        self._writing()
        assert self._imports is not None, "it is made with the writer"
        return self._imports

    def _show(self, index: Index | OverlayIndex) -> None:
        self._index = index
        self._reader.small.index = index if isinstance(index, Index) else None

    def _overlay(self) -> OverlayIndex | None:
        return None if self._imports is None else self._imports.overlay

    # -- opening, closing, forking ---------------------------------------------------------------

    def _open_writer(self, key: EncryptionKey | None, *, repair: bool) -> None:
        self._paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = StoreDirectory(self._paths.root)
        self._lock = WriterLock(self._directory, self._paths.lock)
        try:
            data_keys.create(self._paths, self._files, key)
            store_paths.verify(self._paths)
            self._files.seal = data_keys.open_seal(self._paths, key)
            try:
                writer, self._damage = self._opening(repair).run()
            except OSError as error:
                # Recovery may have to write; on a full disk the reserve is for that.
                if not Reserve(self._paths, self._files, 0, 0).release_if_full(error):
                    raise
                writer, self._damage = self._opening(repair).run()
        except BaseException:
            self._lock.release()
            self._lock = None
            raise
        self._writer, self._reader = writer, writer.reader
        self._show(writer.index)
        self._maintenance = Maintenance(writer)
        self._imports = BackgroundImport(writer, self._show)
        if is_due(writer):  # Its last writer may have been killed before upkeep.
            writer.appender.changed.set()
        if writer.appender.changed.is_set():
            self._maintenance.start()

    def _opening(self, repair: bool) -> StoreOpening:
        return StoreOpening(
            self._paths, self._files, writer_lock=self._lock, mmap=self._mmap, full=self._full,
            verify=self._verify, repair=repair, distrust_index=False, limits=self._limits,
        )  # fmt: skip

    def close(self) -> None:
        """Sync what is not pending, write a checkpoint, release the lock. Idempotent.

        Every file is closed when this returns, and also when it raises; a mapping lives as long as
        the last view of it. After an interrupt, a second call continues.
        """
        self._closed = True
        self._reader.small.index = None
        _opened.discard(self)
        self._ending, self._writer = self._writer or self._ending, None
        try:
            self._stop()
        except Exception as error:
            self._close_files()
            if isinstance(error, OSError) and not isinstance(error, MemoriesError):
                raise storage_error("sync", self._paths.root, error) from error
            raise
        self._close_files()

    def _stop(self) -> None:
        """End the threads, and write a checkpoint."""
        if self._imports is not None and not self._forked:
            self._imports.stop()
        if self._ending is not None:
            if self._maintenance is not None:
                self._maintenance.stop()
            write_last_checkpoint(self._ending)

    def _close_files(self) -> None:
        """Close every file, and release the lock last: the next writer finds the store at rest."""
        if self._imports is not None:
            self._imports.close()
        if self._ending is not None:
            self._ending.close()
            self._ending = self._maintenance = None
        if self._follower is not None:
            self._follower.close()
        self._reader.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reopened_after_fork(self) -> None:
        """Become a reader: called in a forked child, where the writer is the parent."""
        self._follow_lock = new_lock()
        if self._read_only:
            self._read_anew()
            self._follower = None
        elif self._writer is not None:
            self._forked = True
            self._read_anew()
            self._writer.close()
            self._writer = self._maintenance = None
            if self._lock is not None:
                self._lock.abandon()
                self._lock = None

    # -- roles -----------------------------------------------------------------------------------

    def _visible_index(self) -> Index | OverlayIndex:
        if self._writer is not None:
            return self._index
        overlay, index = self._overlay(), self._following().index
        return index if overlay is None else overlay.over(index)

    def _log_index(self) -> Index:
        return self._following().index if self._writer is None else self._writer.index

    def _writing(self) -> Writer:
        writer = self._writer
        if writer is not None:
            if self._maintenance is not None:
                self._maintenance.start()
            return writer
        if self._closed:
            raise ClosedError(f"the store in {self._paths.root} was closed; open it again")
        if self._forked:
            raise ForkedError(
                f"the store in {self._paths.root} was opened by the parent process; "
                "a forked child may only read"
            )
        raise StorageError(f"the store in {self._paths.root} was opened with read_only=True")

    def _following(self) -> Follower:
        if self._closed:
            raise ClosedError(f"the store in {self._paths.root} was closed; open it again")
        follower = self._follower
        if follower is None:
            with self._follow_lock:
                follower = self._follow()
        follower.refresh()
        return follower

    def _follow(self) -> Follower:
        if self._directory.descriptor < 0:  # A forked child has closed it, with the lock on it.
            self._directory = StoreDirectory(self._paths.root)
        self._read_anew()
        self._follower = Follower(self._directory, self._paths, self._files, mmap=self._mmap)
        self._follower.refresh(now=True)
        return self._follower

    def _read_anew(self) -> None:
        """Read through new descriptors, and through those of files that the parent imports."""
        sources = None if self._imports is None else self._reader.sources
        self._reader.close()
        self._reader = self._new_reader(sources)

    def _new_reader(self, sources: SourceFiles | None = None) -> FrameReader:
        handles = HandleCache(self._paths, self._files)
        return FrameReader(self._paths, self._files, handles, map_large=self._mmap, sources=sources)

    def _distrust_index(self) -> None:
        if self._writer is None:
            self._following().distrust_runs()
        else:
            self._writer.rebuild()

    # -- reading ---------------------------------------------------------------------------------

    def _read_again(self, record: Record) -> memoryview:
        """Read a frame whose file is gone: it was compacted, or replaced, or lost."""
        if self._writer is None:
            self._following().refresh(now=True)
        found = self.lookup(record.key)
        if found is None or found.version != record.version:
            raise KeyNotFoundError(f"version {record.version} of {record.key!r} was replaced")
        try:
            return self._reader.read(found)
        except AbsentError as error:
            self._directory.require()
            raise StorageError(
                f"could not read {record.key!r}: {error}; bring it back, or delete the key or "
                "store it again if the file is lost"
            ) from error
        except GoneError as error:
            raise CorruptDataError(
                f"{record.key!r} is damaged: {error}; delete it or store it again"
            ) from error
        except OSError as error:
            raise storage_error(f"read {record.key!r}", self._paths.root, error) from error


_opened: weakref.WeakSet[DiskBackend] = weakref.WeakSet()
after_fork(_opened, DiskBackend.reopened_after_fork)
