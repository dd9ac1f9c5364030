"""Imports files of frames, in the background where their bytes must be copied.

A file that cannot be shared is pending at first: its frames are read where they lie, through an
open descriptor. It is copied in the background, and the log names its records last. Until then a
crash leaves the store as it was before the import, and what the records replace is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

from memories.backends.disk.fd_cache import Handle
from memories.backends.disk.file_system import remote_kind
from memories.backends.disk.files import storage_error
from memories.backends.disk.import_file import Adopted, Adoption, copy_in, placed_in, share
from memories.backends.disk.index import Index, Table, merged
from memories.backends.disk.log_format import PACKED, IndexRow
from memories.backends.disk.maintenance import StoppedError
from memories.backends.disk.overlay_index import OverlayIndex
from memories.backends.disk.reader import SourceFile
from memories.backends.disk.run_table import RunDamagedError, read_mended
from memories.backends.disk.writer import Writer
from memories.errors import StorageError
from memories.foundation.call_owner import CallOwner
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.foundation.periodic import BackgroundThread
from memories.model.record import Record

PATIENCE_SECONDS = 60.0  # How long a caller waits for a copy that makes no progress.
_BATCH_ROWS = 512

Replaced = Callable[[Record], AbstractContextManager[None]]
ImportDone = Callable[[BaseException | None], object]


class PendingFile:
    """One file whose frames are read where they lie, and how much of it is copied."""

    def __init__(
        self, number: int, source: SourceFile, size: int, table: Table, owner: CallOwner
    ) -> None:
        self.number, self.source, self.size, self.table = number, source, size, table
        self.owner = owner  # The call that enters its records; the copy begins after its end.
        self.copied_bytes = 0
        self.here = False  # Whether the store has a copy.
        self.obsolete = False  # Whether every record of it is hidden.


class BackgroundImport:
    """The imports of one store. `show` sets the index through which its readers look."""

    def __init__(self, writer: Writer, show: Callable[[Index | OverlayIndex], None]) -> None:
        self._writer, self._show = writer, show
        self._overlay = OverlayIndex(writer.index, writer.lock, writer.row)
        self._pending: list[PendingFile] = []  # Guarded by the writer's lock.
        self._replaced: list[Replaced] = []
        self._callbacks: list[ImportDone] = []
        self._importing = new_lock()  # Taken before the writer's lock.
        self._stopped = False
        self._thread: BackgroundThread | None = None
        self.failure: StorageError | None = None  # Of the latest attempt.

    @property
    def overlay(self) -> OverlayIndex | None:
        """Return the index of pending records, or None where there are none."""
        return self._writer.appender.overlay

    # -- files -----------------------------------------------------------------------------------

    def adopt(
        self, path: Path, batches: Iterable[Sequence[Adoption]], descriptor: int | None
    ) -> Adopted:
        """Take a file over; see `DiskBackend.adopt`."""
        owner = CallOwner()
        try:
            return self._adopt(path, batches, descriptor, owner)
        finally:
            self._writer.release(owner)

    def _adopt(
        self,
        path: Path,
        batches: Iterable[Sequence[Adoption]],
        descriptor: int | None,
        owner: CallOwner,
    ) -> Adopted:
        writer, number = self._writer, self._writer.new_file(owner)
        pack = writer.paths.pack(number)
        shared = share(path, pack, writer.files)
        if not shared and descriptor is not None:
            handle = Handle(writer.files, os.dup(descriptor))
            source = SourceFile(handle, mapped=remote_kind(path) is None)
            return Adopted(self._add_pending(number, source, batches, owner), False, pending=True)
        if not shared:
            given = Handle(writer.files, writer.files.open(path))
            copy_in(given.descriptor, pack, writer.files)
        size = pack.stat().st_size
        writer.begin_pack(number, size)
        try:
            count = writer.write_packs(placed_in(number, batches))
        finally:
            writer.end_pack(number)
        return Adopted(count, shared)

    def _add_pending(
        self,
        number: int,
        source: SourceFile,
        batches: Iterable[Sequence[Adoption]],
        owner: CallOwner,
    ) -> int:
        """Have the frames of an open file read where they lie; return how many there are."""
        writer, count = self._writer, 0
        size = writer.files.size(source.handle.descriptor)
        writer.reader.read_from(writer.paths.pack(number), source)
        with writer.lock:
            overlay = self._shown_overlay()
            file = PendingFile(number, source, size, overlay.add_table(), owner)
            self._pending.append(file)
            writer.space.import_bytes += size
        for records in placed_in(number, batches):
            with writer.lock:
                overlay.insert(file.table, [IndexRow(r, PACKED, 0, 0, 0, 0) for r in records])
            count += len(records)
        return count

    def hide_older(self, below: int, replaced: Replaced) -> None:
        """Hide every version below this one, and remove it once no file is pending.

        `replaced` is entered with each record that is removed, for as long as that takes. Files
        that were pending before this call become obsolete.
        """
        with self._writer.lock:
            overlay = self._shown_overlay()
            self._replaced.append(replaced)
        try:
            overlay.hide_older(below)
        except RunDamagedError:
            self._writer.rebuild()
            with self._writer.lock:
                self._recount(overlay)
        with self._writer.lock:
            for file in list(self._pending):
                rows = file.table.values()
                if not file.owner.alive and all(row.record.version < below for row in rows):
                    file.obsolete = True
                    self._remove(file)

    def _shown_overlay(self) -> OverlayIndex:
        """Return the overlay, through which readers look from now on."""
        writer = self._writer
        if writer.appender.overlay is None:
            writer.space.import_bytes = writer.space.copied_bytes = 0
            self._overlay = OverlayIndex(writer.index, writer.lock, writer.row)
            writer.appender.overlay = self._overlay
            self._show(self._overlay)
        return self._overlay

    # -- copies ----------------------------------------------------------------------------------

    def start(self, done: ImportDone) -> None:
        """Finish in the background; call `done` with None when all is durable, else the error."""
        self._callbacks.append(done)
        self._thread = BackgroundThread(self._run, "copy")
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self._thread = None
            self._report_failure(error)

    def finish(self) -> None:
        """Return once every pending file lies in the store and the log names its records.

        Raises:
            StorageError: one cannot be copied or written, or another thread has made no progress
                with that for a minute; it can be read as before, and imported later.
        """
        if self._writer.appender.overlay is None and not self._callbacks:
            return
        with self._turn():
            self.failure = self._import_each() or self._attempt(self._finish_all)
        if self.failure is not None:
            raise self.failure
        for callback in list(self._callbacks):
            callback(None)
            with suppress(ValueError):  # Another thread has removed it.
                self._callbacks.remove(callback)  # Last: an interrupted callback is called again.

    def release_ended(self, done: ImportDone) -> None:
        """End what interrupted calls hold, and derive every figure from the pending files again.

        Files that such a call has left pending are imported soon, because they may have
        replaced something; `done` is called as by `start`.
        """
        writer = self._writer
        with writer.lock:
            writer.release_ended()
            self._pending = [file for file in self._pending if not file.obsolete]
            writer.keep_files({file.number for file in self._pending if file.here})
            overlay = writer.appender.overlay
            self._show(writer.index if overlay is None else overlay)
            waiting = [file for file in self._pending if not file.here]
            writer.space.import_bytes = sum(file.size for file in waiting)
            writer.space.copied_bytes = sum(file.copied_bytes for file in waiting)
            if overlay is not None:
                read_mended(partial(self._recount, overlay), writer.rebuild)
            idle = self._thread is None or not self._thread.is_alive()
        if idle and (overlay is not None or self._callbacks) and not self._stopped:
            self.start(done)

    def _recount(self, overlay: OverlayIndex) -> None:
        overlay.recount([file.table for file in self._pending], self._writer.accounting.keys)

    def remove_hidden(self) -> None:
        """Remove the hidden versions; what replaced them is durable."""
        writer, below = self._writer, self._overlay.hidden_below
        if writer.appender.overlay is None or not below:
            return
        read_mended(partial(self._remove_below, below), writer.rebuild)

    def _remove_below(self, below: int) -> None:
        for row in merged(self._writer.index.parts()):
            if row.record.version < below:
                with ExitStack() as stack:
                    for replaced in self._replaced:
                        stack.enter_context(replaced(row.record))
                    self._writer.remove(row.record.key, below)

    def stop(self) -> None:
        """End the copies when the store is closed; pending records are lost."""
        self._stopped = True
        if self._thread is not None and not self._thread.join_within(PATIENCE_SECONDS):
            raise StorageError(
                f"the copy of a restored snapshot into {self._writer.paths.root} does not end, "
                "because the disk does not answer; the store stays locked until this process ends"
            )

    def close(self) -> None:
        """Close the files that are still pending, which are read no more."""
        self._pending.clear()
        self._overlay.close()

    def _run(self) -> None:
        try:
            self.finish()
        except StoppedError:
            pass  # The records were volatile, and the store is being closed without `flush`.
        except BaseException as error:
            self._report_failure(error)

    def _report_failure(self, error: BaseException) -> None:
        """Call every callback with an error: pending records stay volatile for now."""
        for callback in self._callbacks:
            callback(error)
        logger.warning("%s; it is volatile until `flush` succeeds", error)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other thread imports, as long as that thread makes progress."""
        copied = -1
        try:
            while not self._importing.acquire(timeout=PATIENCE_SECONDS):
                if copied == self._writer.space.copied_bytes:
                    raise StorageError(
                        f"the copy of a restored snapshot into {self._writer.paths.root} has made "
                        f"no progress for {PATIENCE_SECONDS:.0f} seconds; check the disk"
                    )
                copied = self._writer.space.copied_bytes
            yield
        finally:
            # Ask the lock whether it was taken: an interrupt may strike right after that.
            if self._importing._is_owned():  # type: ignore[attr-defined]
                self._importing.release()

    def _import_each(self) -> StorageError | None:
        """Import every file that can be imported; return the first failure."""
        failure: StorageError | None = None
        for file in list(self._pending):
            if not file.owner.alive:
                failure = self._attempt(partial(self._import, file)) or failure
        return failure

    def _attempt(self, step: Callable[[], None]) -> StorageError | None:
        try:
            step()
        except OSError as error:
            return storage_error("copy a restored snapshot", self._writer.paths.root, error)
        return None

    def _import(self, file: PendingFile) -> None:
        writer, owner = self._writer, CallOwner()
        writer.assign_file(file.number, owner)
        try:
            if (file.here or self._copy(file)) and not file.obsolete:
                writer.write_packs(self._batches(file))
                with writer.lock:
                    if not file.obsolete:
                        self._remove(file)
        finally:
            with writer.lock:
                # A copy that the log does not name yet is kept for the next attempt.
                if file.here and file in self._pending:
                    writer.assign_file(file.number, None)
                else:
                    writer.end_pack(file.number)
            owner.end()

    def _copy(self, file: PendingFile) -> bool:
        """Copy the file; return False if it became obsolete meanwhile."""
        writer, path = self._writer, self._writer.paths.pack(file.number)
        try:
            given = file.source.handle.descriptor
            copy_in(given, path, writer.files, lambda n: self._copied(file, n))
            with writer.lock:
                writer.begin_pack(file.number, file.size)
                writer.space.copied_bytes -= file.copied_bytes
                writer.space.import_bytes -= 0 if file.obsolete else file.size
                file.here = True
        except BaseException:
            with writer.lock:
                if not file.here:
                    self._forget_copy(file)
            if file.obsolete and not self._stopped:
                return False
            raise
        return True

    def _copied(self, file: PendingFile, count: int) -> None:
        with self._writer.lock:
            if self._stopped or file.obsolete:
                raise StoppedError
            file.copied_bytes += count
            self._writer.space.copied_bytes += count

    def _forget_copy(self, file: PendingFile) -> None:
        self._writer.space.copied_bytes -= file.copied_bytes
        file.copied_bytes = 0

    def _batches(self, file: PendingFile) -> Iterator[list[Record]]:
        """Yield the records of a file; the lock keeps their terms until they are written."""
        keys = iter(list(file.table))
        while batch := list(islice(keys, _BATCH_ROWS)):
            with self._writer.lock:
                yield [file.table[key].record for key in batch]

    def _remove(self, file: PendingFile) -> None:
        self._overlay.remove_table(file.table)
        self._pending.remove(file)
        if not file.here:
            self._writer.space.import_bytes -= file.size
            self._forget_copy(file)

    def _finish_all(self) -> None:
        """Remove hidden versions and drop the overlay, unless a file was added meanwhile."""
        below = self._overlay.hidden_below
        if self._pending:
            return
        self.remove_hidden()
        with self._writer.lock:
            if self._overlay.has_tables or self._overlay.hidden_below != below:
                return
            self._replaced.clear()
            self._writer.appender.overlay = None
            self._show(self._writer.index)
