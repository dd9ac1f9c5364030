"""Replays the log: which segments are valid, how far, and what each record in them says.

After a crash the history ends at the first torn record. A torn record that a later one proves to
have been synced is damage, and refused unless repair is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from memories.backends.disk import log_format
from memories.backends.disk.fd_cache import Handle
from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.index import Index
from memories.backends.disk.log_format import (
    ALIGN,
    HEADER_BYTES,
    INLINE,
    MARK,
    PACKED,
    SEGMENT_HEADER_BYTES,
    IndexRow,
    Position,
    RecordHead,
    unpack_place,
)
from memories.backends.disk.paths import StorePaths, numbers
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.backends.disk.tombstones import earlier_of, with_earlier
from memories.errors import CorruptDataError

_CHUNK = 1 << 20
# How many times the length of a segment is summed at most. Frames that lie end to end are summed
# once, and once more behind damage. A forged head every 64 bytes could each claim all the rest.
_SUMMED_TIMES = 4
START = Position(0, 0)


class SegmentSpan(NamedTuple):
    """A valid segment, and how many bytes of it are valid."""

    number: int
    end: int
    before: Position | None  # Where its history continues from; None if its header is damaged.


class ReplayResult(NamedTuple):
    """What a replay found: where history ends, what lies beyond, and what was damaged."""

    end: Position
    void: list[int]  # Segments that are not part of the history and can be unlinked.
    damage: list[str]


class SegmentWalk:
    """Yields the records of one segment in order, until its end or the first that is torn."""

    def __init__(
        self, files: Files, handle: Handle, start: int, end: int, *, verify: bool = True
    ) -> None:
        self._files = files
        self._handle = handle
        self._verify = verify
        self._base, self._window = 0, b""
        self._summed = 0
        self.at = max(start, SEGMENT_HEADER_BYTES)
        self.end = end

    def __iter__(self) -> Iterator[tuple[int, RecordHead]]:
        """Yield offsets and heads; `at` says where it stopped."""
        while self.at < self.end:
            head = self.head(self.at)
            if head is None:
                return
            offset = self.at
            self.at += head.extent
            yield offset, head

    def extend(self) -> None:
        """Read the length of the segment again, and drop what was read before."""
        self.end = self._files.size(self._handle.descriptor)
        self._window = b""

    def head(self, offset: int) -> RecordHead | None:
        """Return the undamaged record at `offset`, or None."""
        length = log_format.peek(self.bytes(offset, HEADER_BYTES))
        if length is None:
            return None
        head = log_format.unpack_head(self.bytes(offset, length), self._files.seal)
        if head is None or offset + head.extent > self.end:
            return None
        if self._verify and head.kind == INLINE:
            self._summed += head.frame_length
            if self._summed > _SUMMED_TIMES * self.end + _CHUNK:
                return None
            frame = self.bytes(offset + head.frame_at, head.frame_length)
            if xxh3_64_intdigest(frame) != head.frame_sum:
                return None
        return head

    def search(self) -> bool:
        """Move to the next undamaged record behind a torn one; return whether there is any."""
        for offset in range(self.at + ALIGN, self.end, ALIGN):
            if self.head(offset) is not None:
                self.at = offset
                return True
        return False

    def bytes(self, offset: int, length: int) -> bytes:
        """Return bytes of the segment, through a window that moves forward."""
        start = offset - self._base
        if start < 0 or start + length > len(self._window):
            self._base = offset
            want = max(length, _CHUNK)
            self._window = read_exactly(self._files, self._handle.descriptor, want, offset)
            start = 0
        return self._window[start : start + length]


def live_records(
    files: Files,
    handle: Handle,
    number: int,
    start: int,
    newest: Callable[[str], IndexRow | None],
) -> Iterator[tuple[IndexRow, bytes]]:
    """Yield the live rows of one segment, from `start` on, with the bytes of their records."""
    walk = SegmentWalk(files, handle, start, files.size(handle.descriptor))
    for offset, head in walk:
        row = newest(head.record.key)
        if row is not None and (row.segment, row.offset) == (number, offset):
            yield row, walk.bytes(offset, head.extent)


def apply(index: Index, accounting: SpaceAccounting, paths: StorePaths, row: IndexRow) -> None:
    """Enter a row of the log in the index and the accounting, unless a newer one is known."""
    accounting.extend_segment(row.segment, row.offset + row.extent)
    if row.kind == MARK:
        return
    old = index.row(row.record.key)
    if old is not None and old.record.version > row.record.version:
        return
    if row.kind == PACKED:
        pack = unpack_place(row.record.place).file
        path = paths.pack(pack)
        accounting.add_pack(pack, path.stat().st_size if path.exists() else 0)
    if old is not None:
        # A copy says what was earlier when it was new.
        row = with_earlier(row, *earlier_of(old, accounting.segments))
    index.put(row)
    accounting.replace(old, row)


def row_of(number: int, offset: int, head: RecordHead) -> IndexRow:
    """Return what the index says of a record of the log."""
    record = head.record
    if head.kind == INLINE:
        place = log_format.pack_place(INLINE, number, offset + head.frame_at, head.frame_length)
        record = log_format.placed(record, head.frame_length, place)
    return IndexRow(record, head.kind, number, offset, head.extent, head.oldest, head.beyond)


def chain(paths: StorePaths, files: Files, since: int = 0) -> tuple[list[SegmentSpan], list[int]]:
    """Return the valid segments, oldest first, and the numbers of the others.

    Those below `since` are skipped: a writer may be unlinking them.
    """
    found = [number for number in numbers(paths.log, ".seg") if number >= since]
    spans: list[SegmentSpan] = []
    void: list[int] = []
    allowed: Position | None = None
    for number in reversed(found):
        if allowed is not None and number > allowed.segment:
            void.append(number)
            continue
        size, before = look_at(paths.segment(number), number, files)
        end = size
        if allowed is not None and number == allowed.segment:
            end = allowed.offset  # More than there is, where a power cut took the rest.
        spans.append(SegmentSpan(number, end, before))
        allowed = before
    return spans[::-1], void


def follows(span: SegmentSpan, end: Position, synced: Position) -> bool:
    """Return whether an unsynced segment continues where history ends: a power cut may have lost
    its header, or the name of the segment before it.
    """
    if span.before is None:
        return False
    return span.before.segment == end.segment or span.before <= synced


def look_at(path: Path, number: int, files: Files) -> tuple[int, Position | None]:
    """Return how long a segment is, and where its history continues from."""
    descriptor = files.open(path)
    try:
        header = read_exactly(files, descriptor, SEGMENT_HEADER_BYTES, 0)
        return files.size(descriptor), log_format.unpack_segment_header(header, number)
    finally:
        files.close(descriptor)


class Replay:
    """Applies every record after `start`, in order, up to where history ends.

    Each record says how far the log was synced when it was written. What lies before the last such
    mark cannot be torn: if it is not whole, it is damaged. What lies behind may be partly there, so
    that `intact` must say whether a value in a file of its own is whole.

    Raises:
        CorruptDataError: a record is damaged that had been synced, and `repair` is False.
    """

    def __init__(
        self,
        paths: StorePaths,
        files: Files,
        apply: Callable[[IndexRow], None],
        *,
        repair: bool = False,
        intact: Callable[[IndexRow], bool] = lambda row: True,
    ) -> None:
        self._paths, self._files = paths, files
        self._apply, self._intact, self._repair = apply, intact, repair
        self._void: list[int] = []
        self._damage: list[str] = []

    def run(self, start: Position) -> ReplayResult:
        """Replay the log and return where history ends."""
        spans, self._void = chain(self._paths, self._files, start.segment)
        synced = max(start, self._mark(spans, start))
        limit = self._limit(spans, synced)
        end = start
        for span in spans:
            if limit < (span.number, SEGMENT_HEADER_BYTES):
                self._void.append(span.number)
                continue
            first = start.offset if span.number == start.segment else SEGMENT_HEADER_BYTES
            last = limit.offset if span.number == limit.segment else span.end
            walk = self._walk(span.number, first, last)
            if span.before is None and first == SEGMENT_HEADER_BYTES:
                self._report(span.number, 0)
            while True:
                for offset, head in walk:
                    self._apply(row_of(span.number, offset, head))
                if walk.at >= walk.end:
                    break
                self._bridge(walk, span.number)
            end = Position(span.number, max(last, SEGMENT_HEADER_BYTES))
        return ReplayResult(end, self._void, self._damage)

    def _mark(self, spans: list[SegmentSpan], start: Position) -> Position:
        """Return how far the log is known to have been synced, as one of its last records says.

        Copies say how far it was when they were new, and may fill the last segments. No record says
        more than that all before itself was synced.
        """
        found = START
        for span in reversed(spans):
            if found.segment > span.number:
                break
            first = start.offset if span.number == start.segment else 0
            walk = self._walk(span.number, first, span.end)
            marks = [head.synced for _, head in walk]
            while walk.at < walk.end and walk.search():
                marks += [head.synced for _, head in walk]
            found = max([found, *marks])
        return found

    def _limit(self, spans: list[SegmentSpan], synced: Position) -> Position:
        """Return the end of the longest history that holds together."""
        limit, rows = synced, list[tuple[Position, str, bool]]()
        for span in spans:
            if span.number < synced.segment:
                continue
            if span.number > synced.segment and not follows(span, limit, synced):
                break
            first = synced.offset if span.number == synced.segment else 0
            walk = self._walk(span.number, first, span.end)
            for offset, head in walk:
                row = row_of(span.number, offset, head)
                rows.append((Position(span.number, offset), row.record.key, self._intact(row)))
            limit = max(limit, Position(span.number, walk.at))
            if walk.at < span.end:
                break
        while True:
            # The newest record of a key must have its value; those it replaced need none.
            newest = {key: (at, whole) for at, key, whole in rows if at < limit}
            hollow = [at for at, whole in newest.values() if not whole]
            if not hollow:
                return limit
            limit = min(hollow)

    def _bridge(self, walk: SegmentWalk, number: int) -> None:
        self._report(number, walk.at)
        if not walk.search():
            walk.at = walk.end

    def _report(self, number: int, offset: int) -> None:
        where = f"{self._paths.segment(number)} is damaged at byte {offset}"
        self._damage.append(where)
        if not self._repair:
            raise CorruptDataError(
                f"{where}, and the index that would bridge it is missing or damaged too; "
                "run `memories check --repair` on the store to keep what is readable"
            )

    def _walk(self, number: int, start: int, end: int) -> SegmentWalk:
        handle = Handle(self._files, self._files.open(self._paths.segment(number)))
        return SegmentWalk(self._files, handle, start, end)
