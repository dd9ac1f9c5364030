"""The glacier tier's backend: frames in an object store that describes itself.

A frame stays until it is overwritten or removed. Large frames are objects of their own; small ones
are staged on this machine and uploaded together, in packs. The parts are made and joined here:
`session` opens the bucket, `changes`, `staging` and `uploader` write, `reader` reads, and
`maintenance` reclaims space. Longer than 600 lines because it is the one class of all that an
archive offers, most of which it only passes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, cast

from memories.backends.base import Backend, Problem, Usage
from memories.backends.bucket import retention
from memories.backends.bucket.availability import Availability
from memories.backends.bucket.changes import Changes, PreparedChange
from memories.backends.bucket.check import BucketCheck, Verify
from memories.backends.bucket.damage import Damage
from memories.backends.bucket.data_key import ArchiveKey
from memories.backends.bucket.garbage_collection import GarbageCollector, Reclaimed
from memories.backends.bucket.lease import Lease, WriterLease
from memories.backends.bucket.local_directory import LocalDirectory
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.maintenance import CLOSED, BucketMaintenance
from memories.backends.bucket.object_index import ObjectIndex
from memories.backends.bucket.objectstore import Absent, Buffer, ObjectStore
from memories.backends.bucket.open_store import open_store
from memories.backends.bucket.options import BucketLimits, Progress, archive_options
from memories.backends.bucket.pack import body_bytes
from memories.backends.bucket.parallel_download import ParallelDownload
from memories.backends.bucket.reader import Reader, naming
from memories.backends.bucket.rebuild import BucketParts
from memories.backends.bucket.retry import RetryPolicy
from memories.backends.bucket.seal import ArchiveSeal
from memories.backends.bucket.sealed_reader import SealedReader
from memories.backends.bucket.session import BucketSession
from memories.backends.bucket.staging import StagedPacks
from memories.backends.bucket.throttle import ThrottledStore
from memories.backends.bucket.uploader import Uploader
from memories.errors import ClosedError, ForkedError, MemoriesError, StorageError, UnavailableError
from memories.foundation.clock import SystemClock
from memories.foundation.keys import some_of
from memories.model.record import Record
from memories.progress import Step
from memories.sealing.key_files import KeyRotation
from memories.sealing.master_key import EncryptionKey

_STATEMENTS = "stores/"  # What says whose signed values are here.
_MAX_STATEMENT = 4096


class BucketBackend(Backend):
    """Keeps frames as objects under a prefix of an object store.

    With a `directory` small values are durable there first and reach the bucket in packs: when one
    is full, after `flush_seconds`, at `sync` and at `close`. Without one every `write` returns
    after its upload. A new `directory` is filled from what the bucket says of itself.

    Args:
        url: A path, `file://`, `s3://`, `gs://`, `az://`, or an object store.
        storage_options: Credentials, endpoint, and so on, under the names obstore or fsspec know;
            and `concurrency`, `bytes_per_second` and `progress`, which are our own.
        directory: Where the map and the staged values are; None for a private temporary one.
        read_only: Acquire no lease and write nothing; `refresh` looks again.
        takeover: Become the writer although another store holds the lease.
        limits: Sizes, times and rates.
        retry: How often and how long a failed request is repeated.
        progress: Called with the key, the bytes done and all bytes, in transfers of megabytes.
        full: Whether each commit waits for this machine's disk.
        version: Returns the highest version that the store has given; the next writer of the bucket
            continues after it.
        wall: The clock of object ages, in seconds.
        verify: Raises CorruptDataError for a damaged frame; called by `check`.
        away_seconds: Open all the same if the bucket does not answer within so many seconds; it is
            `away` then, until `resume` brings it back. None raises instead.
        lasting: Whether `directory` outlives this backend.
        encryption: The master key of an encrypted archive; a new archive is encrypted with it.

    Raises:
        UnavailableError: the bucket does not answer.
        StoreLockedError: another store writes under this prefix, or this one is open already.
        EncryptionKeyError: the archive is encrypted and there is no key, or the other way round, or
            this is not the key.
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
        limits: BucketLimits | None = None,
        retry: RetryPolicy | None = None,
        progress: Progress | None = None,
        full: bool = False,
        version: Callable[[], int] = lambda: 0,
        wall: Callable[[], float] | None = None,
        verify: Verify | None = None,
        away_seconds: float | None = None,
        lasting: bool = True,
        encryption: EncryptionKey | None = None,
    ) -> None:
        self._pid = os.getpid()
        self._read_only = read_only
        self._lasting = lasting
        self._verify = verify
        self._wall = wall or SystemClock().wall
        self._closed = self._ended = False
        self._flushed = read_only  # Whether nothing is left that has to reach the bucket.
        options, limits, progress = archive_options(
            storage_options or {}, limits or BucketLimits(), progress
        )
        self._limits = limits
        plain = url if isinstance(url, ObjectStore) else open_store(url, options, retry)
        store = ThrottledStore(plain, 2 * limits.concurrency, limits.bytes_per_second)
        self._local = LocalDirectory(
            None if read_only else directory, full=full, wal_bytes=limits.wal_bytes
        )
        db = self._local.db
        index = ObjectIndex(db)
        downloads = ParallelDownload(store, limits.concurrency)
        self._bucket = BucketParts(downloads, store, db, index)
        try:
            key = ArchiveKey(store, db, encryption)
            self._packs = StagedPacks(
                store.url, db, index, pack_bytes=limits.pack_bytes, wall=self._wall
            )
            self._changes = Changes(db, index, self._packs, self._wall)
            self._uploader = Uploader(
                store, db, index, self._packs, self._changes, self._wall, progress
            )
            raw = Reader(self._bucket, self._packs, directory if read_only else None, progress)
            self._reader = SealedReader(raw, db, whole=progress is not None)
            lease = WriterLease(
                store, db.identity(), limits.lease_seconds,
                lambda: max(version(), db.number("last_version")),
            )  # fmt: skip
            self._session = BucketSession(
                self._bucket, lease, self._uploader, key, read_only=read_only, wall=self._wall
            )
            collector = GarbageCollector(
                self._bucket, self._packs, self._uploader,
                raw.read, self._changes.rewrite, self._wall,
            )  # fmt: skip
            self._maintenance = BucketMaintenance(
                self._bucket, self._session, self._packs, self._uploader,
                collector, limits, self._wall,
            )  # fmt: skip
            self._availability = Availability(store.url, partial(self._connect, takeover))
        except BaseException:
            self._release()
            raise
        try:
            self._availability.open(away_seconds)
        except BaseException:
            self._closed = True
            self._maintenance.stop()
            self._end()
            raise

    @property
    def url(self) -> str:
        """Return where the archive is, without credentials."""
        return self._bucket.store.url

    @property
    def away(self) -> MemoriesError | None:
        """Return why the bucket cannot be used, None while it can."""
        return self._availability.away

    @property
    def known(self) -> bool:
        """Return whether the map on this machine was ever read from the bucket."""
        db = self._bucket.db
        return bool(db.number("adopted")) and (db.seal is not None or not db.encrypted)

    @property
    def adopted(self) -> bool:
        """Return whether the map was read from the bucket at this opening."""
        return self._session.adopted

    @property
    def notes(self) -> list[str]:
        """Return what the user should know of the bucket, with %s for its URL."""
        return self._session.notes

    @property
    def missing(self) -> list[str]:
        """Return the keys whose objects the bucket did not hold at this opening."""
        return self._session.missing

    @property
    def damage(self) -> list[Damage]:
        """Return the objects that could not be read at this opening, or in a check since."""
        return self._session.damage

    def resume(self, reconnected: Callable[[], None], available: Callable[[], None]) -> None:
        """Try in the background to reach a bucket that is away; then call `reconnected`.

        It is away until that has succeeded; `available` is called when it is not away any more.
        """
        self._availability.resume(reconnected, available)

    def rotate_key(self, key: EncryptionKey, to: EncryptionKey | None = None) -> KeyRotation:
        """Wrap the data key of an encrypted archive anew; see `ArchiveKey.rotate`."""
        self._guard_write()
        self._availability.require()
        return self._session.key.rotate(key, to)

    def holder(self) -> Lease | None:
        """Return the lease of the store that writes here, or wrote last; None if there is none."""
        self._require()
        return self._session.lease.holder()

    def write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Write a frame: a large one is uploaded now, a small one with others (see the class)."""
        written = self.prepare(record, frame)
        self.commit(written.key, written.version)
        if not self._local.durable and written.stored <= self._limits.small_bytes:
            with naming(record.key, written.stored, "archived"):
                self._uploader.flush_through(ObjectLocation.decode(written.place).token)
        return written

    def prepare(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Write a frame that is the value of its key only once it is committed.

        Until then the version before it stays. What a killed process has prepared is there at the
        next opening (`prepared`), to be committed or aborted as another history says.
        """
        self._guard_write()
        length = body_bytes(frame)
        if self._bucket.db.encrypted:
            length = ArchiveSeal.frame_length(length)
        with naming(record.key, length, "archived"):
            large = length > self._limits.small_bytes
            if large or not self._stages:
                self._availability.require()
                self._session.lease.ensure()
            head, written = b"", cast("Sequence[Buffer]", frame)
            if self._bucket.db.encrypted:
                head, sealed = self._known_seal().frame(record.key, frame)
                written = [sealed]
            if large:
                return self._uploader.upload(record, written, length, head)
            if self._local.durable:
                self._flush_full()
            return self._changes.stage(record, written, length, head, prepared=True)

    def prepare_link(self, record: Record) -> None:
        """Prepare a version whose frame is in the bucket already, at the place of `record`."""
        self._guard_write()
        self._changes.prepare_link(record)

    def prepare_removal(self, key: str, version: int) -> None:
        """Prepare that `key` is absent as of `version`."""
        self._guard_write()
        with naming(key, 0, "removed from the archive"):
            if not self._stages:
                self._availability.require()
            self._changes.prepare_removal(key, version)

    def prepare_terms(self, record: Record) -> None:
        """Prepare other terms for the version of `record`."""
        self._guard_write()
        self._changes.prepare_terms(record)

    def commit(self, key: str, version: int) -> None:
        """Make what was prepared under this number part of the history. Idempotent."""
        self._guard_write()
        self._changes.commit(key, version)
        if self._local.durable:
            self._flush_full()

    def abort(self, key: str, version: int) -> None:
        """Forget what was prepared under this number. Idempotent."""
        self._guard_write()
        if self._changes.abort(key, version):
            self._maintenance.delete_failed_soon()

    def prepared(self) -> list[PreparedChange]:
        """Return what was neither committed nor aborted."""
        self._guard()
        return self._changes.prepared()

    def amend(self, record: Record) -> None:
        """Give the version of `record`, if it is the newest of its key, other terms."""
        self._guard_write()
        self._changes.amend(record)

    def read(self, record: Record) -> memoryview:
        """Return a frame; a large one comes by parallel ranged requests into one buffer."""
        self._require_for(record)
        with naming(record.key, record.stored, "read back"):
            return self._reader.read(record)

    def read_range(self, record: Record, offset: int, length: int) -> memoryview:
        """Return `length` bytes of a frame from `offset` on, transferring only those.

        Raises:
            CorruptDataError: the object is absent or shorter than the record says.
            ArchivedError: the object must be restored from its archive class first.
            UnavailableError: the store did not answer.
        """
        self._require_for(record)
        with naming(record.key, length, "read back"):
            return self._reader.read_range(record, offset, length)

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frames of many records, in order; neighbours in a pack share a request."""
        self._require_for(*records)
        return self._reader.read_many(records)

    def read_ranges(self, record: Record, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return ranges of a frame, transferring only those, all at once."""
        self._require_for(record)
        with naming(record.key, sum(stop - start for start, stop in spans), "read back"):
            return self._reader.read_ranges(record, spans)

    def ranged_length(self, record: Record) -> int | None:
        """Return the length of a frame, as its reader sees it."""
        return (
            ArchiveSeal.opened_length(record.stored) if self._bucket.db.encrypted else record.stored
        )

    def restore(self, records: Sequence[Record], *, timeout: float, days: int = 7) -> None:
        """Bring objects back from their archive class, and wait until they can be read.

        Raises:
            ArchivedError: they were not all there after `timeout` seconds; the restore goes on.
            MissingPackageError: boto3, which sends the request to S3, is not installed.
        """
        self._require_for(*records)
        size = sum(record.stored for record in records)
        with naming(records[0].key, size, "restored in time"):
            self._reader.restore(records, timeout, days)

    def lookup(self, key: str) -> Record | None:
        """Return the newest record of `key`, from the map on this machine."""
        self._guard()
        return self._bucket.index.find(key)

    def holds(self, record: Record) -> bool:
        """Return whether the version of `record` is here: current, replaced, or only prepared.

        A reader, whose map may be older than the source of `record`, reads the bucket again.
        """
        self._guard()
        if self._knows(record):
            return True
        if not self._read_only:
            change = PreparedChange(record.key, record.version, "value")
            return change in self._changes.prepared()
        location = ObjectLocation.decode(record.place)
        if self._reader.staged(location) is not None:
            return True
        self.refresh()  # After that check: a value that is no longer staged is in the bucket.
        return self._knows(record) or self._maintenance.collector.holds(location.token)

    def remove(self, key: str, version: int) -> None:
        """Make `key` absent; the tombstone reaches the bucket as a small value does."""
        self._guard_write()
        with naming(key, 0, "removed from the archive"):
            if not self._stages:
                self._availability.require()
            needed = self._changes.remove(key, version)
            if needed and not self._local.durable:
                self.sync()

    def clear(self, version: int, *, purge: bool = False) -> None:
        """Make every version up to `version` absent; with `purge` unlink their objects at once."""
        self._guard_write()
        self._availability.require()
        self._changes.clear(version)
        self.sync()
        if purge:
            self.reclaim(grace_seconds=0)

    def removed(self, key: str) -> int:
        """Return as of which version `key` is known to be absent, 0 if it is not known to be."""
        self._guard()
        return self._bucket.index.removed(key)

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield records in key order, from the map on this machine."""
        self._guard()
        return self._bucket.index.scan(prefix, after)

    def records(self) -> Iterator[Record]:
        """Yield the record of every key in the archive."""
        return self.scan()

    def usage(self) -> Usage:
        """Return what is held, staged values included."""
        self._guard()
        return self._bucket.index.usage()

    def last_version(self) -> int:
        """Return the highest version that the archive has recorded."""
        self._guard()
        return max(self._session.lease.lease.version, self._bucket.db.number("last_version"))

    def sync(self) -> None:
        """Upload what is staged, and delete what was uploaded and then aborted."""
        self._guard()
        if not self._read_only and (self.away is None or self._packs.staged_since() is not None):
            self._availability.require()
            self._settle()

    def protect(self, *places: bytes, holder: str = "snapshot") -> None:
        """Keep the objects at `places` from being unlinked until `holder` releases them."""
        self._guard_write()
        self._availability.require()
        self._maintenance.pin(holder, places)

    def unprotect(self, *places: bytes, holder: str = "snapshot") -> None:
        """Release the objects at `places`, or all that `holder` protects when none is given."""
        self._guard_write()
        self._availability.require()
        self._maintenance.unpin(holder, places)

    def holders(self) -> dict[str, int]:
        """Return the holders that keep objects from being unlinked, and how many each."""
        return retention.holders(self._bucket.db)

    def statement(self, name: str) -> bytes | None:
        """Return the identity of the archive, or a statement about a store; None if absent."""
        self._require()
        try:
            return bytes(self._bucket.store.get_range(f"{_STATEMENTS}{name}", 0, _MAX_STATEMENT))
        except Absent:
            return None

    def put_statement(self, name: str, data: bytes) -> None:
        """Keep a statement in the place of what is kept under its name."""
        self._guard_write()
        self._availability.require()
        self._session.lease.ensure()
        self._bucket.store.put(f"{_STATEMENTS}{name}", [data])

    def statements(self) -> list[str]:
        """Return the names of all statements."""
        self._require()
        found = self._bucket.store.list(_STATEMENTS)
        return sorted(stat.name.removeprefix(_STATEMENTS) for stat in found)

    def paused(self) -> AbstractContextManager[None]:
        """Move and unlink nothing in the block, so that the results of `place_of` stay true."""
        return self._maintenance.paused()

    def place_of(self, record: Record) -> bytes:
        """Return where the frame of a record is now: garbage collection may have moved it."""
        known = self._bucket.index.find(record.key)
        same = known is not None and known.version == record.version
        return known.place if known is not None and same else record.place

    def require_there(self, *places: bytes) -> None:
        """Raise CorruptDataError unless the objects at `places` are in the bucket."""
        self._require()
        locations = [ObjectLocation.decode(place) for place in places]
        retention.require_there(self._bucket.store, locations)

    def reclaim(self, grace_seconds: float | None = None) -> Reclaimed:
        """Move live frames out of sparse packs and unlink objects that were dead for long enough.

        A record whose frame was moved stays readable: its place is looked up anew.
        """
        self._guard_write()
        self._availability.require()
        return self._maintenance.reclaim(grace_seconds)

    def maintain(self) -> None:
        """Do what is due: renew the lease, upload what was staged for long, sum up, reclaim."""
        self._guard_write()
        self._maintenance.run()

    def refresh(self) -> bool:
        """Read what was added to the bucket, for a read-only backend; return whether there was."""
        self._require()
        return self._session.refresh()

    def check(
        self, *, repair: bool = False, dry_run: bool = False, progress: Step | None = None
    ) -> list[Problem]:
        """Compare the map with the bucket, and verify every object in it.

        `repair` forgets values whose objects are gone or whose frames are damaged, here and for
        other machines, and writes anew what only the map can still make sense of.
        """
        self._require()
        if repair:
            self._session.lease.renew()  # A directory that is not mounted any more holds no lease.
        if self._read_only:
            self.refresh()  # What only its map lacks is not a problem of the bucket.
        maintenance = self._maintenance
        problems = BucketCheck(
            self._bucket, self._reader.read, self._verify, self._uploader, self._changes,
            maintenance.collector, maintenance.lock, self._wall(),
        ).run(repair and not dry_run, progress)  # fmt: skip
        self._session.reread_damage()
        return problems

    def close(self) -> None:
        """Upload what is staged and release everything. Idempotent.

        What could not be uploaded stays staged in the directory, and the error says so. After an
        interrupt, a second call goes on.
        """
        if self._ended or self._pid != os.getpid():
            return
        self._closed = True
        self._maintenance.stop()
        if not self._flushed:
            try:
                self._flush_last()
            except Exception:
                self._end()
                raise
        self._end()

    def _flush_last(self) -> None:
        """Upload what is staged, and release the lease."""
        try:
            if self.away is None:
                self._settle()
                self._maintenance.write_manifests()
                self._session.lease.release()
            elif self._packs.staged_since() is not None:
                self._availability.require()
        except OSError as error:
            staged = self._packs.keys()
            if not staged:
                raise
            what = (
                "they stay there, and the next manager of the store uploads them"
                if self._lasting
                else "they end with it, because the manager had no storage_path"
            )
            raise type(error)(
                f"{len(staged)} small values of the archive ({some_of(staged)}) are staged in "
                f"{self._bucket.db.path.parent} and did not reach the bucket; {what}: {error}"
            ) from error.__cause__

    def _settle(self) -> None:
        self._session.lease.ensure()
        # A fresh machine would take an aborted version for the newest: it has the higher number.
        self._session.delete_failed_uploads()
        self._uploader.flush()

    def _end(self) -> None:
        self._flushed = True
        self._bucket.store.close()  # A thread that waits for an answer of the bucket fails now.
        self._availability.stop(self._release)
        self._ended = True

    def _release(self) -> None:
        self._bucket.downloads.close()
        self._bucket.store.close()
        self._local.close()

    def _connect(self, takeover: bool) -> None:
        """Open the bucket as its reader, or as its writer with threads of its own."""
        if self._read_only:
            self._session.start_reading()
            return
        self._session.start_writing(takeover=takeover)
        try:
            threads = self._maintenance.make_threads()
        except BaseException:
            self._session.lease.release()
            raise
        for thread in threads:
            thread.start()

    def _flush_full(self) -> None:
        try:
            self._uploader.flush_full(self._session.lease.ensure)
        except UnavailableError:
            # The value is durable here; the pack stays staged, and too many packs are refused.
            return

    def _known_seal(self) -> ArchiveSeal:
        """Return what encrypts, which the bucket or this machine's map has said."""
        seal = self._bucket.db.seal
        if seal is None:
            self._availability.require()
            raise UnavailableError(f"the data key of {self.url} is not known yet: try again")
        return seal

    @property
    def _stages(self) -> bool:
        """Return whether small values and removals are durable on this machine first."""
        return self._local.durable and self.known

    def _knows(self, record: Record) -> bool:
        known = self._bucket.index.find(record.key)
        return known is not None and known.version >= record.version

    def _require(self) -> None:
        """Raise if the bucket is away."""
        self._guard()
        self._availability.require()

    def _require_for(self, *records: Record) -> None:
        """Raise if the bucket is away and one of `records` is not staged on this machine."""
        self._guard()
        if self.away is not None:
            for record in records:
                if self._reader.staged(ObjectLocation.decode(record.place)) is None:
                    with naming(record.key, record.stored, "read back"):
                        self._availability.require()

    def _guard_write(self) -> None:
        self._guard()
        if self._read_only:
            raise StorageError("the archive was opened read-only")

    def _guard(self) -> None:
        if self._pid != os.getpid():
            raise ForkedError(
                "the archive was opened by the parent process, and its client does not work in a "
                "forked child: open it in the child, or start processes by spawn or forkserver"
            )
        if self._closed:
            raise ClosedError(CLOSED)
