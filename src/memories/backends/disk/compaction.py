"""Compaction: chooses the file with the most dead bytes, copies what lives there, unlinks it.

A file is unlinked only after a sync of the copies, and never changed. The same background thread
also decides when a checkpoint is due, and when runs of the index are merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import NamedTuple

from memories.backends.disk.log_format import PACKED, TOMBSTONE, IndexRow, RecordHead, unpack_place
from memories.backends.disk.reader import GoneError
from memories.backends.disk.replay import SegmentWalk, look_at
from memories.backends.disk.run_merge import MERGE_ALL_ROWS, Pace, merge, merge_pays, merge_runs
from memories.backends.disk.run_table import read_mended
from memories.backends.disk.size_limits import BLOCK_BYTES, SLACK_SHARE, blocks
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.backends.disk.tombstones import kept_in, needed
from memories.backends.disk.writer import Writer
from memories.foundation.call_owner import CallOwner
from memories.foundation.logging import logger
from memories.foundation.units import MAX_BYTES

RECENT_ROWS = 32_768  # A checkpoint is due when so many rows are in RAM only.
BULK_ROWS = 250_000  # Likewise while many come at once; half a kilobyte each.
SEALS = 3  # How often one call begins a new segment, so that the one before can be emptied.
MAX_SMALL_FILES = 16  # Where there are more, the smallest is emptied too.
# A file is worth a copy if one in so many of its bytes is dead; while room is scarce; and where a
# store would be refused otherwise.
TOMBSTONE_PART = 8  # Where they are more than one in so many bytes, the oldest segment goes first.
WORTH, SCARCE_WORTH, ANY_WORTH = 10, 20, 1000
SYNCED_BYTES = 8 << 20  # Segments of so many bytes are emptied with one sync.
SHRINK_BYTES = 64 << 10  # What is removed is given back at once from so many bytes on.
_BATCH_BYTES = 256 << 10


def run_upkeep(writer: Writer, pace: Pace, *, quiet: bool = False) -> None:
    """Do the upkeep that is due; when the store is `quiet`, also what can wait.

    While an import writes many records only their number matters: they are written out without a
    pause, and merges and copies wait for its end.
    """
    writer.writer_lock.require()
    writer.on_full_disk(lambda: _run_upkeep(writer, pace, quiet=quiet))


def _run_upkeep(writer: Writer, pace: Pace, *, quiet: bool) -> None:
    if writer.importing:
        if len(writer.index.recent) >= BULK_ROWS:
            writer.checkpoint()
        return
    recent = len(writer.index.recent)
    if recent >= RECENT_ROWS or (quiet and recent) or _behind(writer) > writer.space.limits.recent:
        with writer.index_files.merge_lock:
            writer.checkpoint(pace, whole=_may_write_whole(writer))
    merge_runs(writer, pace, quiet=quiet)
    compact(writer, pace)
    if quiet and writer.accounting.keys:
        writer.space.hold_reserve(writer.writer_lock.directory.free_bytes())


def _behind(writer: Writer) -> int:
    return max(_behind_in_log(writer), 4 * writer.space.recent_heads)


def _behind_in_log(writer: Writer) -> int:
    """Return about how many bytes of the log lie behind the latest checkpoint."""
    end, covered = writer.log.end, writer.index_files.covered
    segments = end.segment - covered.segment
    return segments * writer.space.limits.segment + end.offset - covered.offset


def compact(writer: Writer, pace: Pace) -> None:
    """Empty the files with the most dead bytes until the dead bytes are within bounds."""
    while True:
        with writer.upkeep_lock:
            bound = _bound(writer)
            scarce = not writer.space.fits(2 * writer.space.limits.segment)
            if scarce and not writer.obsolete.pins:
                bound = 0
            if not _empty_one(writer, pace, bound=bound, worth=SCARCE_WORTH if scarce else WORTH):
                return


def is_due(writer: Writer) -> bool:
    """Return whether there is a file to empty in a store that was just opened."""
    return _victim(writer, bound=_bound(writer)) is not None


def _bound(writer: Writer) -> int:
    """Return how many dead bytes are not worth a copy while there is room."""
    return writer.space.limits.slack + int(SLACK_SHARE * writer.accounting.live)


def make_room(writer: Writer, size: int) -> bool:
    """Give dead bytes back until `size` more may be written; return whether they may be."""
    with room_for(writer, size, CallOwner()) as made:
        return made


@contextmanager
def room_for(writer: Writer, size: int, owner: CallOwner) -> Iterator[bool]:
    """Give dead bytes back until `size` more fit, and claim these for the length of the block.

    `owner` is the call that opens the block. Yields whether the bytes fit. If so, they are granted
    to what is written in the block without another question; otherwise a writer could wait for
    upkeep that believes its work to be done. Dead bytes under an open view or a mapping stay.
    """
    with ExitStack() as claim, writer.hurried(owner):
        if writer.accounting.retired and not writer.obsolete.pins:
            writer.sync()
        with writer.upkeep_lock:  # One at a time: two claims that fit one by one may not together.
            claim.enter_context(writer.claimed(size, owner))
            made = _make_room(writer, size)
        if (
            not made and not writer.obsolete.pins
        ):  # Another thread may be merging runs, which takes room and time.
            with writer.index_files.merge_lock, writer.upkeep_lock:
                made = _make_room(writer, size)
        if not made:
            claim.close()
        yield made


def _make_room(writer: Writer, size: int) -> bool:
    """Do what upkeep can for `size` bytes that are claimed; return whether they fit."""
    if not writer.obsolete.pins:
        writer.on_full_disk(lambda: _give_back(writer, size))
    return writer.space.fits(0)


def shrink(writer: Writer, before: int) -> None:
    """Give back what was removed since `before` bytes were dead, where that is cheap.

    Files of which more than half lives are left to upkeep, which has more time. An empty store
    takes hardly more room than a new one.
    """
    if writer.obsolete.pins or writer.accounting.dead - before < SHRINK_BYTES:
        return
    with writer.index_files.merge_lock, writer.upkeep_lock:
        writer.checkpoint(seal=True, whole=_may_write_whole(writer))
        while _empty_one(writer, _at_once, mostly_dead=True):
            pass
        runs, rows = writer.index.runs, sum(run.count for run in writer.index.runs)
        if MERGE_ALL_ROWS >= rows > 2 * writer.accounting.keys:  # Most are tombstones of nothing.
            merge(writer, runs, _at_once, last=True)
        if not writer.accounting.keys:
            writer.space.reserve.delete()


def _at_once() -> None:
    """Do not pause: a caller waits."""


def make_head_room(writer: Writer) -> None:
    """Give back what is worth a copy, for a head that is written in any case.

    Heads are many and small: the work for each must not take more room than it gives back, above
    all on a disk that other programs have filled.
    """
    if writer.obsolete.pins:
        return
    if writer.accounting.retired:
        writer.sync()
    with writer.upkeep_lock:
        writer.on_full_disk(lambda: _give_back_some(writer))


def _give_back_some(writer: Writer) -> None:
    writer.space.lend_reserve()
    sealed = (
        writer.accounting.dead < writer.space.limits.segment
    )  # Too little is dead to begin a new one.
    while not writer.space.fits(0):
        if _empty_one(writer, _at_once):
            continue
        if sealed:
            return
        sealed = True
        _checkpoint(writer, seal=True)


def _give_back(writer: Writer, size: int) -> None:
    space, sealed, awaited = writer.space, 0, size
    space.lend_reserve()
    while not (space.fits(0) and space.dead_within_bound(size)):
        scarce = not space.fits(0)
        # 1. Copies make heads, and heads become rows: these come first, or copies would fill it.
        if scarce and _checkpoint_pays(writer, last=sealed > 0):
            _checkpoint(writer, awaited=awaited)
            continue
        # A merge may use the room that the caller awaits, once: copies of segments that give hardly
        # anything back would otherwise make rows to merge without an end.
        if scarce and _merge_all(writer, awaited):
            awaited = 0
            continue
        # 2. Segments and packs, those of which most is dead before the one that grows now.
        if _empty_one(writer, _at_once, worth=SCARCE_WORTH if scarce else WORTH):
            continue
        if sealed and not scarce:
            return
        # 3. What is hardly worth it, before a store is refused.
        if sealed and _empty_one(writer, _at_once, worth=ANY_WORTH):
            continue
        # 4. What a checkpoint makes possible; a new segment and a run take a block themselves.
        gain = _dead_behind(writer) + 2 * space.heads_charged()
        if sealed == SEALS or (sealed and gain <= 2 * BLOCK_BYTES):
            return
        sealed += 1
        _checkpoint(writer, seal=True, awaited=awaited)


def _dead_behind(writer: Writer) -> int:
    """Return the dead bytes in segments that can be emptied only after another checkpoint."""
    segments, covered = writer.accounting.segments, writer.index_files.covered.segment
    numbers = sorted(segments)
    kept = {n: kept_in(segments[n], numbers, n) for n in numbers if n >= covered}
    return sum(segments[n].size - count for n, count in kept.items())


def _checkpoint_pays(writer: Writer, *, last: bool) -> bool:
    """Return whether a checkpoint gives much back, or lets much be given back.

    An index that is written whole takes no room for the rows between; but what was written since
    cannot be emptied. That is no reason in the `last` attempts, which copy what gives hardly
    anything back: each checkpoint would let them begin again.
    """
    space, log_bytes = writer.space, writer.accounting.log_bytes
    if last or not space.writes_index_whole():
        return space.recent_heads >= space.limits.recent // 4
    much = max(space.index_bytes, space.limits.segment // 4)
    behind = _behind_in_log(writer)
    return space.recent_heads > much or behind > max(log_bytes // 4, space.limits.segment)


def _checkpoint(writer: Writer, *, seal: bool = False, awaited: int = 0) -> None:
    """Write a checkpoint while the lock of upkeep is held, of the whole index if that is small."""
    lock = writer.index_files.merge_lock  # Taken before that of upkeep, except without waiting.
    whole = _may_write_whole(writer, awaited) and lock.acquire(blocking=False)
    try:
        writer.checkpoint(seal=seal, whole=whole)
    finally:
        if whole:
            lock.release()


def _may_write_whole(writer: Writer, awaited: int = 0) -> bool:
    """Return whether a checkpoint should write the whole index, and has the room that it takes."""
    space = writer.space
    return space.writes_index_whole() and space.index_live() <= space.copy_room(awaited)


def _merge_all(writer: Writer, awaited: int) -> bool:
    """Merge all runs of the index if that gives much back, and return whether it did.

    The caller has claimed `awaited` bytes, and waits for the room that this makes.
    """
    lock = writer.index_files.merge_lock  # Taken before that of upkeep, except without waiting.
    if not merge_pays(writer, awaited) or not lock.acquire(blocking=False):
        return False
    try:
        merge(writer, writer.index.runs, _at_once, last=True)
    finally:
        lock.release()
    return True


def _empty_one(
    writer: Writer, pace: Pace, *, bound: int = 0, worth: int = WORTH, mostly_dead: bool = False
) -> bool:
    """Empty the file that is most worth it, if more than `bound` is dead; whether there was one.

    With a `bound` of 0 it may be several small segments, whose copies share one sync: that takes as
    long as copying some megabytes.
    """
    emptied, room = set[int](), SYNCED_BYTES
    room = min(room, writer.space.copy_room() - writer.space.limits.segment)
    while True:
        victim = _victim(writer, emptied, bound=bound, worth=worth, mostly_dead=mostly_dead)
        if victim is None:
            break
        kind, number = victim
        if kind == "pack":
            if emptied:
                break
            if not _empty_pack(writer, number, pace):
                writer.unreadable["pack"].add(number)
            return True
        room -= writer.accounting.segments[number].live
        if emptied and room < 0:
            break
        if _copy_segment(writer, number, pace):
            emptied.add(number)
        else:
            writer.unreadable["segment"].add(number)
        if bound or room < 0:
            break
    if emptied:
        _drop_segments(writer, emptied)
    return bool(emptied)


def _victim(
    writer: Writer,
    emptied: Set[int] = frozenset(),
    *,
    bound: int,
    worth: int = WORTH,
    mostly_dead: bool = False,
) -> tuple[str, int] | None:
    """Return the file to empty next, besides segments that are `emptied`; see `choose`."""
    accounting = writer.accounting
    with writer.lock:
        skip = writer.unreadable["segment"] | emptied
        coming = writer.unnamed.keys() | {
            n
            for n in writer.unreadable["pack"]
            if n in accounting.packs and accounting.packs[n].live
        }
        if mostly_dead:
            skip = skip | {
                n for n, stats in accounting.segments.items() if 2 * stats.live > stats.size
            }
            coming = coming | {
                n for n, stats in accounting.packs.items() if 2 * stats.live > stats.size
            }
        return choose(
            accounting, writer.index_files.covered.segment, skip, bound=bound,
            small=writer.space.limits.segment // 2, room=writer.space.copy_room(), worth=worth,
            coming=coming,
        )  # fmt: skip


def choose(
    accounting: SpaceAccounting,
    below: int,
    skip: set[int],
    *,
    bound: int,
    small: int,
    room: int = MAX_BYTES,
    worth: int = WORTH,
    coming: Set[int] = frozenset(),
) -> tuple[str, int] | None:
    """Return the file to empty next, or None. Pure.

    In this order:

    1. a file in which nothing counts;
    2. while more than `bound` bytes are dead, the file with the most of them, unless fewer than one
       in `worth` of its bytes are dead;
    3. the smallest of the `small` files, where there are too many of those.

    Where tombstones take more than an eighth of the log, 2 takes the oldest segment instead:
    tombstones that are copied stay needed, and go only from there. What lives in a file must fit
    into `room` once more.
    """
    dead_bytes, found, small_files = 0, list[_Candidate](), list[_Candidate]()
    numbers = sorted(accounting.segments)
    for number, stats in accounting.segments.items():
        kept = kept_in(stats, numbers, number)
        dead_bytes += stats.size - kept
        if number < below and number not in skip and (kept <= room or not kept):
            # A small segment gives its last block back as well.
            size = blocks(stats.size) if stats.size <= small else stats.size
            found.append(_Candidate(not kept, size - kept, kept, "segment", number))
            if stats.size <= small:
                small_files.append(found[-1])
    for number, stats in accounting.packs.items():
        dead = stats.size - stats.live
        dead_bytes += dead
        # A pack that is being imported is not dead: its records are still to come.
        if (stats.live <= room or not stats.live) and number not in coming:
            found.append(_Candidate(not stats.live, dead, stats.live, "pack", number))
            if stats.live < dead and stats.size <= small:
                small_files.append(found[-1])
    if not found:
        return None
    best = max(found)
    if TOMBSTONE_PART * accounting.tombstones > accounting.log_bytes and not best.empty:
        worthy = (one for one in found if one.kind == "segment" and one.worth(worth))
        best = min(worthy, key=attrgetter("number"), default=best)
    if not best.empty and not (dead_bytes > bound and best.worth(worth)):
        if len(small_files) <= MAX_SMALL_FILES:
            return None
        best = min(small_files, key=attrgetter("kept"))
    return best.kind, best.number


class _Candidate(NamedTuple):
    """A file that may be emptied; the greatest is emptied first."""

    empty: bool  # Nothing in it counts, so nothing has to be copied.
    dead: int
    kept: int  # The bytes to copy.
    kind: str
    number: int

    def worth(self, parts: int) -> bool:
        """Return whether more than one in so many of its bytes is dead."""
        return self.dead * parts > self.dead + self.kept


def _empty_segment(writer: Writer, number: int, pace: Pace) -> bool:
    """Copy what lives in a segment, and unlink it; return False if it cannot be read."""
    whole = _copy_segment(writer, number, pace)
    if whole:
        _drop_segments(writer, {number})
    return whole


def _drop_segments(writer: Writer, numbers: Set[int]) -> None:
    """Unlink segments of which what lives was copied."""
    writer.sync()
    for number in sorted(numbers):
        writer.drop_segment(number)
    writer.unlink_obsolete()


def _copy_segment(writer: Writer, number: int, pace: Pace) -> bool:
    """Write again what lives in a segment; return False if it cannot be read."""
    stats = writer.accounting.segments.get(number)
    if stats is None:
        return True  # It was removed, and what it held was written again.
    torn = _torn_before(writer, number)
    if torn is not None:
        if not _empty_segment(writer, torn, pace):
            return False
        writer.files.sync_directory(writer.paths.log)
    if kept_in(stats, sorted(writer.accounting.segments), number):
        try:
            handle = writer.reader.segment(number)
        except FileNotFoundError:
            return False
        walk = SegmentWalk(writer.files, handle, 0, stats.size)
        batch: list[tuple[int, RecordHead, bytes]] = []
        # One append lies in one segment, which must fit into the working room once more.
        size, most = 0, min(_BATCH_BYTES, writer.space.limits.segment)
        for offset, head in _readable(writer, walk, number):
            pace()
            if _live_row(writer, head, number, offset) is not None:
                batch.append((offset, head, walk.bytes(offset, head.extent)))
                size += head.extent
            if size >= most:
                _copy(writer, number, batch)
                batch, size = [], 0
        _copy(writer, number, batch)
        if walk.at < stats.size:
            return False
    return True


def _readable(writer: Writer, walk: SegmentWalk, number: int) -> Iterator[tuple[int, RecordHead]]:
    """Yield what can be read of a segment: a disk that cannot read one may still write others."""
    try:
        yield from walk
    except OSError as error:
        path = writer.paths.segment(number)
        logger.warning("%s cannot be read, and keeps its room: %s", path, error)


def _torn_before(writer: Writer, number: int) -> int | None:
    """Return the segment, if any, whose valid length only the header of `number` records.

    Without that header its torn tail would look like damage.
    """
    try:
        _, before = look_at(writer.paths.segment(number), number, writer.files)
        if before is None or before.segment not in writer.accounting.segments:
            return None
        size = writer.paths.segment(before.segment).stat().st_size
    except FileNotFoundError:
        return None
    return before.segment if size > before.offset else None


def _live_row(writer: Writer, head: RecordHead, number: int, offset: int) -> IndexRow | None:
    """Return the index's row for a record of the log, or None if the record is not needed."""
    row = writer.row(head.record.key)
    if row is None or (row.segment, row.offset) != (number, offset):
        return None
    if row.kind != TOMBSTONE:
        return row
    numbers = sorted(writer.accounting.segments)
    return row if needed(numbers, number, row.oldest, row.beyond) else None


def _copy(writer: Writer, number: int, batch: list[tuple[int, RecordHead, bytes]]) -> None:
    with writer.lock:
        found = [(_live_row(writer, head, number, at), data) for at, head, data in batch]
        live = [(row, data) for row, data in found if row is not None]
        if live:
            writer.copy_records(live)


def _empty_pack(writer: Writer, number: int, pace: Pace) -> bool:
    """Write again what lives in a pack, and unlink it; return False if part is unreadable."""
    whole = True
    if writer.accounting.packs[number].live:
        for row in read_mended(lambda: _rows_in_pack(writer, number, pace), writer.rebuild):
            try:
                writer.rewrite(row)
            except GoneError as error:
                whole = False
                logger.warning("%r keeps a pack from being given back: %s", row.record.key, error)
        writer.sync()
    if whole:
        writer.drop_pack(number)
        writer.unlink_obsolete()
    return whole


def _rows_in_pack(writer: Writer, number: int, pace: Pace) -> list[IndexRow]:
    found = list[IndexRow]()
    for row in writer.index.rows():
        pace()
        if row.kind == PACKED and unpack_place(row.record.place).file == number:
            found.append(row)
    return found
