"""Reads the log back: which segments count and how far, and what each record in them says.

It decides where history ends after a crash: at the first record that is torn. A torn record that a
later one proves to have been synced is no crash but damage, and refused unless repair is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from memories.backends.disk import journal
from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.handles import Handle
from memories.backends.disk.index import Index
from memories.backends.disk.journal import (
    ALIGN,
    HEADER_BYTES,
    INLINE,
    PACKED,
    SEGMENT_HEADER_BYTES,
    Head,
    Position,
    Row,
    unpack_place,
)
from memories.backends.disk.layout import Layout, numbers
from memories.backends.disk.ledger import Ledger
from memories.errors import CorruptDataError

_CHUNK = 1 << 20
START = Position(0, 0)
NOWHERE = 0xFFFFFFFF  # No segment: nothing is older.


class Span(NamedTuple):
    """A segment that counts, and how much of it."""

    number: int
    end: int


class Replayed(NamedTuple):
    """What a replay found: where history ends, what lies beyond, and what was damaged."""

    end: Position
    void: list[int]  # Segments that do not count and can be unlinked.
    damage: list[str]


class Walk:
    """Yields the records of one segment in order, until its end or the first that is torn."""

    def __init__(
        self, files: Files, handle: Handle, start: int, end: int, *, verify: bool = True
    ) -> None:
        self._files = files
        self._handle = handle
        self._verify = verify
        self._base, self._window = 0, b""
        self.at = max(start, SEGMENT_HEADER_BYTES)
        self.end = end

    def __iter__(self) -> Iterator[tuple[int, Head]]:
        """Yield offsets and heads; `at` says where it stopped."""
        while self.at < self.end:
            head = self.head(self.at)
            if head is None:
                return
            offset = self.at
            self.at += head.extent
            yield offset, head

    def extend(self) -> None:
        """Look how long the segment is by now, and forget what was read before."""
        self.end = self._files.size(self._handle.descriptor)
        self._window = b""

    def head(self, offset: int) -> Head | None:
        """Return the sound record at `offset`, or None."""
        length = journal.peek(self.bytes(offset, HEADER_BYTES))
        if length is None:
            return None
        head = journal.unpack_head(self.bytes(offset, length))
        if head is None or offset + head.extent > self.end:
            return None
        if self._verify and head.kind == INLINE:
            frame = self.bytes(offset + head.frame_at, head.frame_length)
            if xxh3_64_intdigest(frame) != head.frame_sum:
                return None
        return head

    def search(self) -> bool:
        """Move to the next sound record behind a torn one; whether there is any."""
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


def apply(index: Index, ledger: Ledger, layout: Layout, row: Row) -> None:
    """Enter a row of the log in the index and the account, unless a newer one is known."""
    old = index.row(row.record.key)
    ledger.grew(row.segment, row.offset + row.extent)
    if old is not None and old.record.version > row.record.version:
        return
    if row.kind == PACKED:
        pack = unpack_place(row.record.place).file
        path = layout.pack(pack)
        ledger.adopted(pack, path.stat().st_size if path.exists() else 0)
    if old is not None:
        row = row._replace(oldest=min(row.oldest, oldest_of(old)))
    index.put(row)
    ledger.replace(old, row)


def oldest_of(old: Row | None) -> int:
    """Return the lowest segment that may hold a record of the key `old` is the newest of."""
    if old is None:
        return NOWHERE
    return old.oldest if old.oldest < old.segment else old.segment


def row_of(number: int, offset: int, head: Head) -> Row:
    """Return what the index says of a record of the log."""
    record = head.record
    if head.kind == INLINE:
        place = journal.pack_place(INLINE, number, offset + head.frame_at, head.frame_length)
        record = journal.placed(record, head.frame_length, place)
    return Row(record, head.kind, number, offset, head.extent, head.oldest)


def chain(layout: Layout, files: Files) -> tuple[list[Span], list[int]]:
    """Return the segments that count, oldest first, and the numbers of those that do not."""
    found = numbers(layout.log, ".seg")
    spans: list[Span] = []
    void: list[int] = []
    allowed: Position | None = None
    for number in reversed(found):
        if allowed is not None and number > allowed.segment:
            void.append(number)
            continue
        size, before = _look(layout.segment(number), number, files)
        end = size
        if allowed is not None and number == allowed.segment:
            end = min(size, allowed.offset)
        if before is None:
            # Its header never reached the disk whole; `replay` decides what that means.
            end = 0
        spans.append(Span(number, end))
        allowed = before
    return spans[::-1], void


def _look(path: Path, number: int, files: Files) -> tuple[int, Position | None]:
    descriptor = files.open(path)
    try:
        header = read_exactly(files, descriptor, SEGMENT_HEADER_BYTES, 0)
        return files.size(descriptor), journal.unpack_segment_header(header, number)
    finally:
        files.close(descriptor)


class Replay:
    """Applies every record after `start`, in order.

    `intact` says whether a value in a file of its own is whole. It is asked for every such record,
    so give it only for the part of the log that may not have been synced.

    Raises:
        CorruptDataError: a record is damaged that had been synced, and `repair` is False.
    """

    def __init__(
        self,
        layout: Layout,
        files: Files,
        apply: Callable[[Row], None],
        *,
        repair: bool = False,
        intact: Callable[[Row], bool] = lambda row: True,
    ) -> None:
        self._layout, self._files = layout, files
        self._apply, self._intact, self._repair = apply, intact, repair
        self._damage: list[str] = []
        self._latest: dict[str, Position] | None = None
        self._start = START

    def run(self, start: Position) -> Replayed:
        """Replay the log and return where history ends."""
        self._start = start
        spans, void = chain(self._layout, self._files)
        spans = [span for span in spans if span.number >= start.segment]
        end = start
        for at, span in enumerate(spans):
            first = start.offset if span.number == start.segment else SEGMENT_HEADER_BYTES
            walk = self._walk(span.number, first, span.end)
            rest = spans[at + 1 :]
            if not self._span(walk, span.number, rest):
                void += [later.number for later in rest]
                if span.end == 0:
                    void.append(span.number)
                else:
                    end = Position(span.number, walk.at)
                break
            end = Position(span.number, max(span.end, SEGMENT_HEADER_BYTES))
        return Replayed(end, void, self._damage)

    def _span(self, walk: Walk, number: int, rest: list[Span]) -> bool:
        """Apply a segment; whether history goes on behind it."""
        while True:
            hollow = self._records(walk, number)
            if hollow is None and walk.at == walk.end:
                return True
            if not self._synced_beyond(Position(number, walk.at), walk.end, rest):
                return False
            if hollow is not None:
                # Its value is damaged, not torn: reading it will say so.
                self._apply(hollow)
                walk.at += hollow.extent
                continue
            self._bridge(walk, number)

    def _records(self, walk: Walk, number: int) -> Row | None:
        for offset, head in walk:
            row = row_of(number, offset, head)
            if not self._intact(row) and not self._superseded(row):
                walk.at = offset
                return row
            self._apply(row)
        return None

    def _superseded(self, row: Row) -> bool:
        """Return whether a later record replaces `row`, whose value was unlinked for that."""
        if self._latest is None:
            self._latest = {}
            spans, _ = chain(self._layout, self._files)
            for span in spans:
                if span.number >= self._start.segment:
                    for offset, head in self._walk(span.number, 0, span.end):
                        self._latest[head.record.key] = Position(span.number, offset)
        return self._latest.get(row.record.key, START) > Position(row.segment, row.offset)

    def _bridge(self, walk: Walk, number: int) -> None:
        where = f"{self._layout.segment(number)} is damaged at byte {walk.at}"
        self._damage.append(where)
        if not self._repair:
            raise CorruptDataError(
                f"{where}, and the index that would bridge it is missing or damaged too; "
                "run `memories check --repair` on the store to keep what is readable"
            )
        if not walk.search():
            walk.at = walk.end

    def _synced_beyond(self, torn: Position, end: int, rest: list[Span]) -> bool:
        """Return whether a sound record behind the torn one says that the torn one was synced."""
        for number, first, last in [(torn.segment, torn.offset, end)] + [
            (span.number, SEGMENT_HEADER_BYTES - ALIGN, span.end) for span in rest
        ]:
            walk = self._walk(number, 0, last)
            walk.at = first
            while walk.search():
                head = walk.head(walk.at)
                if head is not None and head.synced > torn:
                    return True
        return False

    def _walk(self, number: int, start: int, end: int) -> Walk:
        handle = Handle(self._files, self._files.open(self._layout.segment(number)))
        return Walk(self._files, handle, start, end)
