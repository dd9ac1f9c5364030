"""The glacier tier's backend: frames in an object store that describes itself.

Not a cache and no policy: what is written stays until it is overwritten or removed.
Large frames are objects of their own; small ones are staged here and travel together.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from memories.backends.base import Backend, Problem, Usage
from memories.backends.bucket import retention
from memories.backends.bucket.availability import Availability
from memories.backends.bucket.check import BucketCheck, Verify
from memories.backends.bucket.damage import Damage, found_damage, note_damage
from memories.backends.bucket.directory_lock import DirectoryLock
from memories.backends.bucket.garbage_collection import GarbageCollector, Reclaimed
from memories.backends.bucket.lease import LEASE_SECONDS, LOCK_NAME, Lease, WriterLease
from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.object_index import ObjectIndex
from memories.backends.bucket.objectstore import ObjectStore
from memories.backends.bucket.open_store import open_store
from memories.backends.bucket.pack import body_bytes
from memories.backends.bucket.parallel_download import ParallelDownload
from memories.backends.bucket.reader import Progress, Reader
from memories.backends.bucket.rebuild import Bucket, adopt, catch_up
from memories.backends.bucket.retry import RetryPolicy
from memories.backends.bucket.throttle import ThrottledStore
from memories.backends.bucket.uploader import Prepared, Uploader
from memories.errors import (
    ClosedError,
    ForkedError,
    MemoriesError,
    RefusedError,
    StorageError,
    StoreLockedError,
    UnavailableError,
)
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.foundation.keys import some_of
from memories.foundation.periodic import Periodic
from memories.foundation.units import format_size
from memories.model.record import Record
from memories.progress import Step

GRACE_SECONDS = 7 * 86400
SMALL_BYTES = 256 * 1024
PACK_BYTES = 8 * 1024 * 1024
_UNTRIED, _HONOURED, _IGNORED = range(3)  # What is known of its conditional writes.
_TWO_WRITERS = (
    "the archive %s ignores If-None-Match, by which two writers are kept apart: see to it yourself "
    "that only one store writes there at a time"
)
_MAY_NOT_DELETE = (
    "the archive %s may not be deleted from with these credentials: what was overwritten or "
    "removed stays there and is billed, until somebody opens it who may"
)
_PARTS = (
    "the archive %s may hold parts of an upload that was killed, which are billed and cannot be "
    "listed from here: set a lifecycle rule that aborts incomplete multipart uploads, or install "
    "boto3"
)


class BucketBackend(Backend):
    """Keeps frames as objects under a prefix of an object store.

    With a `directory` small values are durable there first and reach the bucket in packs: when one
    is full, after `flush_seconds`, at `sync` and at `close`. Without one every `write` returns
    after its upload. A new `directory` is filled from what the bucket says of itself.

    Args:
        url: A path, `file://`, `s3://`, `gs://`, `az://`, or an object store.
        storage_options: Credentials, endpoint, and so on, under the names obstore or fsspec know.
        directory: Where the map and the staged values lie; None for a private temporary one.
        read_only: Take no lease and write nothing; `refresh` looks again.
        takeover: Become the writer although another store holds the lease.
        grace_seconds: How long a dead object stays.
        small_bytes: Frames up to this size travel in packs.
        bytes_per_second: The most the line is used for, or None.
        progress: Called with the key, the bytes done and all bytes, in transfers of megabytes.
        verify: Raises CorruptDataError for a frame that is not whole; asked by `check`.
        away_seconds: Open all the same if the bucket does not answer within so many seconds; it is
            `away` then, until `resume` brings it back. None raises instead.
        lasting: Whether `directory` is there when this has ended.
        version: The highest version that the store has given, so that who comes next gives others.

    Raises:
        UnavailableError: the bucket does not answer.
        StoreLockedError: another store writes under this prefix, or this one is open already.
    """

    remote = True

    def __init__(
        self,
        url: str | Path | ObjectStore,
        *,
        storage_options: Mapping[str, Any] | None = None,
        directory: Path | None = None,
        read_only: bool = False,
        takeover: bool = False,
        grace_seconds: float = GRACE_SECONDS,
        small_bytes: int = SMALL_BYTES,
        pack_bytes: int = PACK_BYTES,
        flush_seconds: float = 30.0,
        lease_seconds: float = LEASE_SECONDS,
        concurrency: int = 32,
        bytes_per_second: float | None = None,
        retry: RetryPolicy | None = None,
        progress: Progress | None = None,
        full: bool = False,
        version: Callable[[], int] = lambda: 0,
        wall: Callable[[], float] | None = None,
        verify: Verify | None = None,
        away_seconds: float | None = None,
        lasting: bool = True,
    ) -> None:
        self._pid = os.getpid()
        self._closed = self._ended = False
        self._shipped = read_only  # Whether nothing is to reach the bucket any more.
        self._lasting = lasting
        self._closing = new_lock()
        self._maintaining = new_lock()
        self._wall = wall or SystemClock().wall
        self._verify = verify
        self._small_bytes = small_bytes
        self._progress = progress
        self._grace_seconds = grace_seconds
        self._flush_seconds = flush_seconds
        self._read_only = read_only
        self.adopted = read_only  # Whether the map was read from the bucket at this opening.
        self.notes: list[str] = []  # What its user should know of the bucket, %s for its URL.
        self.missing: list[str] = []  # Keys whose objects the bucket did not hold then.
        self.damage: list[Damage] = []  # Objects that could not be read then, or in a check since.
        self._durable = directory is not None and not read_only
        plain = url if isinstance(url, ObjectStore) else open_store(url, storage_options, retry)
        self._store = ThrottledStore(plain, 2 * concurrency, bytes_per_second)
        self._private = None if self._durable else Path(tempfile.mkdtemp(prefix="memories-"))
        home = self._private or directory
        assert home is not None
        self._directory_lock = DirectoryLock(home)
        try:
            self._db = LocalDb(home / "glacier.sqlite", full=full, disposable=not self._durable)
            self._index = ObjectIndex(self._db)
            self._downloads = ParallelDownload(self._store, concurrency)
            self._uploader = Uploader(
                self._store, self._db, self._index, pack_bytes=pack_bytes, wall=self._wall
            )
            self._reader = Reader(
                self._store, self._downloads, self._index, self._uploader,
                directory if read_only else None, progress,
            )  # fmt: skip
            self._collector = GarbageCollector(
                self._store, self._db, self._index, self._uploader,
                self._reader.read, self._rewrite, self._wall,
            )  # fmt: skip
            self._bucket = Bucket(self._downloads, self._store, self._db, self._index)
            self._writer = WriterLease(
                self._store, self._db.identity(), lease_seconds,
                lambda: max(version(), self._db.number("last_version")),
            )  # fmt: skip
            self._keepers: list[Periodic] = []
            self._availability = Availability(
                self._store.url, partial(self._connect, takeover, lease_seconds)
            )
        except BaseException:
            self._let_go()
            raise
        try:
            self._availability.open(away_seconds)
        except BaseException:
            self._closed = True
            self._end()
            raise

    @property
    def url(self) -> str:
        """Return where the archive is, without credentials."""
        return self._store.url

    @property
    def away(self) -> MemoriesError | None:
        """Return why the bucket cannot be used, None while it can."""
        return self._availability.away

    @property
    def known(self) -> bool:
        """Return whether the map on this machine was ever read from the bucket."""
        return bool(self._db.number("adopted"))

    def resume(self, returned: Callable[[], None], told: Callable[[], None]) -> None:
        """Try in the background to reach a bucket that is away; then call `returned`.

        It is away until that has succeeded; `told` is called when it is not away any more.
        """
        self._availability.resume(returned, told)

    def holder(self) -> Lease | None:
        """Return who writes here, or wrote last; None where nobody ever did."""
        self._reach()
        return self._writer.holder()

    def write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Keep a frame: a large one is uploaded now, a small one with others (see the class)."""
        kept = self.prepare(record, frame)
        self.commit(kept.key, kept.version)
        if not self._durable and kept.stored <= self._small_bytes:
            with self._naming(record.key, kept.stored, "archived"):
                self._uploader.flush_through(ObjectLocation.decode(kept.place).token)
        return kept

    def prepare(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Keep a frame that is the value of its key only once it is committed.

        Until then the version before it stays. What a killed process has prepared is there at the
        next opening (`prepared`), to be committed or aborted as another history says.
        """
        self._guard_write()
        length = body_bytes(frame)
        with self._naming(record.key, length, "archived"):
            if length > self._small_bytes or not self._stages:
                self._availability.require()
                self._writer.ensure()
            if length > self._small_bytes:
                return self._uploader.upload(record, frame, length, self._report(record.key))
            if self._durable:
                self._ship_full()
            return self._uploader.stage(record, frame, length, prepared=True)

    def prepare_link(self, record: Record) -> None:
        """Prepare a version whose frame lies in the bucket already, at the place of `record`."""
        self._guard_write()
        self._uploader.prepare_link(record)

    def prepare_removal(self, key: str, version: int) -> None:
        """Prepare that `key` is absent as of `version`."""
        self._guard_write()
        with self._naming(key, 0, "removed from the archive"):
            if not self._stages:
                self._availability.require()
            self._uploader.prepare_removal(key, version)

    def prepare_terms(self, record: Record) -> None:
        """Prepare other terms for the version of `record`."""
        self._guard_write()
        self._uploader.prepare_terms(record)

    def commit(self, key: str, version: int) -> None:
        """Let what was prepared under this number count. Idempotent."""
        self._guard_write()
        self._uploader.commit(key, version)
        if self._durable:
            self._ship_full()

    def abort(self, key: str, version: int) -> None:
        """Forget what was prepared under this number. Idempotent."""
        self._guard_write()
        self._uploader.abort(key, version)

    def prepared(self) -> list[Prepared]:
        """Return what was neither committed nor aborted."""
        self._guard()
        return self._uploader.prepared()

    def amend(self, record: Record) -> None:
        """Give the version of `record`, if it is the newest of its key, other terms."""
        self._guard_write()
        self._uploader.amend(record)

    def read(self, record: Record) -> memoryview:
        """Return a frame; a large one comes by parallel ranged requests into one buffer."""
        self._reach_for(record)
        with self._naming(record.key, record.stored, "read back"):
            return self._reader.read(record)

    def read_range(self, record: Record, offset: int, length: int) -> memoryview:
        """Return `length` bytes of a frame from `offset` on, transferring only those.

        Raises:
            CorruptDataError: the object is absent or shorter than the record says.
            ArchivedError: the object must be restored from its archive class first.
            UnavailableError: the store did not answer.
        """
        self._reach_for(record)
        with self._naming(record.key, length, "read back"):
            return self._reader.read_range(record, offset, length)

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frames of many records, in order; neighbours in a pack share a request."""
        self._reach_for(*records)
        return self._reader.read_many(records, self._naming)

    def read_ranges(self, record: Record, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return stretches of a frame; only they travel, all at once."""
        self._reach_for(record)
        with self._naming(record.key, sum(stop - start for start, stop in spans), "read back"):
            return self._reader.read_ranges(record, spans)

    def restore(self, records: Sequence[Record], *, timeout: float, days: int = 7) -> None:
        """Bring objects back from their archive class, and wait until they can be read.

        Raises:
            ArchivedError: they were not all there after `timeout` seconds; the restore goes on.
            MissingPackageError: boto3, which sends the request to S3, is not installed.
        """
        self._reach_for(*records)
        size = sum(record.stored for record in records)
        with self._naming(records[0].key, size, "restored in time"):
            self._reader.restore(records, timeout, days)

    def lookup(self, key: str) -> Record | None:
        """Return the newest record of `key`, from the map on this machine."""
        self._guard()
        return self._index.find(key)

    def holds(self, record: Record) -> bool:
        """Return whether the version of `record` is here, if only prepared, or replaced by another.

        A reader, whose map may be older than what told it of `record`, reads the bucket again.
        """
        self._guard()
        if self._knows(record):
            return True
        if not self._read_only:
            mine = Prepared(record.key, record.version, "value")
            return mine in self._uploader.prepared()
        place = ObjectLocation.decode(record.place)
        if self._reader.staged(place) is not None:
            return True
        self.refresh()  # Afterwards: what is staged no more has reached the bucket.
        return self._knows(record) or self._collector.holds(place.token)

    def remove(self, key: str, version: int) -> None:
        """Make `key` absent; the bucket learns it as it learns of a small value."""
        self._guard_write()
        with self._naming(key, 0, "removed from the archive"):
            if not self._stages:
                self._availability.require()
            needed = self._uploader.bury(key, version)
            if needed and not self._durable:
                self.sync()

    def clear(self, version: int, *, purge: bool = False) -> None:
        """Make every version up to `version` absent; with `purge` unlink their objects at once."""
        self._guard_write()
        self._availability.require()
        self._uploader.bury_all(version)
        self.sync()
        if purge:
            self.reclaim(grace_seconds=0)

    def removed(self, key: str) -> int:
        """Return as of which version `key` is known to be absent, 0 where nothing says so."""
        self._guard()
        return self._index.removed(key)

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield records in key order, from the map on this machine."""
        self._guard()
        return self._index.scan(prefix, after)

    def records(self) -> Iterator[Record]:
        """Yield the record of every key in the archive."""
        return self.scan()

    def usage(self) -> Usage:
        """Return what is held, staged values included."""
        self._guard()
        return self._index.usage()

    def last_version(self) -> int:
        """Return the highest version the archive ever heard of."""
        self._guard()
        return max(self._writer.lease.version, self._db.number("last_version"))

    def sync(self) -> None:
        """Upload what is staged."""
        self._guard()
        if not self._read_only and (self.away is None or self._uploader.staged_since() is not None):
            self._availability.require()
            self._writer.ensure()
            self._uploader.flush()

    def protect(self, *places: bytes, holder: str = "snapshot") -> None:
        """Keep the objects at `places` from being unlinked until `holder` releases them."""
        self._guard_write()
        self._availability.require()
        with self._maintaining:
            retention.pin(
                self._store,
                self._db,
                holder,
                [ObjectLocation.decode(place).token for place in places],
            )

    def unprotect(self, *places: bytes, holder: str = "snapshot") -> None:
        """Release the objects at `places`, or all that `holder` protects when none is given."""
        self._guard_write()
        self._availability.require()
        with self._maintaining:
            retention.unpin(
                self._store,
                self._db,
                holder,
                [ObjectLocation.decode(place).token for place in places],
            )

    def holders(self) -> dict[str, int]:
        """Return who keeps objects from being unlinked, and how many."""
        return retention.holders(self._db)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Move and unlink nothing in the block, so that what `place_of` says stays true."""
        with self._maintaining:
            yield

    def place_of(self, record: Record) -> bytes:
        """Return where the frame of a record lies now: reclamation may have moved it."""
        known = self._index.find(record.key)
        same = known is not None and known.version == record.version
        return known.place if known is not None and same else record.place

    def require_there(self, *places: bytes) -> None:
        """Raise CorruptDataError unless the objects at `places` lie in the bucket."""
        self._reach()
        retention.require_there(self._store, [ObjectLocation.decode(place) for place in places])

    def reclaim(self, grace_seconds: float | None = None) -> Reclaimed:
        """Move live frames out of sparse packs and unlink objects that were dead for long enough.

        A record whose frame was moved stays readable: its place is looked up anew.
        """
        self._guard_write()
        self._availability.require()
        grace = self._grace_seconds if grace_seconds is None else grace_seconds
        with self._maintaining:
            self._writer.ensure()
            return self._collector.reclaim(grace)

    def maintain(self) -> None:
        """Do what is due: renew the lease, upload what was staged for long, sum up, reclaim."""
        self._guard_write()
        self._writer.ensure()
        oldest = self._uploader.staged_since()
        if oldest is not None and self._wall() - oldest >= self._flush_seconds:
            self._uploader.flush()
        self._recover()
        # Who holds the archive still may take long, and what is staged must not wait for him.
        if self._collector.is_due() and self._maintaining.acquire(blocking=False):
            try:
                self._collector.write_manifests(replace=_MAY_NOT_DELETE not in self.notes)
                if _MAY_NOT_DELETE not in self.notes:
                    self._collector.reclaim(self._grace_seconds)
            finally:
                self._maintaining.release()

    def refresh(self) -> bool:
        """Read what was added to the bucket, for a read-only backend; return whether there was."""
        self._reach()
        changed = catch_up(self._bucket, self._begins(), self._wall())
        self.damage = found_damage(self._db)
        return changed

    def check(
        self, *, repair: bool = False, dry_run: bool = False, progress: Step | None = None
    ) -> list[Problem]:
        """Compare the map with the bucket, and verify every object in it.

        `repair` forgets values whose objects are gone or whose frames are damaged, here and for
        other machines, and writes anew what only the map can still make sense of.
        """
        self._reach()
        if repair:
            self._writer.renew()  # A directory that is not mounted any more holds no lease.
        if self._read_only:
            self.refresh()  # What its map does not know is no problem of the bucket.
        problems = BucketCheck(
            self._bucket, self._reader.read, self._verify, self._uploader, self._collector,
            self._maintaining, self._wall(),
        ).run(repair and not dry_run, progress)  # fmt: skip
        self.damage, self.missing = found_damage(self._db), []
        return problems

    def close(self) -> None:
        """Upload what is staged and release everything. Idempotent.

        What could not be uploaded stays staged in the directory, and the error says so. After an
        interrupt, a second call goes on.
        """
        if self._ended or self._pid != os.getpid():
            return
        with self._closing:
            self._closed = True
        for keeper in self._keepers:
            keeper.stop()
        if not self._shipped:
            try:
                self._ship_last()
            except Exception:
                self._end()
                raise
        self._end()

    def _ship_last(self) -> None:
        """Upload what is staged, and give the lease back."""
        try:
            if self.away is None:
                self._writer.ensure()
                self._uploader.flush()
                self._collector.write_manifests(replace=_MAY_NOT_DELETE not in self.notes)
                self._writer.release()
            elif self._uploader.staged_since() is not None:
                self._availability.require()
        except OSError as error:
            staged = self._uploader.waiting()
            if not staged:
                raise
            what = (
                "they stay there, and the next manager of the store uploads them"
                if self._lasting
                else "they end with it, for the manager had no storage_path"
            )
            raise type(error)(
                f"{len(staged)} small values of the archive ({some_of(staged)}) are staged in "
                f"{self._db.path.parent} and did not reach the bucket; {what}. {error}"
            ) from error.__cause__

    def _end(self) -> None:
        self._shipped = True
        self._store.close()  # So that whoever waits for an answer of the bucket waits no longer.
        self._availability.stop(self._let_go)
        self._ended = True

    def _connect(self, takeover: bool, lease_seconds: float) -> None:
        """Become the writer, read the bucket if the map is not its latest, and begin the chores."""
        if self._read_only:
            self._require_archive()
            self._adopt()
            return
        self._probe()
        wrote = self._db.number("epoch") > 0 and self._db.number("physical") > 0
        before = self._writer.acquire(takeover=takeover, wrote=wrote)
        try:
            self._begin(before)
            # The lease has a thread of its own: an upload may take longer than the lease lasts.
            keepers = [
                Periodic(self._writer.renew, "lease", seconds=lease_seconds / 3),
                Periodic(self.maintain, "glacier", seconds=self._flush_seconds),
            ]
            with self._closing:
                if self._closed:
                    raise ClosedError("The archive was closed before it was reached.")
                self._keepers = keepers
        except Exception:
            self._writer.release()
            raise  # An interrupt tells the bucket nothing, which may be what it was waiting for.
        for keeper in keepers:
            keeper.start()

    def _begin(self, before: Lease | None) -> None:
        lease, number = self._writer.lease, self._db.number
        if not number("adopted") or number("epoch") != lease.epoch:
            self._adopt()
            self.adopted = True
            with self._db.transaction() as db:
                db.set("epoch", lease.epoch)
            if before is not None and before.epoch != lease.epoch:
                self._writer.begin_epoch(number("sequence") + 1)
        began = self._uploader.disown()
        if self.adopted or began:
            self._abort_uploads(None if self.adopted else began)
        self._recover()
        self.damage = found_damage(self._db)

    def _require_archive(self) -> None:
        """Raise where nobody has ever written: a typing mistake, or a share that is not mounted."""
        try:
            holder = self._writer.holder()
        except StoreLockedError:
            return  # It is damaged, so it is there.
        if holder is None and not any(True for _ in self._store.list("objects/")):
            raise RefusedError(
                f"There is no archive at {self._store.url}: nobody has written there. Is it "
                "mounted, and the URL the right one?"
            )

    def _adopt(self) -> None:
        self.missing = adopt(self._bucket, self._begins(), self._wall())
        self.damage = found_damage(self._db)

    def _begins(self) -> dict[int, int]:
        """Return where each epoch begins; a reader goes on without, if the lock is damaged."""
        try:
            return self._writer.begins()
        except StoreLockedError as error:
            if not self._read_only:
                raise
            note_damage(self._db, LOCK_NAME, str(error))
            return {}

    def _probe(self) -> None:
        """Find out, once for a store, whether the bucket keeps two writers apart."""
        found, undeletable = self._db.number("conditions"), self._db.number("undeletable")
        if found == _UNTRIED or undeletable:
            if found == _UNTRIED:
                found = _HONOURED if self._store.honours_conditions() else _IGNORED
            try:
                self._store.forget_probe()
                undeletable = False
            except RefusedError:
                self._note(_MAY_NOT_DELETE)
                undeletable = True
            with self._db.transaction() as db:
                db.set("conditions", found)
                db.set("undeletable", undeletable)
        if found == _IGNORED:
            self._writer.unconditional = True
            self._note(_TWO_WRITERS)

    def _recover(self) -> None:
        """Delete what failed uploads have left, if that is allowed."""
        try:
            self._uploader.recover()
        except RefusedError:
            self._note(_MAY_NOT_DELETE)

    def _abort_uploads(self, names: list[str] | None) -> None:
        if self._store.abandoned_uploads(names) is None and names is not None:
            self._note(_PARTS)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _report(self, key: str) -> Callable[[int, int], None] | None:
        return None if self._progress is None else partial(self._progress, key)

    def _ship_full(self) -> None:
        try:
            self._uploader.flush_full(self._writer.ensure)
        except UnavailableError:
            # The value is durable here; the pack stays staged, and a full stage is refused.
            return

    def _rewrite(self, record: Record, frame: memoryview) -> Record:
        return self._uploader.stage(record, [frame], len(frame), prepared=False)

    @property
    def _stages(self) -> bool:
        """Return whether small values and removals are durable on this machine first."""
        return self._durable and self.known

    def _knows(self, record: Record) -> bool:
        known = self._index.find(record.key)
        return known is not None and known.version >= record.version

    def _reach(self) -> None:
        self._guard()
        self._availability.require()

    def _reach_for(self, *records: Record) -> None:
        """Raise where the bucket is away and one of `records` is not staged on this machine."""
        self._guard()
        if self.away is not None:
            for record in records:
                if self._reader.staged(ObjectLocation.decode(record.place)) is None:
                    with self._naming(record.key, record.stored, "read back"):
                        self._availability.require()

    def _guard_write(self) -> None:
        self._guard()
        if self._read_only:
            raise StorageError("The archive was opened read-only.")

    def _guard(self) -> None:
        if self._pid != os.getpid():
            raise ForkedError(
                "The archive was opened by the parent process, and its client does not work in a "
                "forked child. Open it in the child, or start processes by spawn or forkserver."
            )
        if self._closed:
            raise ClosedError("The archive is closed. Open it again.")

    def _let_go(self) -> None:
        for name in ("_transfer", "_state", "_store"):
            if name in self.__dict__:
                getattr(self, name).close()
        self._directory_lock.release()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    @contextmanager
    def _naming(self, key: str, length: int, done: str) -> Iterator[None]:
        try:
            yield
        except StoreLockedError:
            raise
        except OSError as error:
            raise type(error)(
                f"Key {key!r} ({format_size(length)}) was not {done}. {error}"
            ) from error.__cause__
