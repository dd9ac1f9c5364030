"""Keeps the archive's record of a key in step with the journal's.

The journal decides. A change of the archive is prepared there, then journaled, and then committed
there. If a crash or an exception stops between two of these steps, the journal says which of both
states is right: at once after an exception, at the next opening after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from memories.errors import StorageError, StoreLockedError, UnavailableError
from memories.foundation.logging import logger
from memories.model.record import Record
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.backends.bucket import BucketBackend
    from memories.backends.bucket.changes import Change
    from memories.backends.disk import DiskBackend
    from memories.engine.tier import Tiers

Failing = Callable[[str, BaseException], None]  # Called with the key and why the archive lags.


def is_archived(record: Record) -> bool:
    """Return whether the archive holds the version of `record`, alone or besides cold."""
    return record.tier is TierName.GLACIER or bool(record.archived)


class Archive:
    """Changes of the archive, each made together with the journal.

    Every method is called with the key's lock held. Without a glacier tier nothing is archived.
    """

    def __init__(self, tiers: Tiers, journal: DiskBackend, failing: Failing) -> None:
        self._tiers = tiers
        self._journal = journal
        self._failing = failing

    @property
    def bucket(self) -> BucketBackend:
        """Return what keeps the frames."""
        return cast("BucketBackend", self._tiers.durable[TierName.GLACIER].backend)

    def holds(self, record: Record) -> bool:
        """Return whether the archive holds the version of `record`."""
        return self.bucket.holds(record)

    def commit_value(self, record: Record) -> Record:
        """Journal a version whose frame is prepared in the archive."""
        with self._step(record.key, record.version, "value"):
            return self._journal.write_note(record)

    def link(self, record: Record) -> Record:
        """Journal a version whose frame the archive holds already, for another one."""
        self.bucket.prepare_link(record)
        return self.commit_value(record)

    @contextmanager
    def removing(self, record: Record | None, version: int) -> Iterator[None]:
        """Remove the key of `record` from the archive as of `version`, if the block journals that.

        Nothing happens where the archive has no copy of it.
        """
        if record is None or not is_archived(record):
            yield
            return
        self.bucket.prepare_removal(record.key, version)
        with self._step(record.key, version, "removal"):
            yield

    def prepare_removal(self, record: Record, version: int) -> None:
        """Begin what `removing` does for an archived record; `resolve_removal` ends it."""
        self.bucket.prepare_removal(record.key, version)

    def resolve_removal(self, key: str, version: int) -> None:
        """End a prepared removal: commit it if it was journaled, else abort it.

        While the file of the key is pending, the outcome is undecided: the removal stays prepared.
        """
        if self._journal.is_pending(key):
            return
        _resolve(self.bucket, self._journal, key, version, "removal")

    def resolve(self, key: str) -> None:
        """End what was prepared for `key` before an interrupt.

        While the file of the key is pending, the outcome is undecided: the change stays prepared.
        """
        if self._journal.is_pending(key):
            return
        for one in self.bucket.prepared():
            if one.key == key:
                _resolve(self.bucket, self._journal, key, one.version, one.what)

    def amend(self, record: Record) -> None:
        """Journal other terms for the version of `record`, and give them to the archive."""
        if not is_archived(record):
            self._journal.amend(record)
            return
        self.bucket.prepare_terms(record)
        with self._step(record.key, record.version, "terms"):
            self._journal.amend(record)

    @contextmanager
    def _step(self, key: str, version: int, what: Change) -> Iterator[None]:
        try:
            yield
        except BaseException:
            _resolve(self.bucket, self._journal, key, version, what)
            raise
        try:
            self.bucket.commit(key, version)
        except (StorageError, StoreLockedError, UnavailableError) as error:
            # The journal has the change, so it is done. The next opening repeats it in the archive.
            self._failing(key, error)


def _resolve(
    bucket: BucketBackend, journal: DiskBackend, key: str, version: int, what: Change
) -> None:
    """Commit what was prepared in the archive if the journal has it, else abort it."""
    newest, record = journal.newest(key)
    same = record is not None and record.version == version and is_archived(record)
    if what == "removal":
        done = newest >= version or newest == 0  # The journal drops useless tombstones.
    elif what == "terms":
        done = False  # The terms in the journal are right, whichever they are.
        if same and record is not None:
            bucket.amend(record)
    else:
        done = same
    (bucket.commit if done else bucket.abort)(key, version)


def resolve_prepared(bucket: BucketBackend, journal: DiskBackend) -> None:
    """Commit or abort what was prepared when a process was killed."""
    for one in bucket.prepared():
        _resolve(bucket, journal, one.key, one.version, one.what)


class VolatileVersions(Protocol):
    """The versions in RAM while the archive and the journal are compared."""

    def lock(self, key: str) -> AbstractContextManager[object]:
        """Return a context in which no other thread changes `key`."""

    def version(self, key: str) -> int:
        """Return the version of `key` in RAM, 0 where there is none."""

    def drop(self, key: str) -> None:
        """Remove `key` from RAM."""


class NoVolatileVersions:
    """No versions in RAM: a store is being opened."""

    def lock(self, key: str) -> AbstractContextManager[object]:
        """Return a context that locks nothing: no other thread has the store."""
        return nullcontext(key)

    def version(self, key: str) -> int:
        """Return 0."""
        del key
        return 0

    def drop(self, key: str) -> None:
        """Do nothing."""


def reconcile(bucket: BucketBackend, journal: DiskBackend, volatile: VolatileVersions) -> None:
    """Journal what changed in a bucket since this machine wrote there; all of it at first.

    Of each key the highest version wins, removals included.
    """
    had_keys = journal.usage().keys > 0
    for record in bucket.records():
        with volatile.lock(record.key):
            _take_in(bucket, journal, volatile, record)
    if not had_keys:
        return
    lost = 0
    for record in journal.scan():
        if is_archived(record) and bucket.lookup(record.key) is None:
            with volatile.lock(record.key):
                lost += not _take_out(bucket, journal, volatile, record)
    if lost:
        logger.warning(
            "%d keys of this store lie in the archive %s, which does not hold them any more; "
            "reading one of them raises", lost, bucket.url,
        )  # fmt: skip


def _take_in(
    bucket: BucketBackend, journal: DiskBackend, volatile: VolatileVersions, record: Record
) -> None:
    newest, known = journal.newest(record.key)
    newest = max(newest, volatile.version(record.key))
    if newest < record.version:
        journal.write_note(record)
        volatile.drop(record.key)
    elif newest > record.version or known is None or not is_archived(known):
        bucket.remove(record.key, record.version)
    elif known.terms != record.terms:
        journal.amend(msgspec.structs.replace(known, terms=record.terms))


def _take_out(
    bucket: BucketBackend, journal: DiskBackend, volatile: VolatileVersions, record: Record
) -> bool:
    """Remove what another machine removed; return False if the archive has no such removal."""
    newest, known = journal.newest(record.key)
    if known is None or newest != record.version or bucket.lookup(record.key) is not None:
        return True
    removed = bucket.removed(record.key)
    if removed > record.version:
        journal.remove(record.key, removed)
        volatile.drop(record.key)
    elif record.tier is TierName.COLD:
        journal.amend(msgspec.structs.replace(record, archived=b""))
    else:
        return False
    return True
