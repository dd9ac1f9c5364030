"""Commits to a store: a record, and a frame with it, appended to the log and entered in the index.

Everything happens under one lock, in the order of the log. What makes it durable, and what becomes
of the dead, is the writer's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from memories.backends.disk import log_format
from memories.backends.disk.blocks import RunDamagedError
from memories.backends.disk.fd_cache import Handle, HandleCache
from memories.backends.disk.files import Files, append, append_early
from memories.backends.disk.free_space import FreeSpace
from memories.backends.disk.index import Index
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.log import Log
from memories.backends.disk.log_format import (
    FILE,
    INLINE,
    MARK,
    NOTE,
    PACKED,
    TOMBSTONE,
    IndexRow,
    Position,
    unpack_place,
)
from memories.backends.disk.manifest import IndexManifest
from memories.backends.disk.obsolete_files import ObsoleteFiles
from memories.backends.disk.overlay_index import OverlayIndex
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.reader import FrameReader
from memories.backends.disk.replay import START, apply, oldest_of, row_of
from memories.backends.disk.reserve import Reserve
from memories.backends.disk.size_limits import CHURN_BYTES, SizeLimits
from memories.backends.disk.space_accounting import AccountImage, SpaceAccounting
from memories.foundation.call_owner import Owner
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import Bell
from memories.model.record import Record
from memories.model.tiers import TierName

T = TypeVar("T")
MARK_RECORD = Record(key="", version=0, tier=TierName.COLD, size=0, stored_at=0.0)
Frame = Sequence[memoryview]


def _file_of(row: IndexRow) -> int:
    return unpack_place(row.record.place).file


class Unnamed(NamedTuple):
    """Who writes a file, if that ends with his call, and the key it is for, if it is one value."""

    owner: Owner | None
    key: str


class CommitStart(NamedTuple):
    """What a commit started from, while it is under way."""

    end: Position  # Of the log,
    highest: int  # whose segments had numbers up to this one.
    account: AccountImage
    recent: list[tuple[str, IndexRow | None]]  # Keys it may enter, with what the table had of them.
    heads: int
    extra: int


class NoRoomError(Exception):
    """Dead bytes must be given back before so much is written; it never leaves this package."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Committer(ABC):
    """The half of the writer that takes records in."""

    def __init__(
        self,
        layout: StorePaths,
        files: Files,
        guard: WriterLock,
        *,
        log: Log,
        index: Index,
        ledger: SpaceAccounting,
        reading: FrameReader,
        handles: HandleCache,
        scale: SizeLimits,
        full: bool,
        mmap: bool,
        rebuild: Callable[[], tuple[Index, SpaceAccounting]],
    ) -> None:
        self.layout, self.files, self.reading = layout, files, reading
        self.guard, self._away = guard, False
        self._free = FreeSpace(guard.home.free_bytes)
        self.handles = handles
        self.graves = ObsoleteFiles(layout, files, handles, reading)
        self._full = full
        self.mmap = mmap
        self.scale = scale
        self._left_dead = -scale.segment  # What was dead when upkeep had last given room back.
        self.reserve = Reserve(layout, files, scale.reserve, 2 * scale.segment)
        self._before: CommitStart | None = (
            None  # Set while a commit is between its first step and last.
        )
        # Bytes that somebody is writing to files of their own, or makes room for, and who that is.
        self._coming: dict[Owner, int] = {}
        self.recent_heads = 0  # Bytes of the heads that no run of the index holds yet.
        self.tidying = new_lock()  # Taken before `lock`: one upkeep at a time.
        self.merging = new_lock()  # Taken before `tidying`: one merge of runs at a time.
        self.waiting: set[Owner] = set()  # Calls that wait for upkeep, which then takes no rests.
        self._rebuild = rebuild
        self._unsynced: dict[int, str] = {}  # Value files, and the keys they belong to.
        self._begun: Set[int] = frozenset()  # Those with which a sync has begun.
        self._owing = False  # Whether a killed writer left some of them.
        self._drafts: dict[int, Unnamed] = {}  # Files that are written but not yet journaled.
        self._suspect: set[int] = set()  # Those of them whose sync failed.
        self._unnamed: set[int] = set()  # Runs whose manifest may not have been saved.
        self.covered = START  # How far the manifest covers the log.
        self.saved: IndexManifest | None = None
        self._syncing = new_lock()
        self._releasing = new_lock()
        self.unreadable: set[int] = set()  # Segments that compaction cannot walk,
        self.unreadable_packs: set[int] = set()  # and packs from which it cannot read all.
        self.lock = new_lock()
        self.log, self.index, self.ledger = log, index, ledger
        self.index_bytes = sum(run.bytes for run in index.runs)
        self.changed = Bell()
        self.adopting: set[Owner] = set()  # Calls that take many records in at once.
        self.lent: OverlayIndex | None = None  # What is seen besides the log, while there is any.

    def keys(self) -> int:
        """Return how many keys are seen; it waits for a commit, which enters the index first."""
        with self.lock:
            return self.ledger.keys + (0 if self.lent is None else self.lent.extra)

    # -- room ------------------------------------------------------------------------------------

    def physical(self) -> int:
        """Return the bytes taken on the medium."""
        ledger = self.ledger
        files = ledger.log_bytes + ledger.pack_bytes + ledger.value_bytes
        if self.lent is not None:
            files += self.lent.copied_bytes
        return files + self.index_bytes + self.graves.held() + self.reserve.bytes

    def charged(self) -> int:
        """Return what the live values are charged, and what no upkeep gives back."""
        owed = 0 if self.lent is None else self.lent.owed_bytes
        return self.ledger.charge + owed + self.index_bytes + self.graves.held()

    def limit(self, held: int) -> int:
        """Return the bytes that may lie here, where `held` do: the capacity, or what the file
        system can take.
        """
        return min(self.scale.capacity, held + self._free(held))

    def room(self) -> int:
        """Return the bytes that may still be charged.

        What is charged falls as soon as a value goes, though its bytes lie dead for a while: those
        are given back before the disk holds more than it may, so nothing is displaced for them.
        """
        return max(0, self.limit(self.physical()) - self.working() - self.charged())

    def spare(self) -> int:
        """Return the bytes that upkeep may take for what it copies."""
        held = self.physical()
        return self.limit(held) - held

    def working(self) -> int:
        """Return the bytes that stay free for upkeep, or are held for it by the reserve."""
        return max(self.reserve.bytes, self.scale.working(self.index_bytes, self.recent_heads))

    def fits(self, size: int) -> bool:
        """Return whether `size` bytes more may lie here, and upkeep has its room still."""
        coming = sum(self._coming.values())
        if self.lent is not None:
            coming += self.lent.owed_bytes - self.lent.copied_bytes
        held = self.physical()
        kept = self.working() - self.reserve.bytes
        return held + coming + kept + size <= self.limit(held)

    def may_give_back(self) -> bool:
        """Return whether so much has died since it last gave room back that it is worth asking."""
        self._left_dead = min(self._left_dead, self.ledger.dead)
        return self.ledger.dead >= self._left_dead + self.scale.segment // 8

    def gave_back(self) -> None:
        """Remember what upkeep could not give back."""
        self._left_dead = self.ledger.dead

    @contextmanager
    def claimed(self, size: int, owner: Owner) -> Iterator[None]:
        """Let nobody else take `size` bytes while this lasts, or the call of `owner`."""
        self._coming[owner] = size
        try:
            yield
        finally:
            self.let_go(owner)

    @contextmanager
    def hurried(self, owner: Owner) -> Iterator[None]:
        """Let upkeep in the background take no rests: the call of `owner` waits for it."""
        self.waiting.add(owner)
        try:
            yield
        finally:
            self.let_go(owner)

    def lean(self, size: int) -> bool:
        """Return whether so few bytes are dead that `size` more may be written before upkeep.

        What is written may kill as much, but not more than there is alive. So a store in which
        upkeep has nothing left to do is lean for any size.
        """
        ledger = self.ledger
        killed = min(size, ledger.live)
        return ledger.dead + killed <= ledger.live + CHURN_BYTES or bool(self.graves.pins)

    def require_room(self, size: int, granted: int) -> None:
        """Raise NoRoomError unless `size` bytes may be written now.

        `granted` bytes are the caller's: `claimed` for him by whoever made room.
        """
        if size > granted and not (self.fits(size) and self.lean(size)):
            raise NoRoomError(size)

    def require_home(self) -> None:
        """Make sure that the directory is there, and that nobody else could have written to it.

        Once that was found not to be so, nothing is taken in until it is again.

        Raises:
            StorageError: it is not there.
            StoreLockedError: another writer may have come in.
        """
        self._away = True
        self.guard.require()
        self._away = False

    def discard(self, path: Path) -> None:
        """Unlink what nothing names, unless another store lies there now, whose it would be.

        The next opening sweeps what stays.
        """
        if self.guard.home.here():
            self.files.unlink(path)

    # -- commits ---------------------------------------------------------------------------------

    def write(self, record: Record, frame: Frame, granted: int = 0) -> Record:
        """Keep a frame; see `Backend.write`. `granted` bytes are claimed for it already."""
        length = sum([buffer.nbytes for buffer in frame])
        if length >= self.scale.large:
            return self._write_large(record, frame, length, granted)
        with self.lock:
            self._mend()
            self.require_room(length, granted)
            old = self.row(record.key)
            if old is not None and old.record.version > record.version:
                return record if old.kind == TOMBSTONE else old.record
            row = self._enter_inline(old, record, frame, length)
        if self._full:
            self._sync_or_undo((old, row))
        return row.record

    def write_head(self, kind: int, record: Record) -> Record:
        """Journal a record whose frame lies elsewhere, or a tombstone."""
        with self.lock:
            self._mend()
            old = self.row(record.key)
            if old is not None and old.record.version > record.version:
                return old.record
            row = self._enter_head(old, kind, record)
        if self._full:
            self._sync_or_undo((old, row))
        return row.record

    def write_packed(self, records: Sequence[Record]) -> None:
        """Journal records whose frames lie in packs, all of them in one append."""
        with self.lock:
            self._mend()
            entered = self._enter_packed(records)
        if self._full:
            self._sync_or_undo(*entered)

    def amend(self, record: Record, granted: int = 0) -> Record:
        """Journal `record` for the version that lies here already; its frame stays where it is."""
        with self.lock:
            self._mend()
            old = self.row(record.key)
            if old is None or old.record.version != record.version:
                raise ValueError(f"{record.key!r} is not at version {record.version}")
            if old.kind == INLINE:
                frame = [self.reading.read(old.record)]
                self.require_room(frame[0].nbytes, granted)
                row = self._enter_inline(old, record, frame, frame[0].nbytes)
            else:
                row = self._enter_head(old, old.kind, record)
        if self._full:
            self._sync_or_undo((old, row))
        return row.record

    def _write_large(self, record: Record, frame: Frame, length: int, granted: int) -> Record:
        owner = Owner()
        try:
            with self.lock:
                self.require_room(length, granted)
                if length > granted:
                    self._coming[owner] = length
            number = self.new_file(owner, record.key)
            self.write_value(number, frame)
            place = log_format.pack_place(FILE, number, 0, length)
            return self.write_head(FILE, log_format.placed(record, length, place))
        finally:
            self.let_go(owner)

    # -- what a call holds -----------------------------------------------------------------------

    def new_file(self, owner: Owner | None = None, key: str = "") -> int:
        """Return a number for a file that is about to be written and then journaled.

        One for the value of `key` is unlinked with `let_go(owner)`, unless the log names it by
        then.
        """
        self.require_home()
        with self.lock:
            self._whole()
            number = self.ledger.file_number()
            self._drafts[number] = Unnamed(owner, key)
            return number

    def write_value(self, number: int, frame: Frame) -> None:
        """Write a frame into the file of that number, which nothing names yet."""
        handle = Handle(self.files, self.files.create(self.layout.value(number)))
        if self._full:
            append_early(self.files, handle.descriptor, frame)
            self.files.sync(handle.descriptor)
            self.files.sync_directory(self.layout.values)
        else:
            append(self.files, handle.descriptor, frame)

    def draft(self, number: int, owner: Owner | None) -> None:
        """Let a file that has a number be kept by `owner`, or by nobody's call."""
        with self.lock:
            self._drafts[number] = Unnamed(owner, "")

    def keep_drafts(self, numbers: Set[int]) -> None:
        """Let these be the files that outlive the calls which were given their numbers."""
        with self.lock:
            for number, one in list(self._drafts.items()):
                if one.owner is None and number not in numbers:
                    del self._drafts[number]
            for number in numbers:
                self._drafts.setdefault(number, Unnamed(None, ""))

    def let_go(self, owner: Owner) -> None:
        """End what a call holds: room, and files that neither log nor account names."""
        with self.lock:
            self._whole()
            for number in [number for number, one in self._drafts.items() if one.owner is owner]:
                if not self._names(self._drafts[number].key, number):
                    self._unsynced.pop(number, None)
                    self.discard(self.layout.value(number))
                    self.discard(self.layout.pack(number))
                del self._drafts[number]
            self._coming.pop(owner, None)
            self.adopting.discard(owner)
            self.waiting.discard(owner)
        owner.end()

    def _names(self, key: str, number: int) -> bool:
        """Return whether a file has become one of the store, the value of `key` or a pack."""
        if not key:
            return number in self.ledger.packs
        row = self.row(key)
        return row is not None and row.kind == FILE and _file_of(row) == number

    def take_back(self) -> None:
        """End what calls hold that an interrupt ended at an unlucky line."""
        with self.lock:
            self._whole()
            drafting = [draft.owner for draft in self._drafts.values()]
            owners = {*self._coming, *self.adopting, *self.waiting, *drafting}
        for owner in owners:
            if owner is not None and not owner.alive:
                self.let_go(owner)

    # -- one record ------------------------------------------------------------------------------

    def _enter_inline(
        self, old: IndexRow | None, record: Record, frame: Frame, length: int
    ) -> IndexRow:
        """Append a record with its frame, in the place of `old`."""
        return self._commit(
            [(record.key, old)],
            lambda: self._enter(old, self._append_inline(record, frame, length, oldest_of(old))),
        )

    def _enter_head(self, old: IndexRow | None, kind: int, record: Record) -> IndexRow:
        """Append a record without a frame, in the place of `old`."""
        return self._commit(
            [(record.key, old)],
            lambda: self._enter(old, self._append_head(kind, record, oldest_of(old))),
        )

    def _commit(
        self,
        replaced: Sequence[tuple[str, IndexRow | None]],
        steps: Callable[[], T],
        packs: Iterable[int] = (),
    ) -> T:
        """Return `steps()`, which append to the log and enter that in index and account.

        Whatever ends them in the middle, an interrupt at any line included: log, index and account
        agree again before anybody else looks. What was wholly appended counts, as after a kill.
        The caller holds the lock.
        """
        recent = self.index.recent
        self._before = CommitStart(
            self.log.end,
            self.log.highest,
            self.ledger.image(
                self.log.end.segment, self.log.highest, [old for _, old in replaced], packs
            ),
            [(key, recent.get(key)) for key, _ in replaced],
            self.recent_heads,
            0 if self.lent is None else self.lent.extra,
        )
        try:
            done = steps()
            self._before = None
        except BaseException:
            self._whole()
            raise
        return done

    def _whole(self) -> None:
        """Finish the commit that was interrupted, if one was; the caller holds the lock."""
        before = self._before
        if before is None:
            return
        for key, row in before.recent:
            if row is None:
                self.index.recent.pop(key, None)
            else:
                self.index.recent[key] = row
        self.ledger.restore(before.account)
        self.recent_heads = before.heads
        if self.lent is not None:
            self.lent.extra = before.extra
        for number, offset, head in self.log.go_back(before.end, before.highest):
            row, old = row_of(number, offset, head), self.index.row(head.record.key)
            apply(self.index, self.ledger, self.layout, row)
            self._owe(old, row)
            if row.kind != MARK and self.lent is not None:
                self.lent.committed(old, row)
            self.recent_heads += row.head_bytes
        self._before = None
        self.changed.set()

    def _append_inline(self, record: Record, frame: Frame, length: int, oldest: int) -> IndexRow:
        body = log_format.encode_record(record)
        data = frame[0] if len(frame) == 1 else b"".join(frame)
        head = log_format.pack_head(
            INLINE,
            body,
            oldest=oldest,
            synced=self.log.synced,
            frame_length=length,
            frame_sum=log_format.frame_sum((data,)),
        )
        whole = b"".join((head, data, log_format.padding(length)))
        extent = len(whole)
        segment, offset = self.log.append((whole,), extent)
        place = log_format.pack_place(INLINE, segment, offset + len(head), length)
        self.ledger.grew(segment, offset + extent)
        return IndexRow(
            log_format.placed(record, length, place), INLINE, segment, offset, extent, oldest
        )

    def _append_head(self, kind: int, record: Record, oldest: int) -> IndexRow:
        body = log_format.encode_record(record)
        head = log_format.pack_head(kind, body, oldest=oldest, synced=self.log.synced)
        segment, offset = self.log.append((head,), len(head))
        self.ledger.grew(segment, offset + len(head))
        return IndexRow(record, kind, segment, offset, len(head), oldest)

    def _enter(self, old: IndexRow | None, row: IndexRow) -> IndexRow:
        self.index.put(row)
        self.ledger.replace(old, row)
        if self.lent is not None:
            self.lent.committed(old, row)
        self.recent_heads += row.head_bytes
        self._owe(old, row)
        if old is not None and old.kind == FILE and not self._full:
            self._give_up(old)
        if not self.changed.is_set():
            self.changed.set()
        return row

    def _owe(self, old: IndexRow | None, row: IndexRow) -> None:
        """Have the next sync include the file of a new value."""
        if (
            row.kind == FILE
            and not self._full
            and (old is None or old.record.place != row.record.place)
        ):
            self._unsynced[unpack_place(row.record.place).file] = row.record.key

    def _give_up(self, old: IndexRow) -> None:
        """Doom the file of a replaced value at once if no sync has begun with it.

        A power cut that takes its successor's record goes back to before this one's, which is no
        further than what the next sync would have saved. So the disk never has to write it.
        """
        number = unpack_place(old.record.place).file
        waits = number in self._unsynced and number not in self._begun
        if waits and number in self.ledger.retired:
            self._retire([number])
            del self._unsynced[number]

    def _retire(self, dead: Iterable[int]) -> None:
        """Doom the files of replaced values, but for those whose replacement has failed."""
        retired = self.ledger.retired
        gone = [number for number in dead if number in retired]
        # Doomed first: a file that is doomed twice is unlinked, one that is nowhere never is.
        for number in gone:
            self.graves.value(number, retired[number])
        self.ledger.gave_up(gone)

    def _enter_packed(self, records: Sequence[Record]) -> list[tuple[IndexRow | None, IndexRow]]:
        """Append and enter the records that are the newest of their keys; one write for all."""
        found = []
        for record in records:
            old = self.row(record.key)
            if old is None or old.record.version < record.version:
                found.append((record, old))
        return self._commit(
            [(record.key, old) for record, old in found],
            lambda: self._append_packed(found),
            {unpack_place(record.place).file for record, _ in found},
        )

    def _append_packed(
        self, found: Sequence[tuple[Record, IndexRow | None]]
    ) -> list[tuple[IndexRow | None, IndexRow]]:
        synced, encode, pack_head = self.log.synced, log_format.encode_record, log_format.pack_head
        oldest = [oldest_of(old) for _, old in found]
        heads = [
            pack_head(PACKED, encode(record), oldest=lowest, synced=synced)
            for (record, _), lowest in zip(found, oldest, strict=True)
        ]
        data = b"".join(heads)
        self.recent_heads += len(data)
        segment, offset = self.log.append((data,), len(data))
        self.ledger.grew(segment, offset + len(data))
        entered = []
        for (record, old), lowest, head in zip(found, oldest, heads, strict=True):
            entered.append((old, IndexRow(record, PACKED, segment, offset, len(head), lowest)))
            offset += len(head)
        self.ledger.arrived([row for old, row in entered if old is None])
        for old, row in entered:
            self.index.put(row)
            if old is not None:
                self.ledger.replace(old, row)
            if self.lent is not None:
                self.lent.committed(old, row)
        self.changed.set()
        return entered

    def _sync_or_undo(self, *entered: tuple[IndexRow | None, IndexRow]) -> None:
        try:
            if self._owing:
                self.sync()  # The log may not claim to be whole while values are owed.
            else:
                self.log.sync()
        except OSError:
            # After any other interruption the log says that they are there, and so they are.
            with self.lock:
                for old, row in entered:
                    if self.row(row.record.key) is row:
                        back = old if old is not None else row._replace(kind=TOMBSTONE)
                        self._enter(row, back)
                        self.ledger.revive(back)
            raise
        with self.lock:
            self._retire(
                _file_of(old) for old, _ in entered if old is not None and old.kind == FILE
            )

    def remove(self, key: str, version: int) -> None:
        """Make a key absent as of `version`."""
        tomb = Record(key=key, version=version, tier=TierName.COLD, size=0, stored_at=0.0)
        self.on_full_disk(lambda: self.write_head(TOMBSTONE, tomb))

    def note(self, record: Record) -> Record:
        """Journal a record whose frame lies in another backend."""
        return self.on_full_disk(lambda: self.write_head(NOTE, record))

    def on_full_disk(self, action: Callable[[], T]) -> T:
        """Return `action()`, which makes room in the end: the reserve is for that."""
        try:
            return action()
        except OSError as error:
            if not self.reserve.give(error):
                raise
        return action()

    def row(self, key: str) -> IndexRow | None:
        """Return the newest row of `key`; builds the index again if a run of it is damaged."""
        try:
            return self.index.row(key)
        except RunDamagedError:
            self.rebuild()
            return self.index.row(key)

    @abstractmethod
    def sync(self) -> None:
        """Return once everything committed survives a power cut."""

    @abstractmethod
    def rebuild(self) -> None:
        """Build index and account again from the log."""

    @abstractmethod
    def _mend(self) -> None:
        """Write again what a failed sync may have lost."""
