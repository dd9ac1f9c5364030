"""The cold tier's store and the journal of all durable truths: a log, and an index over it.

It decides nothing about who stays; who may read and write through it is its `Role`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from memories.backends.base import Problem, Usage
from memories.backends.disk.background_import import ImportDone
from memories.backends.disk.backpressure import admit, admit_head, reported
from memories.backends.disk.batch_read import gather
from memories.backends.disk.blocks import RunDamagedError
from memories.backends.disk.check import run_check
from memories.backends.disk.compaction import make_room, shrink, tidy
from memories.backends.disk.files import Files
from memories.backends.disk.log_format import TOMBSTONE
from memories.backends.disk.open import Verify
from memories.backends.disk.os_errors import storage_error
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.reader import AbsentError, GoneError
from memories.backends.disk.role import Role
from memories.backends.disk.view import StoreView
from memories.errors import (
    CorruptDataError,
    KeyNotFoundError,
    StorageError,
)
from memories.foundation.call_owner import Owner
from memories.model.record import Record
from memories.progress import Step, skip

Durability = Literal["relaxed", "full"]

WORTH_SHARE = 64  # One part in so many of the capacity is worth some upkeep before its time.


class DiskBackend(Role):
    """Keeps frames in a directory.

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
        files: The operating system; a test gives one that fails.

    Raises:
        StoreLockedError: somebody else is writing it.
        CorruptDataError: the index is lost, and a synced part of the log is damaged.
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
        files: Files | None = None,
    ) -> None:
        super().__init__(
            StorePaths(Path(path)), Files() if files is None else files, full=durability == "full",
            read_only=read_only, mmap=mmap, verify=verify, repair=repair, capacity=capacity_bytes,
        )  # fmt: skip

    # -- the contract ----------------------------------------------------------------------------

    def write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Keep `frame`; one append to the log, or one file of its own from 1 MB on.

        Where too much is dead it waits for upkeep, so that the disk never holds more than it may.

        Raises:
            TierFullError: dead bytes that somebody still reads take what it needs.
        """
        return admit(
            self._writing(),
            f"store {record.key!r}",
            lambda writer, granted: writer.write(record, frame, granted),
        )

    def read(self, record: Record) -> memoryview:
        """Return the frame that `record` names; from 1 MB on a view of the mapped file.

        Raises:
            CorruptDataError: the medium no longer holds what the record names.
            KeyNotFoundError: the record was replaced or removed, and its bytes given back.
        """
        try:
            return self._reading.read(record)
        except GoneError:
            return self._read_again(record)
        except OSError as error:
            raise storage_error(f"read {record.key!r}", self._paths.root, error) from error

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frame of each record; small ones that lie close together in one read."""
        frames = gather(self._reading, self._files, records)
        return [frame or self.read(one) for frame, one in zip(frames, records, strict=True)]

    def find(self, key: str) -> Record | None:
        """Return the newest record of `key`, or None."""
        try:
            row = (self._index if self._writer is not None else self._look()).row(key)
        except RunDamagedError:
            self._distrust_index()
            row = self._look().row(key)
        if row is None and self._closed:
            self._following()  # It found nothing because the files were closed meanwhile.
        return None if row is None or row.kind == TOMBSTONE else row.record

    def newest(self, key: str) -> tuple[int, Record | None]:
        """Return the highest version of `key` in the log, and its record unless it is a removal.

        The version is 0 where the log says nothing. What is only lent does not count.
        """
        try:
            row = self._logged().row(key)
        except RunDamagedError:
            self._distrust_index()
            row = self._logged().row(key)
        if row is None:
            return 0, None
        return row.record.version, None if row.kind == TOMBSTONE else row.record

    def remove(self, key: str, version: int) -> None:
        """Append a tombstone to the log; nothing but a failing disk keeps it from that."""
        admit_head(self._writing(), f"remove {key!r}", lambda writer: writer.remove(key, version))

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield records in key order, as of one moment."""
        while True:
            try:
                for row in self._look().rows(prefix, after):
                    yield row.record
                    after = row.record.key
                if self._closed:
                    self._following()
                return
            except RunDamagedError:
                self._distrust_index()

    def usage(self) -> Usage:
        """Return what is held; physical bytes are everything in the directory."""
        writer = self._writer
        if writer is not None:
            return Usage(writer.accounting.live, writer.space.physical(), writer.keys())
        accounting = self._following().accounting
        held = accounting.log_bytes + accounting.pack_bytes + accounting.value_bytes
        keys = accounting.keys if self._lent() is None else sum(1 for _ in self.scan())
        return Usage(accounting.live, held, keys)

    def keys_elsewhere(self) -> int:
        """Return how many of the keys have their frame in another backend."""
        writer = self._writer
        elsewhere = (self._following() if writer is None else writer).accounting.elsewhere
        return elsewhere if self._lent() is None else min(elsewhere, self.usage().keys)

    def last_version(self) -> int:
        """Return the highest version ever written, noted or removed here."""
        writer = self._writer
        return (self._following() if writer is None else writer).accounting.last_version

    def sync(self) -> None:
        """Return once everything committed survives a power cut."""
        if self._read_only or self._forked:
            return
        self._lending().settle()
        writer = self._writing()
        with reported(self._paths.root, "sync"):
            writer.sync()

    # -- beyond the contract ---------------------------------------------------------------------

    def take_back(self, told: ImportDone) -> None:
        """End what calls hold that were interrupted at an unlucky line.

        What they have lent is made durable soon; `told` hears None then, or why it is not.
        """
        if self._writer is not None:
            self._lending().take_back(told)

    def note(self, record: Record) -> Record:
        """Journal a record whose frame another backend keeps; `find` and `scan` return it."""
        return admit_head(
            self._writing(), f"note {record.key!r}", lambda writer: writer.write_note(record)
        )

    def amend(self, record: Record) -> Record:
        """Journal other terms for the version of `record.key` that is here; the frame stays."""
        writer = self._writing()
        if writer.appender.overlay is not None and writer.appender.overlay.amend(record):
            return record
        return admit(
            writer,
            f"amend {record.key!r}",
            lambda writer, granted: writer.amend(record, granted),
        )

    @contextmanager
    def view(self) -> Iterator[StoreView]:
        """Give all records as of now; what they name stays readable until the end of the block."""
        writer = self._writer
        if writer is None:
            follower = self._following()
            follower.refresh(now=True)
            yield StoreView(self._look().frozen(), follower.accounting)
            return
        with writer.lock:
            view = StoreView(self._index.frozen(), writer.accounting)
            writer.pin(view)
        try:
            yield view
        finally:
            writer.unpin(view)

    def soonest(self) -> float | None:
        """Return a time before which no record's ends; None if none will."""
        return self._look().soonest()

    def expired(self, now: float) -> Iterator[Record]:
        """Yield the records whose time had ended at `now`; costs nothing for the others."""
        return (row.record for row in self._look().expired(now))

    def charged(self) -> int:
        """Return what the capacity is charged: for packed values a quarter more than they take."""
        writer = self._writer
        return self._following().accounting.charge if writer is None else writer.space.charged()

    def room(self) -> int:
        """Return the bytes that may still be charged, by the capacity and by the file system."""
        writer = self._writer
        if writer is None:
            return self._directory.free_bytes()
        return writer.space.room()

    def make_room(self, size: int) -> bool:
        """Give dead bytes back until `size` more may lie here; return whether they may."""
        writer = self._writing()
        with reported(self._paths.root, "make room"):
            return make_room(writer, size)

    def dead(self) -> int:
        """Return the bytes that are held for what is removed or replaced by now."""
        return self._writing().accounting.dead

    def shrink(self, before: int = 0) -> None:
        """Give back what was removed since `before` bytes were dead, where most of a file was.

        What the disk refuses now, upkeep tries again, and `check` tells of.
        """
        writer = self._writing()
        try:
            shrink(writer, before)
        except OSError:
            writer.appender.changed.set()

    def catch_up(self) -> bool:
        """Do the upkeep that is behind, if that gives back much; return whether it was done.

        Room is kept for what upkeep writes about the records since the latest checkpoint: small
        values that come and go could fill a small store with nothing else.
        """
        writer = self._writing()
        if (
            4 * writer.space.recent_heads
            < writer.space.limit(writer.space.physical()) // WORTH_SHARE
        ):
            return False
        with reported(self._paths.root, "tidy up"), writer.hurried(Owner()):
            tidy(writer, lambda: None, quiet=True)
        return True

    def check(
        self, *, repair: bool = False, dry_run: bool = False, progress: Step | None = None
    ) -> list[Problem]:
        """Verify the index, the log and every frame; see `check.py` for what is mended how.

        Raises:
            StorageError: the directory is not there, or cannot be read.
        """
        act = repair and not dry_run
        known = [Problem(None, what, act) for what in self._damage]
        if self._upkeep is not None:
            known += [Problem(None, what, False) for what in self._upkeep.problems()]
        if self._loans is not None and self._loans.failure is not None:
            known.append(Problem(None, str(self._loans.failure), False))
        with reported(self._paths.root, "check the store"):
            self._look()
            problems = run_check(
                self._paths, self._files, self._directory, self._reading, self._logged,
                self._writer, repair=repair, dry_run=dry_run, verify=self._verify, known=known,
                progress=progress or skip,
            )  # fmt: skip
        if act:
            self._damage = []
        return problems

    # -- reading ---------------------------------------------------------------------------------

    def _read_again(self, record: Record) -> memoryview:
        """Its file is gone: it was compacted away, or replaced, or lost."""
        if self._writer is None:
            self._following().refresh(now=True)
        found = self.find(record.key)
        if found is None or found.version != record.version:
            raise KeyNotFoundError(f"version {record.version} of {record.key!r} was replaced")
        try:
            return self._reading.read(found)
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
