"""What the writer of a bucket does in the background: renew, upload, sum up and reclaim.

Objects are moved and unlinked under one lock, which whatever relies on their locations holds, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from memories.backends.bucket import retention
from memories.backends.bucket.garbage_collection import GarbageCollector, Reclaimed
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.options import BucketLimits
from memories.backends.bucket.rebuild import BucketParts
from memories.backends.bucket.session import BucketSession
from memories.backends.bucket.staging import StagedPacks
from memories.backends.bucket.uploader import Uploader
from memories.errors import ClosedError
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import AutoResetEvent, Periodic

CLOSED = "the archive is closed: open it again"


class BucketMaintenance:
    """The periodic work on a bucket, its garbage collection, and what that must spare."""

    def __init__(
        self,
        bucket: BucketParts,
        session: BucketSession,
        packs: StagedPacks,
        uploader: Uploader,
        collector: GarbageCollector,
        limits: BucketLimits,
        wall: Callable[[], float],
    ) -> None:
        self._bucket = bucket
        self._session = session
        self._packs = packs
        self._uploader = uploader
        self._limits = limits
        self._wall = wall
        self.collector = collector
        self.lock = new_lock()  # Held while objects are moved and unlinked.
        self._stopping = new_lock()
        self._stopped = False
        self._threads: list[Periodic] = []
        self._failed = AutoResetEvent()  # Set when an object is to be deleted.

    def make_threads(self) -> list[Periodic]:
        """Return the threads of this bucket, not started yet.

        Raises:
            ClosedError: `stop` was called meanwhile.
        """
        # The lease has a thread of its own: an upload may take longer than the lease lasts.
        threads = [
            Periodic(self._session.lease.renew, "lease", seconds=self._limits.lease_seconds / 3),
            Periodic(
                self.run, "glacier", seconds=self._limits.flush_seconds, wake_event=self._failed
            ),
        ]
        with self._stopping:
            if self._stopped:
                raise ClosedError("the archive was closed before it was reached")
            self._threads = threads
        return threads

    def stop(self) -> None:
        """Stop the threads, and prevent that others are made. Idempotent."""
        with self._stopping:
            self._stopped = True
        for thread in self._threads:
            thread.stop()

    def run(self) -> None:
        """Do what is due: renew the lease, upload what was staged for long, sum up, reclaim."""
        if self._stopped:
            raise ClosedError(CLOSED)
        self._session.lease.ensure()
        oldest = self._packs.staged_since()
        if oldest is not None and self._wall() - oldest >= self._limits.flush_seconds:
            self._uploader.flush()
        self._session.delete_failed_uploads()
        # If the lock is held, that may last long, and staged values must not wait for it.
        if self.collector.is_due() and self.lock.acquire(blocking=False):
            try:
                self.write_manifests()
                if self._session.may_delete:
                    self.collector.reclaim(self._limits.grace_seconds)
            finally:
                self.lock.release()

    def delete_failed_soon(self) -> None:
        """Have a thread delete what was uploaded and then aborted."""
        self._failed.set()

    def write_manifests(self) -> None:
        """Sum up objects that no manifest covers."""
        self.collector.write_manifests(replace=self._session.may_delete)

    def reclaim(self, grace_seconds: float | None) -> Reclaimed:
        """Reclaim space now."""
        grace = self._limits.grace_seconds if grace_seconds is None else grace_seconds
        with self.lock:
            self._session.lease.ensure()
            return self.collector.reclaim(grace)

    def pin(self, holder: str, places: Sequence[bytes]) -> None:
        """Keep the objects at `places` until `holder` releases them."""
        tokens = [ObjectLocation.decode(place).token for place in places]
        with self.lock:
            retention.pin(self._bucket.store, self._bucket.db, holder, tokens)

    def unpin(self, holder: str, places: Sequence[bytes]) -> None:
        """Release the objects at `places`, or all that `holder` protects if there are none."""
        tokens = [ObjectLocation.decode(place).token for place in places]
        with self.lock:
            retention.unpin(self._bucket.store, self._bucket.db, holder, tokens)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Move and unlink nothing in the block."""
        with self.lock:
            yield
