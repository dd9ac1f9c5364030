"""Takes files in that cannot be shared: lent at first, copied in the background, journaled last.

Until its file is here and synced, nothing in the log names a record of it: a crash leaves the
store as it was before. What the records replace is let go of after that, never earlier.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

from memories.backends.disk.fd_cache import Handle
from memories.backends.disk.import_file import Adopted, Adoption, copy_in, placed_in, share
from memories.backends.disk.index import Index, Table, merged
from memories.backends.disk.log_format import PACKED, IndexRow
from memories.backends.disk.maintenance import StoppedError
from memories.backends.disk.network_fs import remote_kind
from memories.backends.disk.os_errors import storage_error
from memories.backends.disk.overlay_index import OverlayIndex
from memories.backends.disk.reader import SourceHandle
from memories.backends.disk.writer import Writer
from memories.errors import StorageError
from memories.foundation.call_owner import CallOwner
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.foundation.periodic import BackgroundThread
from memories.model.record import Record

PATIENCE_SECONDS = 60.0  # So long may a copy make no progress before who waits for it is told.
_BATCH_ROWS = 512

Replaced = Callable[[Record], AbstractContextManager[None]]
ImportDone = Callable[[BaseException | None], object]


class PendingFile:
    """One file that is lent, and how far it has come."""

    def __init__(
        self, number: int, source: Handle, size: int, table: Table, owner: CallOwner
    ) -> None:
        self.number, self.source, self.size, self.table = number, source, size, table
        self.owner = owner  # The call that enters its records; nothing is settled before its end.
        self.copied_bytes = 0
        self.here = False  # Whether the store has a copy.
        self.obsolete = False  # Whether nothing in it is seen any more.


class BackgroundImport:
    """The lent files of one store. `show` is told through what its readers are to look."""

    def __init__(self, writer: Writer, show: Callable[[Index | OverlayIndex], None]) -> None:
        self._writer, self._show = writer, show
        self._lent = OverlayIndex(writer.index, writer.lock)
        self._loans: list[PendingFile] = []  # Guarded by the writer's lock, like what is lent.
        self._replaced: list[Replaced] = []
        self._told: list[ImportDone] = []
        self._settling = new_lock()  # Taken before the writer's.
        self._stopped = False
        self._thread: BackgroundThread | None = None
        self.failure: StorageError | None = None  # Of the latest attempt to settle.

    @property
    def lent(self) -> OverlayIndex | None:
        """Return what is lent, or None."""
        return self._writer.appender.overlay

    # -- coming ----------------------------------------------------------------------------------

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
            source = SourceHandle(
                writer.files, os.dup(descriptor), mapped=remote_kind(path) is None
            )
            return Adopted(self._lend(number, source, batches, owner), False, lent=True)
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

    def _lend(
        self,
        number: int,
        source: SourceHandle,
        batches: Iterable[Sequence[Adoption]],
        owner: CallOwner,
    ) -> int:
        """Let the frames of an open file be read where they lie; return how many."""
        writer, count = self._writer, 0
        size = writer.files.size(source.descriptor)
        writer.reading.lend(writer.paths.pack(number), source)
        with writer.lock:
            lent = self._active()
            loan = PendingFile(number, source, size, lent.lend(), owner)
            self._loans.append(loan)
            writer.space.import_bytes += size
        for records in placed_in(number, batches):
            with writer.lock:
                lent.enter(loan.table, [IndexRow(r, PACKED, 0, 0, 0, 0) for r in records])
            count += len(records)
        return count

    def hide(self, below: int, replaced: Replaced) -> None:
        """Let every version below this one be seen no more, and remove it once all is settled.

        `replaced` is entered with each record that goes then, for as long as that takes. Files lent
        before this are obsolete now.
        """
        with self._writer.lock:
            lent = self._active()
            self._replaced.append(replaced)
        lent.hide(below)
        with self._writer.lock:
            for loan in list(self._loans):
                rows = loan.table.values()
                if not loan.owner.alive and all(row.record.version < below for row in rows):
                    loan.obsolete = True
                    self._end(loan)

    def _active(self) -> OverlayIndex:
        """Let readers look through what is lent."""
        writer = self._writer
        if writer.appender.overlay is None:
            writer.space.import_bytes = writer.space.copied_bytes = 0
            self._lent = self._writer.appender.overlay = OverlayIndex(
                self._writer.index, self._writer.lock
            )
            self._show(self._lent)
        return self._lent

    # -- settling --------------------------------------------------------------------------------

    def settle_soon(self, told: ImportDone) -> None:
        """Settle in a thread of its own; `told` hears of the error, or that all is durable."""
        self._told.append(told)
        self._thread = BackgroundThread(self._run, "copy")
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self._thread = None
            self._give_up(error)

    def settle(self) -> None:
        """Return once everything lent lies in the store and is journaled.

        Raises:
            StorageError: it cannot be copied or written, or another thread has made no progress
                with that for a minute; it can be read as before, and settled later.
        """
        if self._writer.appender.overlay is None and not self._told:
            return
        with self._turn():
            self.failure = self._settle_each() or self._attempt(self._finish)
        if self.failure is not None:
            raise self.failure
        for tell in list(self._told):
            tell(None)
            with suppress(ValueError):  # Another thread was quicker.
                self._told.remove(tell)  # Afterwards: who is interrupted in it is told again.

    def take_back(self, told: ImportDone) -> None:
        """End what calls hold that an interrupt ended, and derive anew what follows from the loans.

        What such a call has lent is settled soon, for it may have replaced something; `told` hears
        of that.
        """
        writer = self._writer
        with writer.lock:
            writer.release_ended()
            self._loans = [loan for loan in self._loans if not loan.obsolete]
            writer.keep_files({loan.number for loan in self._loans if loan.here})
            lent = writer.appender.overlay
            self._show(writer.index if lent is None else lent)
            waiting = [loan for loan in self._loans if not loan.here]
            writer.space.import_bytes = sum(loan.size for loan in waiting)
            writer.space.copied_bytes = sum(loan.copied_bytes for loan in waiting)
            if lent is not None:
                lent.recount([loan.table for loan in self._loans], writer.accounting.keys)
            idle = self._thread is None or not self._thread.is_alive()
        if idle and (lent is not None or self._told) and not self._stopped:
            self.settle_soon(told)

    def bury(self) -> None:
        """Journal that the versions which are hidden are gone; whoever hid them is durable."""
        writer, below = self._writer, self._lent.hidden_below
        if writer.appender.overlay is None or not below:
            return
        for row in merged(writer.index.parts()):
            if row.record.version < below:
                with ExitStack() as stack:
                    for replaced in self._replaced:
                        stack.enter_context(replaced(row.record))
                    writer.remove(row.record.key, below)

    def stop(self) -> None:
        """Give up what is not settled, for the store is being closed."""
        self._stopped = True
        if self._thread is not None and not self._thread.join_within(PATIENCE_SECONDS):
            raise StorageError(
                f"the copy of a restored snapshot into {self._writer.paths.root} does not end, "
                "for the disk does not answer; the store stays locked until this process ends"
            )

    def close(self) -> None:
        """Let go of the files that are still lent, which nobody reads any more."""
        self._loans.clear()
        self._lent.close()

    def _run(self) -> None:
        try:
            self.settle()
        except StoppedError:
            pass  # It was volatile, and who closes the store has not asked for more.
        except BaseException as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """Tell who waits that what is lent stays volatile for now."""
        for tell in self._told:
            tell(error)
        logger.warning("%s; it is volatile until `flush` succeeds", error)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until nobody else settles, for as long as he gets on."""
        copied = -1
        try:
            while not self._settling.acquire(timeout=PATIENCE_SECONDS):
                if copied == self._writer.space.copied_bytes:
                    raise StorageError(
                        f"the copy of a restored snapshot into {self._writer.paths.root} has made "
                        f"no progress for {PATIENCE_SECONDS:.0f} seconds; check the disk"
                    )
                copied = self._writer.space.copied_bytes
            yield
        finally:
            # Whether it was taken is asked of the lock: an interrupt may strike right after that.
            if self._settling._is_owned():  # type: ignore[attr-defined]
                self._settling.release()

    def _settle_each(self) -> StorageError | None:
        """Settle what can be, and return the first failure."""
        failure: StorageError | None = None
        for loan in list(self._loans):
            if not loan.owner.alive:
                failure = self._attempt(partial(self._settle, loan)) or failure
        return failure

    def _attempt(self, step: Callable[[], None]) -> StorageError | None:
        try:
            step()
        except OSError as error:
            return storage_error("copy a restored snapshot", self._writer.paths.root, error)
        return None

    def _settle(self, loan: PendingFile) -> None:
        writer, owner = self._writer, CallOwner()
        writer.assign_file(loan.number, owner)
        try:
            if (loan.here or self._copy(loan)) and not loan.obsolete:
                writer.write_packs(self._batches(loan))
                with writer.lock:
                    if not loan.obsolete:
                        self._end(loan)
        finally:
            with writer.lock:
                # What is here and not journaled yet is kept for the next attempt.
                if loan.here and loan in self._loans:
                    writer.assign_file(loan.number, None)
                else:
                    writer.end_pack(loan.number)
            owner.end()

    def _copy(self, loan: PendingFile) -> bool:
        """Copy the file; False if nobody wants it any more."""
        writer, path = self._writer, self._writer.paths.pack(loan.number)
        try:
            copy_in(loan.source.descriptor, path, writer.files, lambda n: self._copied(loan, n))
            with writer.lock:
                writer.begin_pack(loan.number, loan.size)
                self._writer.space.copied_bytes -= loan.copied_bytes
                self._writer.space.import_bytes -= 0 if loan.obsolete else loan.size
                loan.here = True
        except BaseException:
            with writer.lock:
                if not loan.here:
                    self._forget_copy(loan)
            if loan.obsolete and not self._stopped:
                return False
            raise
        return True

    def _copied(self, loan: PendingFile, count: int) -> None:
        with self._writer.lock:
            if self._stopped or loan.obsolete:
                raise StoppedError
            loan.copied_bytes += count
            self._writer.space.copied_bytes += count

    def _forget_copy(self, loan: PendingFile) -> None:
        self._writer.space.copied_bytes -= loan.copied_bytes
        loan.copied_bytes = 0

    def _batches(self, loan: PendingFile) -> Iterator[list[Record]]:
        """Yield the records of a loan; nobody changes their terms until they are journaled."""
        keys = iter(list(loan.table))
        while batch := list(islice(keys, _BATCH_ROWS)):
            with self._writer.lock:
                yield [loan.table[key].record for key in batch]

    def _end(self, loan: PendingFile) -> None:
        self._lent.leave(loan.table)
        self._loans.remove(loan)
        if not loan.here:
            self._writer.space.import_bytes -= loan.size
            self._forget_copy(loan)

    def _finish(self) -> None:
        """Remove what is hidden and look at the log again, unless more was lent meanwhile."""
        below = self._lent.hidden_below
        if self._loans:
            return
        self.bury()
        with self._writer.lock:
            if self._lent.used or self._lent.hidden_below != below:
                return
            self._replaced.clear()
            self._writer.appender.overlay = None
            self._show(self._writer.index)
