"""How many bytes a store takes on the disk, and how many more it may take.

`Space` answers every question about capacity from three sources: the accounting, what the file
system still has free, and the reserve that is kept for removals and upkeep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from memories.backends.disk.files import NO_SPACE, Files
from memories.backends.disk.obsolete_files import ObsoleteFiles
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.run import Run
from memories.backends.disk.size_limits import (
    BLOCK_BYTES,
    CHURN_BYTES,
    SMALL_INDEX_BYTES,
    SizeLimits,
    blocks,
    index_room,
)
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.foundation.call_owner import CallOwner
from memories.foundation.fork_lock import new_lock

ASK_SECONDS = 0.1
LITTLE_FREE_BYTES = 4 << 30
RESERVE_FREE_FACTOR = 8  # The reserve is allocated only if so many times its size is free.
HEADS_BYTES = 2 * BLOCK_BYTES  # For a head, which may begin a segment.
ROWS_OF_HEADS = 1.25  # A row takes at most so many times the bytes of its head.
LOG_SHARE = 8  # The reserve of a small log is an eighth of it.


class NoRoomError(Exception):
    """Dead bytes must be given back before so much is written; it never leaves this package."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class FreeSpace:
    """The free bytes of one file system, as `ask` says; any thread may ask.

    `ask` is called rarely because it costs as much as a small write. What this store has written
    since is subtracted; what other programs wrote is noticed `ASK_SECONDS` later, and a write that
    no longer fits fails as on any full disk. Where little is free, `ask` is called every time.
    """

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._known = (float("-inf"), 0, 0)  # When it was asked, what was free and what was held.

    def __call__(self, held: int) -> int:
        """Return the free bytes, given that this store holds `held` bytes now."""
        asked, free, then = self._known
        now = time.monotonic()
        if now - asked >= ASK_SECONDS or free - (held - then) < LITTLE_FREE_BYTES:
            then, free = held, self._ask()
            self._known = (now, free, then)
        return max(0, free - max(0, held - then))


class Reserve:
    """The file `RESERVE`: room on the disk that other programs cannot take.

    Removals and upkeep need room even when other programs have filled the disk: without it nothing
    could be removed, and nothing given back. The file is deleted at the first "no space left". Any
    thread may do so, while another one allocates it.
    """

    def __init__(self, paths: StorePaths, files: Files, least: int, most: int) -> None:
        self._least, self._most = least, most
        self._path, self._files = paths.reserve, files
        self._lock = new_lock()
        self.bytes = paths.reserve.stat().st_size if paths.reserve.exists() else 0

    def allocate(self, log_bytes: int, free: int, room: int) -> None:
        """Allocate what suits a log of that length, unless it is held or there is little room.

        `free` bytes are free on the disk, and the capacity leaves `room`.
        """
        wanted = blocks(min(self._most, max(self._least, log_bytes // LOG_SHARE)))
        with self._lock:
            if self.bytes >= wanted // 2 or free < RESERVE_FREE_FACTOR * wanted:
                return
            if wanted > room + self.bytes:
                return
            self.delete()
            descriptor = self._files.create(self._path)
            try:
                self._files.allocate(descriptor, wanted)
                self.bytes = wanted
            except BaseException:
                self.delete()
                raise
            finally:
                self._files.close(descriptor)

    def release_if_full(self, error: OSError) -> bool:
        """Delete the reserve if `error` says that the disk is full; return whether it was there."""
        if error.errno not in NO_SPACE:
            return False
        with self._lock:
            if not self.bytes:
                return False
            self.delete()
            return True

    def delete(self) -> None:
        """Delete the reserve: it is replaced, or nothing is left that could be removed."""
        with self._lock:
            self._files.unlink(self._path)
            self.bytes = 0


class Space:
    """The bytes of one store, against its capacity and its disk. Any thread may ask."""

    def __init__(
        self,
        limits: SizeLimits,
        accounting: SpaceAccounting,
        obsolete: ObsoleteFiles,
        *,
        reserve: Reserve,
        free: FreeSpace,
        runs: Sequence[Run],
    ) -> None:
        self.limits, self.reserve = limits, reserve
        self._accounting, self._obsolete, self._free = accounting, obsolete, free
        self.count_index(runs)
        self.recent_heads = 0  # Bytes of the heads that no run of the index holds yet.
        # Bytes that calls are writing to files of their own, or for which they make room.
        self.claims: dict[CallOwner, int] = {}
        self.import_bytes = 0  # Bytes that the files of unfinished imports will take here.
        self.copied_bytes = 0  # Bytes of those files that are copied already.
        self._unreclaimable = -limits.segment  # Dead bytes after the latest upkeep.
        self._scraps = limits.segment // 4  # Dead bytes and small runs for which no upkeep is due.
        self._copies = 2 * (limits.segment + limits.large)  # What upkeep copies at once at most.

    def count_index(self, runs: Sequence[Run]) -> None:
        """Count the runs that the index has now."""
        self.index_bytes = sum(blocks(run.bytes) for run in runs)
        self._index_rows = sum(run.count for run in runs)

    def physical(self) -> int:
        """Return the bytes taken on the medium."""
        return self._figures()[0]

    def charged(self) -> int:
        """Return what the live values are charged, and what no upkeep gives back."""
        return self._figures()[1]

    def measure(self) -> tuple[int, int]:
        """Return the bytes charged, and those that may still be charged.

        What is charged falls as soon as a value goes, though its bytes lie dead for a while: those
        are given back before the disk holds more than it may, so nothing is evicted for them. The
        same is true for rows of the index.
        """
        held, charged = self._figures()
        kept = max(self.reserve.bytes, self._copy_bytes(), index_room(self.index_live()))
        # The size of a value does not include its last block and its head.
        return charged, max(0, self.limit(held) - kept - charged - BLOCK_BYTES)

    def _figures(self) -> tuple[int, int]:
        """Return the bytes taken on the medium, and those that are charged."""
        accounting, obsolete = self._accounting, self._obsolete.held()
        files = accounting.log_bytes + accounting.pack_bytes + accounting.value_bytes
        held = files + self.copied_bytes + self.index_bytes + obsolete + self.reserve.bytes
        scraps = min(self._scraps, self._log_dead() + self.index_bytes)
        index = index_room(self.index_live())
        return held, accounting.charge + self.import_bytes + index + obsolete + scraps

    def _log_dead(self) -> int:
        """Return the bytes of the log that do not count, but for what is empty of last blocks."""
        accounting = self._accounting
        return accounting.log_bytes - accounting.log_slack - accounting.log_live

    def index_live(self) -> int:
        """Return about what the index takes once it is written and merged: a row for each key."""
        whole = self.index_bytes + self.recent_heads
        if not self._index_rows:
            return whole
        rows = self._accounting.keys * self.index_bytes // self._index_rows
        return min(whole, rows + self._accounting.tombstones)

    def writes_index_whole(self) -> bool:
        """Return whether a checkpoint should write the whole index, because that is small."""
        return self.index_live() <= SMALL_INDEX_BYTES

    def heads_charged(self) -> int:
        """Return the bytes of heads that take room until the next checkpoint."""
        whole = self._index_rows and self.writes_index_whole()
        return 0 if whole else self.recent_heads

    def _copy_bytes(self) -> int:
        """Return what upkeep may copy at once: no more than the log holds."""
        return min(self._copies, self._accounting.log_bytes)

    def limit(self, held: int) -> int:
        """Return the most bytes that may lie here, given that `held` bytes do now.

        It is the smaller one of the capacity and of what the file system can hold.
        """
        return min(self.limits.files, held + self._free(held))

    def copy_room(self, awaited: int = 0) -> int:
        """Return the bytes that upkeep may take for what it copies, besides those that are claimed.

        Two parts of it may copy at once: a merge of runs, and the call that empties a segment. Of
        the claims, `awaited` bytes are of the call that waits for this very upkeep, and that writes
        nothing before it has ended.
        """
        held = self.physical()
        return self.limit(held) - held - sum(list(self.claims.values())) + awaited

    def hold_reserve(self, free: int) -> None:
        """Allocate the reserve if `free` bytes of the disk, and the capacity, have room for it."""
        self.reserve.allocate(self._accounting.log_bytes, free, self.copy_room())

    def lend_reserve(self) -> None:
        """Give the reserve up where upkeep lacks room by the capacity, and not by the disk.

        It is held for a full disk, and copies cannot use it. Upkeep allocates it again later.
        """
        held = self.physical()
        if self.reserve.bytes and not self.fits(0) and self.limits.files <= self.limit(held):
            self.reserve.delete()

    def upkeep_bytes(self) -> int:
        """Return the bytes that stay free for upkeep, or are held for it by the reserve.

        It may need them for copies, or for a merge of what is alive, and for a checkpoint that
        writes only what is new. Beside the reserve there is room for heads.
        """
        most = max(self._copy_bytes(), index_room(self.index_live()))
        if not self.writes_index_whole():
            most += int(ROWS_OF_HEADS * self.recent_heads)
        return max(self.reserve.bytes + HEADS_BYTES, most)

    def fits(self, size: int) -> bool:
        """Return whether `size` bytes more may lie here while upkeep keeps its room."""
        held, _ = self._figures()
        coming = self.import_bytes - self.copied_bytes
        if self.claims:
            coming += sum(self.claims.values())
        kept = self.upkeep_bytes() - self.reserve.bytes
        return held + coming + kept + size <= self.limit(held)

    def dead_within_bound(self, size: int) -> bool:
        """Return whether so few bytes are dead that `size` more may be written before upkeep.

        A write may replace as many bytes as it writes, but at most those that are alive. So the
        answer is yes for any size once upkeep has nothing left to do.
        """
        accounting = self._accounting
        replaced = min(size, accounting.live)
        bound = accounting.live + CHURN_BYTES
        return accounting.dead + replaced <= bound or bool(self._obsolete.pins)

    def takes(self, size: int, coming: int) -> bool:
        """Return whether a small write of `size` bytes may come now: the way of most writes.

        It is what `measure`, `fits` and `dead_within_bound` say together, in one look. `coming`
        bytes are to be charged with it, those of other writes under way included.
        """
        accounting, reserve = self._accounting, self.reserve.bytes
        index, heads, obsolete = self.index_bytes, self.recent_heads, self._obsolete.held()
        log, packs, values = accounting.log_bytes, accounting.pack_bytes, accounting.value_bytes
        held = log + packs + values + self.copied_bytes + index + obsolete + reserve
        limit = self.limit(held)
        copies = self._copies
        if log < copies:
            copies = log
        live = index + heads
        if self._index_rows:
            rows = accounting.keys * index // self._index_rows + accounting.tombstones
            if rows < live:
                live = rows
        whole = live <= SMALL_INDEX_BYTES
        live = index_room(live)
        most = live if live > copies else copies
        kept = reserve if reserve > most else most
        scraps = self._log_dead() + index
        if scraps > self._scraps:
            scraps = self._scraps
        charged = accounting.charge + self.import_bytes + live + obsolete + scraps + coming
        if charged > self.limits.capacity or charged + kept + BLOCK_BYTES > limit:
            return False
        upkeep = most
        if not whole:
            upkeep += int(ROWS_OF_HEADS * heads)
        if upkeep < reserve + HEADS_BYTES:
            upkeep = reserve + HEADS_BYTES
        arriving = self.import_bytes - self.copied_bytes + size
        if self.claims:
            arriving += sum(self.claims.values())
        if held + arriving + upkeep - reserve > limit:
            return False
        replaced = min(size, accounting.live)
        dead = accounting.dead + replaced
        return dead <= accounting.live + CHURN_BYTES or bool(self._obsolete.pins)

    def require(self, size: int, granted: int) -> None:
        """Raise NoRoomError unless `size` bytes may be written now.

        `granted` bytes are claimed for the caller already.
        """
        if size <= granted:
            return
        if not (self.fits(size) and self.dead_within_bound(size)):
            raise NoRoomError(size)

    def worth_compacting(self) -> bool:
        """Return whether enough has died since upkeep last gave bytes back to try it again."""
        dead = self._accounting.dead
        self._unreclaimable = min(self._unreclaimable, dead)
        return dead >= self._unreclaimable + self.limits.segment

    def record_unreclaimable(self) -> None:
        """Record how many dead bytes upkeep could not give back."""
        self._unreclaimable = self._accounting.dead
