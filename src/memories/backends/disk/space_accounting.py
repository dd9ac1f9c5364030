"""Counts what the store holds, in bytes: live and dead, per segment and pack, and in total.

Pure counting, without I/O. What files take is counted in whole blocks of the disk. A checkpoint
saves the figures; a replay of the log arrives at the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from math import sqrt
from typing import Any, NamedTuple, TypeVar

from msgspec.structs import replace

from memories.backends.disk.log_format import (
    FILE,
    INLINE,
    PACKED,
    TOMBSTONE,
    IndexRow,
    unpack_place,
)
from memories.backends.disk.manifest import FileStats, IndexManifest
from memories.backends.disk.many_records import stored_by_file
from memories.backends.disk.size_limits import (
    DEAD_OF_SMALL,
    LEAST_DEAD,
    MOST_DEAD,
    PACKED_SHARE,
    blocks,
)

T = TypeVar("T")
_new = tuple.__new__  # What a named tuple does, without its argument parsing.
_HERE = frozenset((INLINE, FILE, PACKED))


class AccountImage(NamedTuple):
    """The figures before a commit: all totals, and those of the files that it may change."""

    totals: dict[str, Any]
    highest: int  # No segment above it was there.
    segments: dict[int, FileStats | None]
    packs: dict[int, FileStats | None]
    retired: dict[int, int | None]


class SpaceAccounting:
    """The figures of one store; one thread at a time changes them."""

    def __init__(self) -> None:
        self.segments: dict[int, FileStats] = {}
        self.packs: dict[int, FileStats] = {}
        self.log_bytes = 0  # In blocks of the disk.
        self.log_slack = 0  # What is empty of each segment's last one.
        self.pack_bytes = 0
        self.log_live = 0  # Bytes of the log's records that count, tombstones left out.
        self.tombstones = 0  # Bytes of tombstones in the log.
        self.value_live = 0
        self.pack_live = 0
        self.live = 0
        self.keys = 0
        self.elsewhere = 0  # Keys among them whose frame another backend keeps.
        self.value_bytes = 0  # Bytes in value files, dead ones too until they are unlinked.
        self.retired: dict[int, int] = {}  # Dead value files: number and bytes.
        self.last_version = 0
        self.next_file = 1

    @classmethod
    def load(cls, manifest: IndexManifest) -> SpaceAccounting:
        """Return the figures of a checkpoint."""
        accounting = cls()
        # Copies: when runs are merged, the manifest is saved again, as of its own position.
        accounting.segments = {
            number: replace(stats) for number, stats in manifest.segments.items()
        }
        accounting.packs = {number: replace(stats) for number, stats in manifest.packs.items()}
        accounting.log_bytes = sum(blocks(stats.size) for stats in accounting.segments.values())
        accounting.log_slack = sum(_slack(stats.size) for stats in accounting.segments.values())
        accounting.pack_bytes = sum(blocks(stats.size) for stats in accounting.packs.values())
        accounting.log_live = sum(stats.live for stats in accounting.segments.values())
        accounting.tombstones = sum(stats.tombstones for stats in accounting.segments.values())
        accounting.pack_live = sum(stats.live for stats in accounting.packs.values())
        accounting.live, accounting.keys = manifest.live, manifest.keys
        accounting.elsewhere = manifest.elsewhere
        accounting.value_bytes = manifest.value_bytes
        accounting.last_version, accounting.next_file = manifest.last_version, manifest.next_file
        accounting.retired = dict(manifest.retired)
        accounting.value_live = accounting.value_bytes - sum(accounting.retired.values())
        return accounting

    def image(
        self, active: int, highest: int, olds: Iterable[IndexRow | None], packs: Iterable[int] = ()
    ) -> AccountImage:
        """Return what `restore` needs to undo a commit that replaces `olds`.

        The commit appends to the segment `active` or to ones above `highest`, and names frames in
        `packs`.
        """
        totals = self.__dict__.copy()
        segments = {active: _copied(self.segments.get(active))}
        packed: dict[int, FileStats | None] = {}
        for number in packs:
            packed[number] = _copied(self.packs.get(number))
        retired: dict[int, int | None] = {}
        for old in olds:
            if old is None:
                continue
            if old.segment not in segments:
                segments[old.segment] = _copied(self.segments.get(old.segment))
            if old.kind in (FILE, PACKED):
                number = unpack_place(old.record.place).file
                if old.kind == FILE:
                    retired[number] = self.retired.get(number)
                elif number not in packed:
                    packed[number] = _copied(self.packs.get(number))
        return _new(AccountImage, (totals, highest, segments, packed, retired))

    def restore(self, image: AccountImage) -> None:
        """Restore the figures of `image`; may be called any number of times."""
        next_file = self.next_file
        self.__dict__.update(
            image.totals
        )  # The dicts of that time among them; next their contents.
        self.next_file = max(next_file, self.next_file)  # No number is given out twice.
        for number in [number for number in self.segments if number > image.highest]:
            del self.segments[number]
        _put_back(self.segments, {n: _copied(stats) for n, stats in image.segments.items()})
        _put_back(self.packs, {n: _copied(stats) for n, stats in image.packs.items()})
        _put_back(self.retired, image.retired)

    def update_from(self, other: SpaceAccounting) -> None:
        """Become what `other`, which was counted from the log, is; no number is given out twice.

        A pack that the log does not name stays counted until its file is unlinked: its records are
        still to come, or the segments that named it were emptied.
        """
        for pack in self.packs.keys() - other.packs.keys():
            other.add_pack(pack, self.packs[pack].size)
        last_version = max(self.last_version, other.last_version)
        next_file = max(self.next_file, other.next_file)
        self.__dict__.update(
            other.__dict__ | {"last_version": last_version, "next_file": next_file}
        )

    def leave_out(self, segments: Set[int], packs: Set[int], values: Set[int]) -> None:
        """Stop counting files that are about to be unlinked, though the log still names them."""
        for number in segments & self.segments.keys():
            self.remove_segment(number)
        for number in packs & self.packs.keys():
            self.remove_pack(number)
        self.remove_retired(values & self.retired.keys())

    def file_number(self) -> int:
        """Return a number that no value file, pack or run has ever had."""
        number = self.next_file
        self.next_file += 1
        return number

    def extend_segment(self, segment: int, end: int) -> None:
        """Record that a segment is `end` bytes long now."""
        stats = self.segments.get(segment)
        if stats is None:
            stats = self.segments[segment] = FileStats(0)
        self.log_bytes += blocks(end) - blocks(stats.size)
        self.log_slack += _slack(end) - _slack(stats.size)
        stats.size = end

    def recount(self, row: IndexRow) -> None:
        """Count a record in a segment that was not there when the others were counted."""
        stats = self.segments[row.segment]
        if row.kind == TOMBSTONE:
            stats.lowest = min(stats.lowest, row.oldest) if stats.tombstones else row.oldest
            stats.tombstones += row.extent
            self.tombstones += row.extent
        else:
            stats.live += row.extent
            self.log_live += row.extent

    def add_pack(self, pack: int, size: int) -> None:
        """Count a pack of `size` bytes."""
        if pack not in self.packs:
            self._set(
                packs={**self.packs, pack: FileStats(size)},
                pack_bytes=self.pack_bytes + blocks(size),
                next_file=max(self.next_file, pack + 1),
            )

    def forget_tombstones(self, forgotten: Mapping[int, int]) -> None:
        """Count tombstones as dead that the index does not hold any more; bytes by segment."""
        segments, total = dict(self.segments), self.tombstones
        for number, nbytes in forgotten.items():
            stats = segments.get(number)
            if stats is not None:
                nbytes = min(nbytes, stats.tombstones)
                segments[number] = replace(stats, tombstones=stats.tombstones - nbytes)
                total -= nbytes
        self._set(segments=segments, tombstones=total)

    def revive(self, row: IndexRow) -> None:
        """Count a value file as live again: its replacement has failed."""
        if row.kind == FILE:
            self.remove_retired({unpack_place(row.record.place).file} & self.retired.keys())

    def remove_retired(self, dead: Iterable[int]) -> None:
        """Stop counting dead value files."""
        left = dict(self.retired)
        freed = sum(left.pop(number) for number in dead)
        self._set(retired=left, value_bytes=self.value_bytes - freed)

    def remove_segment(self, segment: int) -> None:
        """Stop counting a segment."""
        left = dict(self.segments)
        stats = left.pop(segment)
        self._set(
            segments=left,
            log_bytes=self.log_bytes - blocks(stats.size),
            log_slack=self.log_slack - _slack(stats.size),
            log_live=self.log_live - stats.live,
            tombstones=self.tombstones - stats.tombstones,
        )

    def remove_pack(self, pack: int) -> None:
        """Stop counting a pack."""
        left = dict(self.packs)
        stats = left.pop(pack)
        self._set(
            packs=left,
            pack_bytes=self.pack_bytes - blocks(stats.size),
            pack_live=self.pack_live - stats.live,
        )

    def _set(self, **figures: Any) -> None:
        """Set several figures in one step, which an interrupt cannot divide."""
        self.__dict__.update(figures)

    @property
    def dead(self) -> int:
        """Return the bytes that upkeep can give back, needed tombstones among them."""
        files = self.pack_bytes - self.pack_live + self.value_bytes - self.value_live
        return self.log_bytes - self.log_live + files

    @property
    def charge(self) -> int:
        """Return what the live values are charged, dead bytes that may lie among them included."""
        packs = min(self.pack_bytes, int(PACKED_SHARE * self.pack_live))
        log = self.log_live + self.tombstones
        least, most = log // LEAST_DEAD, log // MOST_DEAD
        dead = int(DEAD_OF_SMALL * sqrt(self.keys * log))
        if dead < least:
            dead = least
        elif dead > most:
            dead = most
        # Compaction leaves as much of the last blocks empty as it finds.
        return self.value_live + packs + log + dead + self.log_slack

    def replace(self, old: IndexRow | None, new: IndexRow) -> None:
        """Add `new` to the figures and subtract `old`."""
        if new.kind == INLINE:
            self.segments[new.segment].live += new.extent
            self.log_live += new.extent
            self.keys += 1
            self.live += new.record.stored
        else:
            self._enter(new)
        if old is not None:
            self._leave(old, new)
        if new.record.version > self.last_version:
            self.last_version = new.record.version

    def replace_all(self, entered: Sequence[tuple[IndexRow | None, IndexRow]]) -> None:
        """Do what `replace` does, for rows of one kind, in one segment, without value files."""
        self._enter_all([new for _, new in entered])
        for old, new in entered:
            if old is not None:
                self._leave(old, new)

    def _enter_all(self, rows: Sequence[IndexRow]) -> None:
        kind, segment = rows[0].kind, self.segments[rows[0].segment]
        extents = sum([row.extent for row in rows])
        self.last_version = max(self.last_version, *[row.record.version for row in rows])
        if kind == TOMBSTONE:
            lowest = min([row.oldest for row in rows])
            segment.lowest = min(segment.lowest, lowest) if segment.tombstones else lowest
            segment.tombstones += extents
            self.tombstones += extents
            return
        segment.live += extents
        self.log_live += extents
        self.keys += len(rows)
        stored = sum([row.record.stored for row in rows])
        self.live += stored
        if kind == PACKED:
            for file, nbytes in stored_by_file([row.record for row in rows]).items():
                self.packs[file].live += nbytes
            self.pack_live += stored

    def _enter(self, row: IndexRow) -> None:
        stats = self.segments[row.segment]
        if row.kind == TOMBSTONE:
            stats.lowest = min(stats.lowest, row.oldest) if stats.tombstones else row.oldest
            stats.tombstones += row.extent
            self.tombstones += row.extent
            return
        stats.live += row.extent
        self.log_live += row.extent
        self.keys += 1
        if row.kind not in _HERE:
            self.elsewhere += 1
            return
        self.live += row.record.stored
        if row.kind == FILE:
            self.value_bytes += blocks(row.record.stored)
            self.value_live += blocks(row.record.stored)
            self.next_file = max(self.next_file, unpack_place(row.record.place).file + 1)
        elif row.kind == PACKED:
            self.packs[unpack_place(row.record.place).file].live += row.record.stored
            self.pack_live += row.record.stored

    def _leave(self, old: IndexRow, new: IndexRow) -> None:
        stats = self.segments.get(old.segment)
        if old.kind == TOMBSTONE:
            if stats is not None:
                stats.tombstones -= old.extent
                self.tombstones -= old.extent
            return
        if stats is not None:
            stats.live -= old.extent
            self.log_live -= old.extent
        self.keys -= 1
        if old.kind not in _HERE:
            self.elsewhere -= 1
            return
        self.live -= old.record.stored
        if old.kind == FILE:
            taken = blocks(old.record.stored)
            self.value_live -= taken
            if old.record.place == new.record.place:
                self.value_bytes -= taken
            else:
                self.retired[unpack_place(old.record.place).file] = taken
        elif old.kind == PACKED:
            pack = self.packs.get(unpack_place(old.record.place).file)
            if pack is not None:
                pack.live -= old.record.stored
                self.pack_live -= old.record.stored


def _copied(stats: FileStats | None) -> FileStats | None:
    if stats is None:
        return None
    return FileStats(stats.size, stats.live, stats.tombstones, stats.lowest)


def _put_back(figures: dict[int, T], before: dict[int, T | None]) -> None:
    for number, figure in before.items():
        if figure is None:
            figures.pop(number, None)
        else:
            figures[number] = figure


def _slack(size: int) -> int:
    """Return what is empty of the last block of a file of that size."""
    return blocks(size) - size
