"""Looks at every byte of a store, says what is damaged, and on request mends what can be mended.

A damaged index is built again from the log. A damaged value is dropped: its key becomes absent,
and says so. A segment that cannot be walked is emptied through the index and unlinked.
"""

from __future__ import annotations

from collections.abc import Callable

from memories.backends.base import Problem
from memories.backends.disk.blocks import RunDamagedError
from memories.backends.disk.files import Files
from memories.backends.disk.handles import Handle
from memories.backends.disk.index import Index, merged
from memories.backends.disk.journal import FILE, INLINE, NOTE, PACKED, Row, unpack_place
from memories.backends.disk.layout import Layout, numbers
from memories.backends.disk.opening import Verify
from memories.backends.disk.reading import GoneError, Reading
from memories.backends.disk.recover import Span, Walk, chain
from memories.backends.disk.writer import Writer
from memories.errors import StorageError
from memories.progress import Step

_LOOKS = 100  # As often a list of segments may be overtaken before the fault is real.


def run_check(
    layout: Layout,
    files: Files,
    reading: Reading,
    look: Callable[[], Index],
    writer: Writer | None,
    *,
    repair: bool,
    verify: Verify | None,
    known: list[str],
    progress: Step,
) -> list[Problem]:
    """Return what is wrong with a store. Without a writer nothing is repaired.

    Raises:
        StorageError: `repair` was asked of a store that is open for reading only.
    """
    if repair and writer is None:
        raise StorageError(f"{layout.root} is open for reading only and cannot be repaired")
    check = Check(layout, files, reading, look, writer if repair else None, verify)
    problems = [Problem(None, what, repair) for what in known]
    problems += check.index()
    problems += check.frames(progress)
    problems += check.segments()
    problems += check.orphans()
    return problems


class Check:
    """The four parts of a check."""

    def __init__(
        self,
        layout: Layout,
        files: Files,
        reading: Reading,
        look: Callable[[], Index],
        mender: Writer | None,
        verify: Verify | None,
    ) -> None:
        self._layout, self._files, self._reading = layout, files, reading
        self._look, self._mender, self._verify = look, mender, verify

    def index(self) -> list[Problem]:
        """Verify every block of every run."""
        problems = []
        for run in self._look().runs:
            try:
                run.verify()
            except RunDamagedError as error:
                problems.append(Problem(None, str(error), self._mender is not None))
        if problems and self._mender is not None:
            with self._mender.tidying:  # Upkeep may be merging the very runs that are given up.
                self._mender.rebuild()
        return problems

    def frames(self, progress: Step) -> list[Problem]:
        """Read and verify the frame of every key; `progress` is told the bytes of each."""
        problems = []
        for row in merged(self._look().parts()):
            what = self._frame(row)
            progress(0 if row.kind == NOTE else row.record.stored)  # A note's value lies elsewhere.
            if what is None:
                continue
            if self._mender is not None:
                self._mender.remove(row.record.key, row.record.version)
            problems.append(Problem(row.record.key, what, self._mender is not None))
        return problems

    def _frame(self, row: Row) -> str | None:
        if row.kind == NOTE:
            return None
        current: Row | None = row
        while current is not None:
            try:
                frame = self._reading.read(current.record)
                if self._verify is not None:
                    self._verify(current.record, frame)
                elif current.kind == INLINE:
                    return self._inline(current)
                return None
            except (GoneError, ValueError) as error:
                found = self._look().row(row.record.key)
                if found == current:
                    return str(error)
                # It was replaced, removed or compacted while we looked.
                here = found is not None and found.kind in (INLINE, FILE, PACKED)
                current = found if here else None
        return None

    def _inline(self, row: Row) -> str | None:
        path = self._layout.segment(row.segment)
        try:
            handle = Handle(self._files, self._files.open(path))
        except FileNotFoundError as error:
            raise GoneError(str(error)) from error
        walk = Walk(self._files, handle, row.offset, row.offset + row.extent)
        if walk.head(row.offset) is None:
            return f"its record in {path} at byte {row.offset} is damaged"
        return None

    def segments(self) -> list[Problem]:
        """Walk every segment from its first record to its last."""
        problems = []
        # What lies behind it is being written, or was left torn by a kill.
        end = None if self._mender is None else self._mender.log.end
        spans = self._spans()
        for span in spans[:-1] if self._mender is None else spans:
            at = self._torn_at(span)
            if at is None or (end is not None and (span.number, at) >= end):
                continue
            if self._mender is not None:
                self._evacuate(self._mender, span.number)
            what = f"{self._layout.segment(span.number)} is damaged at byte {at}"
            problems.append(Problem(None, what, self._mender is not None))
        return problems

    def _spans(self) -> list[Span]:
        """Return the segments that count; looked for again when upkeep took one meanwhile."""
        for _ in range(_LOOKS):
            try:
                return chain(self._layout, self._files)[0]
            except FileNotFoundError:
                continue
        return chain(self._layout, self._files)[0]

    def _torn_at(self, span: Span) -> int | None:
        """Return where a segment cannot be read on, or None; one that has gone is whole."""
        try:
            descriptor = self._files.open(self._layout.segment(span.number))
        except FileNotFoundError:
            return None  # It was compacted away while we looked.
        walk = Walk(self._files, Handle(self._files, descriptor), 0, span.end)
        for _ in walk:
            pass
        if span.before is None:
            return 0
        return None if walk.at == span.end else walk.at

    def _evacuate(self, mender: Writer, number: int) -> None:
        with mender.tidying:  # Or upkeep might be emptying the same segment.
            if number not in mender.ledger.segments:
                return
            with mender.lock:
                if mender.log.end.segment == number:
                    mender.log.cut()
            for row in merged(self._look().parts(), tombstones=True):
                if row.segment == number:
                    try:
                        mender.rewrite(row)
                    except GoneError:
                        mender.remove(row.record.key, row.record.version)
            mender.sync()
            mender.checkpoint()
            mender.doom_segment(number)
            mender.release()

    def orphans(self) -> list[Problem]:
        """Find value files and packs that no record names; only a writer can tell."""
        if self._mender is None:
            return []
        problems = []
        with self._mender.lock:
            named = self._mender.files_in_use()
            for row in merged(self._look().parts()):
                if row.kind in (FILE, PACKED):
                    named.add(unpack_place(row.record.place).file)
            for suffix, path in ((".val", self._layout.value), (".pack", self._layout.pack)):
                for number in set(numbers(self._layout.values, suffix)) - named:
                    self._files.unlink(path(number))
                    problems.append(Problem(None, f"{path(number)} belonged to no key", True))
        return problems
