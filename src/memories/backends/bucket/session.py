"""One opening of a bucket: as its writer, which holds the lease, or as a reader.

At an opening the map on this machine is brought up to date, and what an earlier writer left behind
is found: uploads that were interrupted, objects that cannot be read, conditions the store ignores.
"""

from __future__ import annotations

from collections.abc import Callable

from memories.backends.bucket.damage import Damage, known_damage, record_damage
from memories.backends.bucket.data_key import ArchiveKey
from memories.backends.bucket.lease import LOCK_NAME, Lease, WriterLease
from memories.backends.bucket.rebuild import BucketParts, adopt, catch_up
from memories.backends.bucket.uploader import Uploader
from memories.errors import RefusedError, StoreLockedError

_UNTRIED, _HONOURED, _IGNORED = range(3)  # What is known of the store's conditional writes.
_TWO_WRITERS = (
    "the archive %s ignores If-None-Match, by which two writers are kept apart: see to it yourself "
    "that only one store writes there at a time"
)
_MAY_NOT_DELETE = (
    "the archive %s may not be deleted from with these credentials: what was overwritten or "
    "removed stays there and is billed, until it is opened with credentials that may delete"
)
_PARTS = (
    "the archive %s may hold parts of an upload that was killed, which are billed and cannot be "
    "listed from here: set a lifecycle rule that aborts incomplete multipart uploads, or install "
    "boto3"
)


class BucketSession:
    """The opening of a bucket, and what was found in it.

    Attributes:
        lease: The right to write there.
        key: The data key of an encrypted archive.
        adopted: Whether the map was read from the bucket at this opening.
        notes: What the user should know of the bucket, with %s for its URL.
        missing: Keys whose objects the bucket did not hold at this opening.
        damage: Objects that could not be read at this opening, or in a check since.
    """

    def __init__(
        self,
        bucket: BucketParts,
        lease: WriterLease,
        uploader: Uploader,
        key: ArchiveKey,
        *,
        read_only: bool,
        wall: Callable[[], float],
    ) -> None:
        self._bucket = bucket
        self._uploader = uploader
        self.key = key
        self._read_only = read_only
        self._wall = wall
        self.lease = lease
        self.adopted = read_only
        self.notes: list[str] = []
        self.missing: list[str] = []
        self.damage: list[Damage] = []

    def start_reading(self) -> None:
        """Read the map from the bucket.

        Raises:
            RefusedError: nothing was ever written there.
            EncryptionKeyError: it is encrypted with another key, or not encrypted.
        """
        self.key.look()
        self._require_archive()
        self.key.require()
        self._adopt()

    def start_writing(self, *, takeover: bool) -> None:
        """Acquire the lease, and read the map from the bucket if another store wrote there since.

        Raises:
            StoreLockedError: another store holds the lease.
            EncryptionKeyError: it is encrypted with another key, or not encrypted.
        """
        self.key.look()
        self._probe()
        number = self._bucket.db.number
        wrote = number("epoch") > 0 and number("physical") > 0
        before = self.lease.acquire(takeover=takeover, wrote=wrote)
        try:
            self._begin(before)
        except BaseException:
            self.lease.release()
            raise

    def refresh(self) -> bool:
        """Read what was added to the bucket since, as a reader; return whether there was any."""
        changed = catch_up(self._bucket, self._epoch_starts(), self._wall())
        self.damage = known_damage(self._bucket.db)
        return changed

    def reread_damage(self) -> None:
        """Update the attributes after a check."""
        self.damage, self.missing = known_damage(self._bucket.db), []

    @property
    def may_delete(self) -> bool:
        """Return whether the credentials allow to delete objects, as far as is known."""
        return _MAY_NOT_DELETE not in self.notes

    def delete_failed_uploads(self) -> None:
        """Delete what failed uploads have left, if the credentials allow it."""
        try:
            self._uploader.delete_failed()
        except RefusedError:
            self._add_note(_MAY_NOT_DELETE)

    def _begin(self, before: Lease | None) -> None:
        lease, db = self.lease.lease, self._bucket.db
        self.key.create()
        if not db.number("adopted") or db.number("epoch") != lease.epoch:
            self._adopt()
            self.adopted = True
            with db.transaction():
                db.set("epoch", lease.epoch)
            if before is not None and before.epoch != lease.epoch:
                self.lease.begin_epoch(db.number("sequence") + 1)
        began = self._uploader.mark_interrupted()
        if self.adopted or began:
            self._abort_uploads(None if self.adopted else began)
        self.delete_failed_uploads()
        self.damage = known_damage(db)

    def _require_archive(self) -> None:
        """Raise if nothing was ever written: a wrong URL, or a share that is not mounted."""
        try:
            holder = self.lease.holder()
        except StoreLockedError:
            return  # The lock object is damaged, so it exists.
        store = self._bucket.store
        if holder is None and not any(True for _ in store.list("objects/")):
            raise RefusedError(
                f"there is no archive at {store.url}, for nothing was ever written there: is it "
                "mounted, and the URL the right one?"
            )

    def _adopt(self) -> None:
        self.missing = adopt(self._bucket, self._epoch_starts(), self._wall())
        self.damage = known_damage(self._bucket.db)

    def _epoch_starts(self) -> dict[int, int]:
        """Return where each epoch begins; a reader goes on without, if the lock is damaged."""
        try:
            return self.lease.begins()
        except StoreLockedError as error:
            if not self._read_only:
                raise
            record_damage(self._bucket.db, LOCK_NAME, str(error))
            return {}

    def _probe(self) -> None:
        """Find out, once for a store, whether the bucket keeps two writers apart."""
        db, store = self._bucket.db, self._bucket.store
        found, undeletable = db.number("conditions"), db.number("undeletable")
        if found == _UNTRIED or undeletable:
            if found == _UNTRIED:
                found = _HONOURED if store.honours_conditions() else _IGNORED
            try:
                store.forget_probe()
                undeletable = False
            except RefusedError:
                self._add_note(_MAY_NOT_DELETE)
                undeletable = True
            with db.transaction():
                db.set("conditions", found)
                db.set("undeletable", undeletable)
        if found == _IGNORED:
            self.lease.unconditional = True
            self._add_note(_TWO_WRITERS)

    def _abort_uploads(self, names: list[str] | None) -> None:
        if self._bucket.store.abandoned_uploads(names) is None and names is not None:
            self._add_note(_PARTS)

    def _add_note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
