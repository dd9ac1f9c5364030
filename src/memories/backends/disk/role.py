"""Who a handle on a store is: its writer, a reader that follows it, a forked child, or closed.

Not what is read or written: every question comes through `_writing` or `_following`, which say who
may ask. One process writes a directory; any number may read it, and a forked child becomes one of
those.
"""

from __future__ import annotations

import os
import weakref
from typing import Self

from memories.backends.disk import paths as store_paths
from memories.backends.disk.adopting import AdoptingBackend
from memories.backends.disk.background_import import BackgroundImport
from memories.backends.disk.compaction import is_due
from memories.backends.disk.fd_cache import HandleCache
from memories.backends.disk.files import NO_SPACE, Files
from memories.backends.disk.follower import Follower
from memories.backends.disk.index import Index
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.maintenance import Maintenance
from memories.backends.disk.network_fs import warn_if_remote
from memories.backends.disk.open import StoreOpening, Verify
from memories.backends.disk.os_errors import storage_error
from memories.backends.disk.overlay_index import OverlayIndex
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.reader import FrameReader, SourceHandles
from memories.backends.disk.space import Reserve
from memories.backends.disk.store_directory import StoreDirectory
from memories.backends.disk.writer import Writer
from memories.errors import ClosedError, ForkedError, MemoriesError, StorageError
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger


class Role(AdoptingBackend):
    """The half of the disk backend that opens, forks and closes."""

    def __init__(
        self,
        paths: StorePaths,
        files: Files,
        *,
        full: bool,
        read_only: bool,
        mmap: bool,
        verify: Verify | None,
        repair: bool,
        capacity: int | None,
    ) -> None:
        self._paths, self._files = paths, files
        self._full, self._verify, self._capacity = full, verify, capacity
        self._closed, self._forked, self._read_only = False, False, read_only
        self._directory: StoreDirectory
        self._follower: Follower | None = None
        self._writer: Writer | None = None
        self._ending: Writer | None = None  # Who wrote, while the store is being closed.
        self._upkeep: Maintenance | None = None
        self._lock: WriterLock | None = None
        self._damage: list[str] = []
        self._follow_lock = new_lock()
        try:
            self._mmap = mmap and not warn_if_remote(self._paths.root)
            self._reading = self._new_reading()
            if read_only:
                store_paths.verify(self._paths)
                self._directory = StoreDirectory(self._paths.root)
                self._follow()
            else:
                self._open_writer(repair=repair)
        except MemoriesError:
            raise
        except OSError as error:
            raise storage_error("open a store", self._paths.root, error) from error
        _handles.add(self)

    def _open_writer(self, *, repair: bool) -> None:
        self._paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = StoreDirectory(self._paths.root)
        self._lock = WriterLock(self._directory, self._paths.lock)
        try:
            store_paths.create(self._paths, self._files)
            store_paths.verify(self._paths)
            try:
                writer, self._damage = self._opening(repair).run()
            except OSError as error:
                # What a crash left to be written takes room, and on a full disk that is kept.
                if not Reserve(self._paths, self._files, 0, 0).give(error):
                    raise
                writer, self._damage = self._opening(repair).run()
        except BaseException:
            self._lock.release()
            self._lock = None
            raise
        self._writer, self._reading = writer, writer.reading
        self._show(writer.index)
        self._upkeep = Maintenance(writer)
        self._loans = BackgroundImport(writer, self._show)
        if is_due(writer):  # It was killed, say, before its upkeep came to that.
            writer.appender.changed.set()
        if writer.appender.changed.is_set():
            self._upkeep.start()

    def _opening(self, repair: bool) -> StoreOpening:
        return StoreOpening(
            self._paths, self._files, writer_lock=self._lock, mmap=self._mmap, full=self._full,
            verify=self._verify, repair=repair, distrust_index=False, capacity=self._capacity,
        )  # fmt: skip

    def close(self) -> None:
        """Sync what is not just lent, write a checkpoint, let another writer in. Idempotent.

        Every file is closed when this returns, and also when it raises; a mapping lives as long as
        the last view of it. After an interrupt, a second call goes on.
        """
        self._closed = True
        _handles.discard(self)
        self._ending, self._writer = self._writer or self._ending, None
        try:
            self._settle()
        except Exception as error:
            self._let_go()
            if isinstance(error, OSError) and not isinstance(error, MemoriesError):
                raise storage_error("sync", self._paths.root, error) from error
            raise
        self._let_go()

    def _settle(self) -> None:
        """End the threads, and bring the store into order."""
        if self._loans is not None and not self._forked:
            self._loans.stop()
        if self._ending is not None:
            if self._upkeep is not None:
                self._upkeep.stop()
            self._checkpoint(self._ending)

    def _checkpoint(self, writer: Writer) -> None:
        """Write a checkpoint; without room for one, the next opening reads the log instead."""
        try:
            writer.on_full_disk(writer.checkpoint)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            writer.sync()
            logger.warning(
                "no room for a checkpoint of %s; opening it takes longer", writer.paths.root
            )

    def _let_go(self) -> None:
        """Close every file, and the lock at last: who opens the store then finds it at rest."""
        if self._loans is not None:
            self._loans.close()
        if self._ending is not None:
            self._ending.close()
            self._ending = self._upkeep = None
        if self._follower is not None:
            self._follower.close()
        self._reading.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> Index | OverlayIndex:
        if self._writer is not None:
            return self._index
        lent, index = self._lent(), self._following().index
        return index if lent is None else lent.over(index)

    def _logged(self) -> Index:
        return self._following().index if self._writer is None else self._writer.index

    def _writing(self) -> Writer:
        writer = self._writer
        if writer is not None:
            if self._upkeep is not None:
                self._upkeep.start()
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
        if (
            self._directory.descriptor < 0
        ):  # The lock was on it, which a forked child has let go of.
            self._directory = StoreDirectory(self._paths.root)
        self._read_anew()
        self._follower = Follower(self._directory, self._paths, self._files, mmap=self._mmap)
        self._follower.refresh(now=True)
        return self._follower

    def _read_anew(self) -> None:
        """Read through descriptors of one's own, and files that are lent to the parent process."""
        lent = None if self._loans is None else self._reading.lent
        self._reading.close()
        self._reading = self._new_reading(lent)

    def _new_reading(self, lent: SourceHandles | None = None) -> FrameReader:
        handles = HandleCache(self._paths, self._files)
        return FrameReader(self._paths, self._files, handles, map_large=self._mmap, lent=lent)

    def _distrust_index(self) -> None:
        if self._writer is None:
            self._following().distrust_runs()
        else:
            self._writer.rebuild()

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
            self._writer = self._upkeep = None
            if self._lock is not None:
                self._lock.abandon()
                self._lock = None


_handles: weakref.WeakSet[Role] = weakref.WeakSet()


def _after_fork() -> None:
    for handle in list(_handles):
        handle.reopened_after_fork()


os.register_at_fork(after_in_child=_after_fork)
