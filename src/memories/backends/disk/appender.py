"""Appends records to the log, and enters them in the index and the accounting, as one step.

A commit that is interrupted at any line is finished from what the log certainly holds, by the code
that replays it after a kill. What makes a commit durable is the writer's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from msgspec.structs import replace
from xxhash import xxh3_64

from memories.backends.disk import log_format
from memories.backends.disk.index import Index
from memories.backends.disk.log import Log
from memories.backends.disk.log_format import (
    FILE,
    INLINE,
    MARK,
    MARK_RECORD,
    NOWHERE,
    PACKED,
    TOMBSTONE,
    IndexRow,
    Position,
    unpack_place,
)
from memories.backends.disk.many_records import HeadRecords, InlineRecords, stored_by_file
from memories.backends.disk.obsolete_files import ObsoleteFiles
from memories.backends.disk.overlay_index import OverlayIndex
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.replay import apply, row_of
from memories.backends.disk.seal import StoreSeal
from memories.backends.disk.space import Space
from memories.backends.disk.space_accounting import AccountImage, SpaceAccounting
from memories.backends.disk.tombstones import earlier_of
from memories.backends.disk.unsynced import Unsynced
from memories.foundation.periodic import AutoResetEvent
from memories.model.record import Record

GATHERED_BYTES = 1 << 16  # A larger frame is not copied before it is written.
T = TypeVar("T")
Frame = Sequence[memoryview]
Entered = tuple[IndexRow | None, IndexRow]  # The row that was replaced, and the new one.
Found = tuple[Record, IndexRow | None]  # A record to be appended, and the row that it replaces.
_new = tuple.__new__  # What a named tuple does, without its argument parsing.


class CommitStart(NamedTuple):
    """What a commit started from, while it is under way."""

    end: Position  # The end of the log.
    highest: int  # The highest number of a segment of the log.
    account: AccountImage  # The figures of the accounting.
    recent: list[tuple[str, IndexRow | None]]  # Keys it may enter, and their rows in the table.
    heads: int  # The `recent_heads` of the space.
    extra: int  # The `extra` of the overlay, or 0.


class Appender:
    """Commits to one store. The caller of every method holds the writer's lock."""

    def __init__(
        self,
        paths: StorePaths,
        log: Log,
        index: Index,
        accounting: SpaceAccounting,
        *,
        space: Space,
        unsynced: Unsynced,
        obsolete: ObsoleteFiles,
        full: bool,
        seal: StoreSeal | None = None,
    ) -> None:
        self._paths, self._log, self._index, self._seal = paths, log, index, seal
        self._accounting, self._space = accounting, space
        self._unsynced, self._obsolete, self._full = unsynced, obsolete, full
        self.overlay: OverlayIndex | None = None  # What is seen besides the log, if anything is.
        self.changed = AutoResetEvent()
        self.started: CommitStart | None = None  # Set while a commit is under way.
        # Keys that are about to be renamed: by the new name the old one, and its last version.
        self.renames: dict[str, tuple[str, int]] = {}

    # -- commits ---------------------------------------------------------------------------------

    def inline(self, old: IndexRow | None, record: Record, frame: Frame, length: int) -> IndexRow:
        """Append a record with its frame, in the place of `old`."""
        key, log = record.key, self._log
        end, highest = log.end, log.highest
        image = self._accounting.image(end.segment, highest, () if old is None else (old,))
        known = [(key, self._index.recent.get(key))]
        extra = 0 if self.overlay is None else self.overlay.extra
        start = (end, highest, image, known, self._space.recent_heads, extra)
        self.started = _new(CommitStart, start)
        try:
            row = self._append_inline(old, record, frame, length)
            self.started = None
        except BaseException:
            self.finish()
            raise
        return row

    def head(self, old: IndexRow | None, kind: int, record: Record) -> IndexRow:
        """Append a record without a frame, in the place of `old`."""
        return self._commit(
            [(record.key, old)],
            lambda: self._enter(old, self._append_head(kind, record, old)),
        )

    def renamed(
        self,
        came: Found,
        kind: int,
        frame: Frame,
        length: int,
        left: Found,
    ) -> list[Entered]:
        """Append a record and the tombstone of the key that it renames, in one write.

        A mark before them says that they belong together, so that a torn write can be finished.
        """
        rows = [(record.key, old) for record, old in (came, left)]
        return self._commit(rows, lambda: self._append_renamed(came, kind, frame, length, left))

    def inlines(self, found: Sequence[tuple[Record, IndexRow | None, Frame]]) -> list[Entered]:
        """Append records of different keys with their frames, each in the place of its row.

        It is one write. Where the disk takes only the first of them, those are entered and
        returned; it raises if there are none.
        """
        rows = [(record, old) for record, old, _ in found]
        return self._together(rows, lambda: self._append_inlines(found))

    def tombstones(self, found: Sequence[tuple[Record, IndexRow | None]]) -> list[Entered]:
        """Append tombstones of different keys in one write, as `inlines` does."""
        return self._together(found, lambda: self._append_heads(TOMBSTONE, found))

    def packed(self, found: Sequence[tuple[Record, IndexRow | None]]) -> list[Entered]:
        """Append records whose frames lie in packs, each in the place of its row, in one write."""
        return self._commit(
            [(record.key, old) for record, old in found],
            lambda: self._append_heads(PACKED, found),
            stored_by_file([record for record, _ in found]),
        )

    def copy(self, records: Sequence[tuple[IndexRow, bytes]]) -> None:
        """Append records of the log once more, as they are."""
        self._commit([(row.record.key, row) for row, _ in records], lambda: self._copy(records))

    def replace_unsynced(self, rows: Sequence[tuple[IndexRow, bytes]], *, mark: bool) -> None:
        """Continue the log from where it is synced, with `rows`, which lie behind that, once more.

        With `mark` it says that nothing before is owed, where the record that said so may be lost.
        """
        self._commit(
            [(row.record.key, row) for row, _ in rows],
            lambda: self._replace_unsynced(rows, mark=mark),
        )

    def mark(self) -> None:
        """Append a record that says how far the log is synced."""
        self._commit([], lambda: self._append_head(MARK, MARK_RECORD, None))

    def undo(self, old: IndexRow | None, row: IndexRow) -> None:
        """Make `old` the newest row again: the sync of `row`, which replaced it, has failed."""
        back = old if old is not None else replace(row, kind=TOMBSTONE)
        self._enter(row, back)
        self._accounting.revive(back)

    def retire(self, dead: Iterable[int]) -> None:
        """Delete the files of replaced values, except where the replacement has failed."""
        retired = self._accounting.retired
        gone = [number for number in dead if number in retired]
        # Added first: a file that is added twice is unlinked, one that is in neither never is.
        for number in gone:
            self._obsolete.add_value(number, retired[number])
        self._accounting.remove_retired(gone)

    def finish(self) -> None:
        """Finish the commit that was interrupted, if one was."""
        start = self.started
        if start is None:
            return
        for key, row in start.recent:
            if row is None:
                self._index.recent.pop(key, None)
            else:
                self._index.recent[key] = row
        self._accounting.restore(start.account)
        self._space.recent_heads = start.heads
        if self.overlay is not None:
            self.overlay.extra = start.extra
        for number, offset, head in self._log.go_back(start.end, start.highest):
            row, old = row_of(number, offset, head), self._index.row(head.record.key)
            apply(self._index, self._accounting, self._paths, row)
            self._unsynced.add(old, row)
            if row.kind != MARK and self.overlay is not None:
                self.overlay.count_commit(old, row)
            self._space.recent_heads += row.head_bytes
        self.started = None
        self.changed.set()

    def _commit(
        self,
        replaced: Sequence[tuple[str, IndexRow | None]],
        steps: Callable[[], T],
        packs: Iterable[int] = (),
    ) -> T:
        """Return `steps()`, which append to the log and enter that in index and accounting.

        If an interrupt ends them at any line, log, index and accounting agree again before anything
        else reads them. What was wholly appended counts, as after a kill.
        """
        self._begin(replaced, packs)
        try:
            done = steps()
            self.started = None
        except BaseException:
            self.finish()
            raise
        return done

    def _begin(
        self, replaced: Sequence[tuple[str, IndexRow | None]], packs: Iterable[int] = ()
    ) -> None:
        """Remember what a commit starts from that replaces these rows and names these packs."""
        log, recent = self._log, self._index.recent
        end, highest, known, olds = log.end, log.highest, [], []
        for key, old in replaced:
            known.append((key, recent.get(key)))
            if old is not None:
                olds.append(old)
        account = self._accounting.image(end.segment, highest, olds, packs)
        extra = 0 if self.overlay is None else self.overlay.extra
        self.started = _new(
            CommitStart, (end, highest, account, known, self._space.recent_heads, extra)
        )

    def _together(
        self,
        found: Sequence[tuple[Record, IndexRow | None]],
        steps: Callable[[], list[Entered]],
    ) -> list[Entered]:
        """Commit many records; return those that were wholly appended, where that is not all."""
        try:
            return self._commit([(record.key, old) for record, old in found], steps)
        except OSError:
            if self.started is not None:
                raise  # What was appended could not be read either.
            entered = []
            for record, old in found:
                row = self._index.row(record.key)
                if row is None or row.record.version != record.version:
                    break
                entered.append((old, row))
            if not entered:
                raise
            return entered

    # -- the steps of a commit -------------------------------------------------------------------

    def _append_inline(
        self, old: IndexRow | None, record: Record, frame: Frame, length: int
    ) -> IndexRow:
        """Append and enter one small value; the way of most writes, so it makes few calls."""
        log = self._log
        oldest, beyond = NOWHERE, 0
        if old is not None:
            oldest, beyond = earlier_of(old, self._accounting.segments)
        body = log_format.encode_record(record)
        if self._seal is not None:
            body = self._seal.record(INLINE, body)
        if length < GATHERED_BYTES:
            data = frame[0] if len(frame) == 1 else b"".join(frame)
            whole, before = log_format.pack_inline(body, data, length, oldest, log.synced, beyond)
            extent = len(whole)
            segment, offset = log.append((whole,), extent)
        else:
            total = xxh3_64()
            for part in frame:
                total.update(part)
            head = log_format.pack_head(
                INLINE, body, oldest=oldest, synced=log.synced, beyond=beyond,
                frame_length=length, frame_sum=total.intdigest(),
            )  # fmt: skip
            before, rest = len(head), log_format.padding(length)
            extent = before + length + len(rest)
            segment, offset = log.append((head, *frame, rest), extent)
        self._accounting.extend_segment(segment, offset + extent)
        place = log_format.pack_place(INLINE, segment, offset + before, length)
        placed = log_format.placed(record, length, place)
        row = IndexRow(placed, INLINE, segment, offset, extent, oldest, beyond)
        self._index.put(row)
        self._accounting.replace(old, row)
        self._space.recent_heads += extent - length
        if self.overlay is not None:
            self.overlay.count_commit(old, row)
        if old is not None and old.kind == FILE and not self._full:
            self._retire_unsynced(old)
        if not self.changed.is_set():
            self.changed.set()
        return row

    def _append_head(self, kind: int, record: Record, old: IndexRow | None) -> IndexRow:
        body = log_format.pack_body(kind, record, self._seal)
        oldest, beyond = earlier_of(old, self._accounting.segments)
        head = log_format.pack_head(
            kind, body, oldest=oldest, synced=self._log.synced, beyond=beyond
        )
        segment, offset = self._log.append((head,), len(head))
        self._accounting.extend_segment(segment, offset + len(head))
        return IndexRow(record, kind, segment, offset, len(head), oldest, beyond)

    def _append_renamed(
        self, came: Found, kind: int, frame: Frame, length: int, left: Found
    ) -> list[Entered]:
        (record, old), (tomb, gone) = came, left
        synced, seal, body_of = self._log.synced, self._seal, log_format.pack_body
        mark = log_format.pack_renaming(record, tomb, synced, seal)
        segments, before = self._accounting.segments, 0
        (oldest, beyond), earlier = earlier_of(old, segments), earlier_of(gone, segments)
        if kind == INLINE:
            value, before = log_format.pack_inline(
                body_of(kind, record, seal), b"".join(frame), length, oldest, synced, beyond
            )
        else:
            body = body_of(kind, record, seal)
            value = log_format.pack_head(kind, body, oldest=oldest, synced=synced, beyond=beyond)
        removal_body = body_of(TOMBSTONE, tomb, seal)
        end = log_format.pack_head(
            TOMBSTONE, removal_body, oldest=earlier[0], synced=synced, beyond=earlier[1]
        )
        segment, offset = self._append_whole(mark + value + end)
        offset += len(mark)
        if kind == INLINE:
            place = log_format.pack_place(INLINE, segment, offset + before, length)
            record = log_format.placed(record, length, place)
        row = IndexRow(record, kind, segment, offset, len(value), oldest, beyond)
        offset += len(value)
        removal = IndexRow(tomb, TOMBSTONE, segment, offset, len(end), *earlier)
        self._enter(old, row)
        self._enter(gone, removal)
        return [(old, row), (gone, removal)]

    def _append_inlines(
        self, found: Sequence[tuple[Record, IndexRow | None, Frame]]
    ) -> list[Entered]:
        packed = InlineRecords(found, self._accounting.segments, self._log.synced, self._seal)
        segment, offset = self._append_whole(packed.data)
        entered = packed.rows(segment, offset)
        self._enter_all(entered, packed.head_bytes)
        return entered

    def _append_heads(
        self, kind: int, found: Sequence[tuple[Record, IndexRow | None]]
    ) -> list[Entered]:
        packed = HeadRecords(kind, found, self._accounting.segments, self._log.synced, self._seal)
        segment, offset = self._append_whole(packed.data)
        entered = packed.rows(segment, offset)
        self._enter_all(entered, len(packed.data))
        return entered

    def _append_whole(self, data: bytes) -> Position:
        place = self._log.append((data,), len(data))
        self._accounting.extend_segment(place.segment, place.offset + len(data))
        return place

    def _enter_all(self, entered: Sequence[Entered], head_bytes: int) -> None:
        """Enter rows of one kind and segment, none of which has a value file."""
        self._space.recent_heads += head_bytes
        self._accounting.replace_all(entered)
        self._index.put_all([row for _, row in entered])
        for old, row in entered:
            if old is not None and old.kind == FILE and not self._full:
                self._retire_unsynced(old)
            if self.overlay is not None:
                self.overlay.count_commit(old, row)
        if not self.changed.is_set():
            self.changed.set()

    def _copy(self, records: Sequence[tuple[IndexRow, bytes]]) -> None:
        segment, offset = self._log.append(
            [data for _, data in records], sum(len(data) for _, data in records)
        )
        for row, data in records:
            self._accounting.extend_segment(segment, offset + len(data))
            self._enter(row, self._moved(row, segment, offset))
            offset += len(data)

    def _replace_unsynced(self, rows: Sequence[tuple[IndexRow, bytes]], *, mark: bool) -> None:
        records = [data for _, data in rows]
        if mark:
            body = log_format.pack_body(MARK, MARK_RECORD, self._seal)
            begin = self._log.next_segment
            records.append(log_format.pack_head(MARK, body, oldest=NOWHERE, synced=begin))
        positions = self._log.replace_unsynced(records)
        for (row, _), (segment, offset) in zip(rows, positions, strict=False):
            self._accounting.extend_segment(segment, offset + row.extent)
            self._enter(row, self._moved(row, segment, offset))
        self._accounting.extend_segment(self._log.end.segment, self._log.end.offset)

    def _enter(self, old: IndexRow | None, row: IndexRow) -> IndexRow:
        self._index.put(row)
        self._accounting.replace(old, row)
        if self.overlay is not None:
            self.overlay.count_commit(old, row)
        self._space.recent_heads += row.head_bytes
        self._unsynced.add(old, row)
        if old is not None and old.kind == FILE and not self._full:
            self._retire_unsynced(old)
        if not self.changed.is_set():
            self.changed.set()
        return row

    def _moved(self, row: IndexRow, segment: int, offset: int) -> IndexRow:
        """Return `row` after its log record was copied to another place."""
        oldest, beyond = earlier_of(row, self._accounting.segments)
        if row.kind != INLINE:
            return replace(row, segment=segment, offset=offset, oldest=oldest, beyond=beyond)
        place = log_format.unpack_place(row.record.place)
        inside = place.offset - row.offset
        packed = log_format.pack_place(INLINE, segment, offset + inside, place.length)
        record = log_format.placed(row.record, row.record.stored, packed)
        return IndexRow(record, INLINE, segment, offset, row.extent, oldest, beyond)

    def _retire_unsynced(self, old: IndexRow) -> None:
        """Delete the file of a replaced value at once if no sync of it has begun.

        A power cut that loses the successor's record goes back to before this one's, which is no
        further than what the next sync would have saved. So the disk never has to write it.
        """
        number = unpack_place(old.record.place).file
        waits = number in self._unsynced.values and number not in self._unsynced.started
        if waits and number in self._accounting.retired:
            self.retire([number])
            del self._unsynced.values[number]
