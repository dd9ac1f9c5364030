"""Connects a manager with its archive: copies its records to the journal, and logs its state.

The archive itself is `backends.bucket`. An archive that does not answer, or that is damaged, may
hold a key that is in no other tier: a read of such a key then raises an error that says so, instead
of reporting the key as absent.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgspec

from memories.backends.bucket import BucketBackend
from memories.backends.disk import DiskBackend
from memories.engine.archive import NoVolatileVersions, reconcile, resolve_prepared
from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import CorruptDataError, UnavailableError
from memories.foundation.logging import logger
from memories.foundation.periodic import Periodic
from memories.frames.store_binding import StoreBinding
from memories.model.tiers import TierName

AWAY_SECONDS = 10.0  # How long a new manager waits for the bucket.
FOLLOW_SECONDS = 10.0  # How often a reader without a storage_path lists the bucket.
_NAMED = 10  # The most damaged objects that a warning names.


class _LiveVersions:
    """The versions in RAM while other threads may change them; versions stored since are newer."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy

    def lock(self, key: str) -> AbstractContextManager[object]:
        """Return the key's lock."""
        return self._hierarchy.locks.lock(key)

    def version(self, key: str) -> int:
        """Return the version of the key's entry."""
        entry = self._hierarchy.catalog.entries.get(key)
        return 0 if entry is None else entry.version

    def drop(self, key: str) -> None:
        """Remove the key's entry."""
        entry = self._hierarchy.catalog.entries.get(key)
        if entry is not None:
            self._hierarchy.catalog.drop(entry)
            self._hierarchy.mover.release(entry)


class ArchiveService:
    """Keeps the journal of one manager in step with its archive.

    Args:
        bucket: The archive.
        journal: Gets the records of the bucket; None where another process writes it.
        media: A description of the medium of each tier.
        binding: Knows whose signed values the archive may hold.
    """

    def __init__(
        self,
        bucket: BucketBackend,
        journal: DiskBackend | None,
        media: dict[TierName, str],
        binding: StoreBinding,
    ) -> None:
        self.bucket = bucket
        self._binding = binding
        self._unstated = False
        self._journal = journal
        self._media = media
        self._words = media[TierName.GLACIER]
        self._follower: Periodic | None = None

    def adopt(self) -> None:
        """Write records to the journal that other machines have archived."""
        if self._journal is not None:
            resolve_prepared(self.bucket, self._journal)
            if self.bucket.adopted:
                reconcile(self.bucket, self._journal, NoVolatileVersions())
        self._warn()

    def attach(self, hierarchy: Hierarchy) -> None:
        """Report keys that may be in the archive, retry an absent bucket, follow its writer."""
        hierarchy.doubt = self._raise_if_unknown
        if self._journal is not None and hierarchy.state is LifecycleState.READ_ONLY:
            self._follower = Periodic(self._follow, "glacier-follow", seconds=FOLLOW_SECONDS)
            self._follower.start()
        if self.bucket.away is None:
            return
        self._media[TierName.GLACIER] = f"{self._words}, away"
        logger.warning(
            "the archive does not answer; everything else works, and it is tried again: %s",
            self.bucket.away,
        )
        self.bucket.resume(lambda: self._returned(hierarchy), self._report_return)

    def state_store(self) -> None:
        """State in the archive that it holds signed values of this store.

        If the archive is away, it is stated once it is back.
        """
        try:
            self._binding.state(self.bucket, self._binding.own)
        except UnavailableError as error:
            self._unstated = True
            logger.info("whose values the archive holds is stated when it is back: %s", error)

    def stop(self) -> None:
        """Stop following the writer."""
        if self._follower is not None:
            self._follower.stop()

    def _returned(self, hierarchy: Hierarchy) -> None:
        hierarchy.catalog.raise_version(self.bucket.last_version())
        if hierarchy.state is LifecycleState.READ_ONLY:
            self._mirror()
        elif self.bucket.adopted:
            reconcile(self.bucket, hierarchy.catalog.journal, _LiveVersions(hierarchy))
        self._warn()

    def _report_return(self) -> None:
        self._media[TierName.GLACIER] = self._words
        if self._unstated:
            self.state_store()
        logger.warning("the archive %s is back", self.bucket.url)

    def _follow(self) -> None:
        """Apply the changes of the writer of the bucket."""
        if self.bucket.away is None and self.bucket.refresh():
            self._mirror()

    def _mirror(self) -> None:
        """Make the journal of a reader equal to the records of the bucket."""
        if self._journal is None:
            return
        for record in self.bucket.records():
            known = self._journal.lookup(record.key)
            if known is None or known.version < record.version:
                self._journal.write_note(record)
            elif known.terms != record.terms:
                self._journal.amend(msgspec.structs.replace(known, terms=record.terms))
        for known in self._journal.scan():
            if self.bucket.lookup(known.key) is None:
                # The version after that of a value is always free for its removal.
                self._journal.remove(known.key, known.version + 1)

    def _warn(self) -> None:
        damage, missing = self.bucket.damage, self.bucket.missing
        for note in self.bucket.notes:
            logger.warning(note, self.bucket.url)
        for one in damage[:_NAMED]:
            logger.warning(
                "the archive object %s of %s cannot be read, everything else was adopted: %s; "
                "check(repair=True) sets it aside", one.name, self.bucket.url, one.what,
            )  # fmt: skip
        if len(damage) > _NAMED:
            logger.warning("and %d more; check() names them all", len(damage) - _NAMED)
        if missing:
            named = ", ".join(repr(key[:60]) for key in missing[:_NAMED])
            logger.warning(
                "%d values are missing from the archive %s, because their objects were deleted: "
                "%s%s; check(repair=True) forgets them",
                len(missing), self.bucket.url, named, ", ..." if len(missing) > _NAMED else "",
            )  # fmt: skip

    def _raise_if_unknown(self, key: str) -> None:
        """Raise if `key`, which is in no tier, may be in an archive that cannot be read."""
        away = self.bucket.away
        if away is not None and not self.bucket.known:
            raise UnavailableError(
                f"{key[:200]!r} is in no tier on this machine, and whether it is in the archive is "
                f"unknown: {away}"
            )
        for one in self.bucket.damage:
            if not one.name.startswith("objects/"):
                continue
            raise CorruptDataError(
                f"{key[:200]!r} is in no tier that can be read, and may have been in the archive "
                f"object {one.name} of {self.bucket.url}, which is damaged: if a "
                "backup has it, bring it back and open the archive anew; check(repair=True) gives "
                "it up"
            )
