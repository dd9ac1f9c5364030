"""Verifies every byte of a store, reports what is damaged, and on request repairs it.

A damaged index is rebuilt from the log. A damaged value is removed, and its key becomes absent. A
segment that cannot be walked is emptied through the index and unlinked. Only what was *read* and is
wrong counts as damaged: what is missing or unreadable may come back, and stays as it is. All that
is removed is copied to lost+found first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from memories.backends.base import Problem
from memories.backends.disk import paths as store_paths
from memories.backends.disk.fd_cache import Handle
from memories.backends.disk.files import Files
from memories.backends.disk.index import Index, merged
from memories.backends.disk.log_format import (
    FILE,
    INLINE,
    NOTE,
    PACKED,
    PLACE,
    IndexRow,
    unpack_place,
)
from memories.backends.disk.lost_and_found import LostAndFound
from memories.backends.disk.open import Verify
from memories.backends.disk.paths import StorePaths, numbers
from memories.backends.disk.reader import AbsentError, FrameReader, GoneError
from memories.backends.disk.replay import SegmentSpan, SegmentWalk, chain
from memories.backends.disk.run_table import RunDamagedError
from memories.backends.disk.store_directory import StoreDirectory
from memories.backends.disk.writer import Writer
from memories.errors import CorruptDataError, StorageError, UnsupportedTypeError
from memories.progress import Step

_ATTEMPTS = 100  # A list of segments may be outdated so often before the fault is real.
DROPPED = "it is set aside in lost+found, and its key becomes absent"
REBUILT = "the index is built again from the log"
EMPTIED = "what can be read of it is written again, and the file is set aside in lost+found"
MOVED_AWAY = "it is set aside in lost+found"


class CheckFinding(NamedTuple):
    """What is wrong with one frame."""

    what: str
    damaged: bool  # It was read, and is not what was written; False if it could not be read.


def run_check(
    paths: StorePaths,
    files: Files,
    directory: StoreDirectory,
    reader: FrameReader,
    current_index: Callable[[], Index],
    distrust_index: Callable[[], None],
    writer: Writer | None,
    *,
    repair: bool,
    dry_run: bool,
    verify: Verify | None,
    known: list[Problem],
    progress: Step,
) -> list[Problem]:
    """Return what is wrong with a store. Without a writer nothing is repaired.

    Raises:
        StorageError: the directory is not there; or `repair` was asked of a store that is open for
            reading only.
    """
    if repair and writer is None and not dry_run:
        raise StorageError(f"{paths.root} is open for reading only and cannot be repaired")
    repairer = writer if repair and not dry_run else None
    check = Check(
        paths, files, directory, reader, current_index, distrust_index, writer, repairer, verify
    )
    check.require()
    known = [*known, *check.index()]
    if not check.has_index:
        return known  # What is here is not known before the index is built again.
    return [
        *known,
        *check.frames(progress),
        *check.segments(),
        *(check.orphans() if repair else ()),
    ]


class Check:
    """The four parts of a check; `repairer` is the writer, if anything may be repaired."""

    def __init__(
        self,
        paths: StorePaths,
        files: Files,
        directory: StoreDirectory,
        reader: FrameReader,
        current_index: Callable[[], Index],
        distrust_index: Callable[[], None],
        writer: Writer | None,
        repairer: Writer | None,
        verify: Verify | None,
    ) -> None:
        self._paths, self._files, self._directory, self._reader = paths, files, directory, reader
        self._current_index, self._distrust_index = current_index, distrust_index
        self._verify = verify
        self._writer, self._repairer = writer, repairer
        self._lost_and_found = LostAndFound(paths, files)
        self.has_index = True

    def require(self) -> None:
        """Raise StorageError unless the store lies where it was opened."""
        self._directory.require()
        store_paths.require(self._paths)

    def index(self) -> list[Problem]:
        """Verify every block of every run; where one is damaged, the log is read instead of it."""
        damaged = dict[Path, str]()
        for run in self._current_index().runs:
            try:
                run.verify()
            except RunDamagedError as error:
                damaged[run.path] = str(error)
        if not damaged:
            return []
        repaired, without = self._repairer is not None, ""
        try:
            self._build_again(damaged)
        except (CorruptDataError, StorageError) as error:
            self.has_index, repaired = False, False
            without = f"; it cannot be built again now: {error}"
        return [
            Problem(None, what + without, repaired, remedy=REBUILT) for what in damaged.values()
        ]

    def _build_again(self, damaged: Mapping[Path, str]) -> None:
        if self._repairer is None:
            self._distrust_index()  # In RAM, as a read does that meets the damage.
            return
        with self._repairer.upkeep_lock:  # Upkeep may be merging these runs.
            self._repairer.require_log()
            for path, what in damaged.items():
                if path.exists():  # Upkeep may have merged it meanwhile.
                    self._lost_and_found.add_file(path, what)
            self._repairer.rebuild()

    def frames(self, progress: Step) -> list[Problem]:
        """Read and verify the frame of every key; call `progress` with the bytes of each."""
        problems = []
        for row in merged(self._current_index().parts()):
            found = self._frame(row)
            progress(0 if row.kind == NOTE else row.record.stored)  # A note's value lies elsewhere.
            if found is None:
                continue
            self.require()  # Otherwise each of them would be reported as missing.
            key = row.record.key
            if not found.damaged:
                problems.append(Problem(key, found.what, False))
                continue
            if self._repairer is not None:
                self._drop(self._repairer, row, found.what)
            problems.append(Problem(key, found.what, self._repairer is not None, remedy=DROPPED))
        return problems

    def _frame(self, row: IndexRow) -> CheckFinding | None:
        if row.kind == NOTE:
            return None
        current: IndexRow | None = row
        while current is not None:
            found = self._faults(current)
            if found is None:
                return None
            now = self._current_index().row(row.record.key)
            if now == current:
                return found
            # It was replaced, removed or compacted meanwhile.
            here = now is not None and now.kind in (INLINE, FILE, PACKED)
            current = now if here else None
        return None

    def _faults(self, row: IndexRow) -> CheckFinding | None:
        try:
            frame = self._reader.read(row.record)
            if self._verify is not None:
                self._verify(row.record, frame)
            elif row.kind == INLINE:
                return self._inline(row)
        except AbsentError as error:
            return CheckFinding(f"{error}; bring it back, or delete the key if it is lost", False)
        except UnsupportedTypeError as error:
            return CheckFinding(f"it cannot be read here: {error}", False)
        except (GoneError, ValueError) as error:
            return CheckFinding(str(error), True)
        except OSError as error:
            path = self._reader.path(unpack_place(row.record.place))
            return CheckFinding(f"{path} cannot be read: {error.strerror or error}", False)
        return None

    def _inline(self, row: IndexRow) -> CheckFinding | None:
        path = self._paths.segment(row.segment)
        walk = SegmentWalk(
            self._files, self._reader.segment(row.segment), row.offset, row.offset + row.extent
        )
        if walk.head(row.offset) is None:
            return CheckFinding(f"its record in {path} at byte {row.offset} is damaged", True)
        return None

    def _drop(self, repairer: Writer, row: IndexRow, what: str) -> None:
        if len(row.record.place) == PLACE.size:
            place = unpack_place(row.record.place)
            path = self._reader.path(place)
            if place.kind == FILE:
                self._lost_and_found.add_file(path, what, row.record)
            else:
                self._lost_and_found.add_part(path, place.offset, place.length, what, row.record)
        repairer.remove(row.record.key, row.record.version)

    def segments(self) -> list[Problem]:
        """Walk every segment from its first record to its last."""
        problems = []
        # Behind the end of the log a record is being written, or was left torn by a kill.
        end = None if self._writer is None else self._writer.log.end
        spans = self._spans()
        for span in spans[:-1] if self._writer is None else spans:
            path = self._paths.segment(span.number)
            try:
                at = self._torn_at(span)
            except OSError as error:
                self.require()
                what = f"{path} cannot be read: {error.strerror or error}"
                problems.append(Problem(None, what, False))
                continue
            if at is None or (end is not None and (span.number, at) >= end):
                continue
            what, repaired = f"{path} is damaged at byte {at}", False
            if self._repairer is not None:
                self.require()
                repaired = self._empty_segment(self._repairer, span.number, what)
            problems.append(Problem(None, what, repaired, remedy=EMPTIED))
        return problems

    def _spans(self) -> list[SegmentSpan]:
        """Return the valid segments; lists them again if upkeep has unlinked one meanwhile."""
        for _ in range(_ATTEMPTS):
            try:
                return chain(self._paths, self._files)[0]
            except FileNotFoundError:
                self.require()
        return chain(self._paths, self._files)[0]

    def _torn_at(self, span: SegmentSpan) -> int | None:
        """Return where a segment is torn, or None; one that has been unlinked is whole."""
        try:
            descriptor = self._files.open(self._paths.segment(span.number))
        except FileNotFoundError:
            return None  # It was compacted meanwhile.
        walk = SegmentWalk(self._files, Handle(self._files, descriptor), 0, span.end)
        for _ in walk:
            pass
        if span.before is None:
            return 0
        return None if walk.at == span.end else walk.at

    def _empty_segment(self, repairer: Writer, number: int, what: str) -> bool:
        """Write again what lives in a segment, and unlink it; return whether all could be read."""
        with repairer.upkeep_lock:  # Or upkeep might be emptying the same segment.
            if number not in repairer.accounting.segments:
                return True
            with repairer.lock:
                if repairer.log.end.segment == number:
                    repairer.log.cut()
            self._lost_and_found.add_file(self._paths.segment(number), what)
            for row in merged(self._current_index().parts(), tombstones=True):
                if row.segment != number:
                    continue
                try:
                    repairer.rewrite(row)
                except AbsentError:
                    return False
                except GoneError as error:
                    self._drop(repairer, row, str(error))
            repairer.sync()
            repairer.checkpoint()
            repairer.drop_segment(number)
            repairer.unlink_obsolete()
        return True

    def orphans(self) -> list[Problem]:
        """Find value files and packs that no record names; only the writer knows them."""
        if self._writer is None:
            return []
        problems = []
        for path in self._unnamed(self._writer):
            what = f"{path} belonged to no key"
            if self._repairer is not None:
                self.require()
                self._lost_and_found.add_file(path, what)
                self._files.unlink(path)
            problems.append(Problem(None, what, self._repairer is not None, remedy=MOVED_AWAY))
        return problems

    def _unnamed(self, writer: Writer) -> list[Path]:
        with writer.lock:
            named = writer.files_in_use()
            for row in merged(self._current_index().parts()):
                if row.kind in (FILE, PACKED):
                    named.add(unpack_place(row.record.place).file)
            kinds = ((".val", self._paths.value), (".pack", self._paths.pack))
            return [
                path(number)
                for suffix, path in kinds
                for number in sorted(set(numbers(self._paths.values, suffix)) - named)
            ]
