"""The glacier tier's backend: frames in an object store that describes itself.

Not a cache and no policy: what is written stays until it is overwritten or removed.
Large frames are objects of their own; small ones are staged here and travel together.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from memories.backends.base import Backend, Usage
from memories.backends.bucket import adopt
from memories.backends.bucket.ledger import Ledger
from memories.backends.bucket.objectstore import Absent, ObjectStore
from memories.backends.bucket.open import open_store
from memories.backends.bucket.pack import body_bytes
from memories.backends.bucket.place import Place
from memories.backends.bucket.shipper import Shipper
from memories.backends.bucket.state import State
from memories.backends.bucket.transfer import Transfer
from memories.clock import SystemClock
from memories.entry import Record
from memories.errors import (
    ArchivedError,
    ClosedError,
    CorruptDataError,
    ForkedError,
    StorageError,
    UnavailableError,
)
from memories.units import format_size

GRACE_SECONDS = 7 * 86400
SMALL_BYTES = 256 * 1024
PACK_BYTES = 8 * 1024 * 1024


class BucketBackend(Backend):
    """Keeps frames as objects under a prefix of an object store.

    With a `directory` small values are durable there first and reach the bucket in packs (at
    `sync`, at `close`, when a pack is full); without one every `write` returns after its upload.
    An empty `directory` is filled from what the bucket says of itself.
    """

    def __init__(
        self,
        url: str | Path | ObjectStore,
        *,
        storage_options: Mapping[str, Any] | None = None,
        directory: Path | None = None,
        grace_seconds: float = GRACE_SECONDS,
        small_bytes: int = SMALL_BYTES,
        pack_bytes: int = PACK_BYTES,
        concurrency: int = 16,
        full: bool = False,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.Lock()
        self._wall = wall or SystemClock().wall
        self._small_bytes = small_bytes
        self._grace_seconds = grace_seconds
        self._store = url if isinstance(url, ObjectStore) else open_store(url, storage_options)
        self._private = None if directory else Path(tempfile.mkdtemp(prefix="memories-glacier-"))
        home = directory or self._private
        assert home is not None
        self._state = State(home / "glacier.sqlite", full=full, disposable=directory is None)
        self._ledger = Ledger(self._state)
        self._transfer = Transfer(self._store, concurrency)
        self._shipper = Shipper(
            self._store, self._state, self._ledger, pack_bytes=pack_bytes, wall=self._wall
        )
        self._durable = directory is not None
        if not self._state.get("adopted", 0):
            adopt.adopt(self._transfer, self._store, self._state, self._ledger, self._wall())
        self._shipper.recover()

    @property
    def url(self) -> str:
        """Return where the archive is, without credentials."""
        return self._store.url

    def write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Keep a frame: a large one is uploaded now, a small one with others (see the class)."""
        self._guard()
        length = body_bytes(frame)
        with self._naming(record.key, length, "archived"):
            if length > self._small_bytes:
                return self._shipper.upload(record, frame, length)
            kept = self._shipper.stage(record, frame, length)
            self._ship(kept)
            return kept

    def read(self, record: Record) -> memoryview:
        """Return a frame; a large one comes by parallel ranged requests into one buffer."""
        return self.read_range(record, 0, Place.decode(record.place).length)

    def read_range(self, record: Record, offset: int, length: int) -> memoryview:
        """Return `length` bytes of a frame from `offset` on, transferring only those.

        Raises:
            CorruptDataError: the object is absent or shorter than the record says.
            ArchivedError: the object must be restored from its archive class first.
            UnavailableError: the store did not answer.
        """
        self._guard()
        place = Place.decode(record.place)
        if offset < 0 or length < 0 or offset + length > place.length:
            raise CorruptDataError(
                f"Key {record.key!r} has {place.length} bytes in the archive; bytes {offset} to "
                f"{offset + length} were asked for."
            )
        staged = self._shipper.staged(place)
        if staged is not None:
            return staged[offset : offset + length]
        with self._naming(record.key, place.length, "read back"):
            return self._fetch(record.key, place, offset, length)

    def find(self, key: str) -> Record | None:
        """Return the newest record of `key`, from the map on this machine."""
        self._guard()
        return self._ledger.find(key)

    def remove(self, key: str, version: int) -> None:
        """Make `key` absent; the bucket learns it as it learns of a small value."""
        self._guard()
        with self._naming(key, 0, "removed from the archive"):
            if self._shipper.bury(key, version) and not self._durable:
                self._shipper.flush()

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield records in key order, from the map on this machine."""
        self._guard()
        return self._ledger.scan(prefix, after)

    def records(self) -> Iterator[Record]:
        """Yield the record of every key in the archive."""
        return self.scan()

    def usage(self) -> Usage:
        """Return what is held, staged values included."""
        self._guard()
        return self._ledger.usage()

    def last_version(self) -> int:
        """Return the highest version the archive ever heard of."""
        self._guard()
        return int(self._state.get("last_version", 0))

    def sync(self) -> None:
        """Upload what is staged."""
        self._guard()
        self._shipper.flush()

    def close(self) -> None:
        """Upload what is staged and release everything. Idempotent.

        What could not be uploaded stays staged in the directory, and the error says so.
        """
        with self._lock:
            if self._closed or self._pid != os.getpid():
                return
            self._closed = True
        try:
            self._shipper.flush()
        finally:
            self._transfer.close()
            self._store.close()
            self._state.close()
            if self._private is not None:
                shutil.rmtree(self._private, ignore_errors=True)

    def _ship(self, record: Record) -> None:
        if self._durable:
            self._shipper.flush_full()
        else:
            self._shipper.flush_through(Place.decode(record.place).token)

    def _fetch(self, key: str, place: Place, offset: int, length: int) -> memoryview:
        try:
            data = self._transfer.fetch(place.name, place.offset + offset, length)
        except Absent as error:
            raise CorruptDataError(
                f"Key {key!r} lies in the archive object {place.name} of {self.url}, and the store "
                "says that there is none. It was deleted by someone else."
            ) from error.__cause__
        if len(data) != length:
            raise CorruptDataError(
                f"Key {key!r} lies in the archive object {place.name} of {self.url}, which is "
                f"{length - len(data)} bytes too short."
            )
        return data

    def _guard(self) -> None:
        if self._pid != os.getpid():
            raise ForkedError(
                "The archive was opened by the parent process, and its client does not work in a "
                "forked child. Open it in the child, or start processes by spawn or forkserver."
            )
        if self._closed:
            raise ClosedError("The archive is closed. Open it again.")

    @contextmanager
    def _naming(self, key: str, length: int, done: str) -> Iterator[None]:
        try:
            yield
        except (UnavailableError, ArchivedError, StorageError) as error:
            raise type(error)(
                f"Key {key!r} ({format_size(length)}) was not {done}. {error}"
            ) from error.__cause__


def without_place(record: Record) -> Record:
    """Return `record` as it was before it was written."""
    return msgspec.structs.replace(record, place=b"", stored=0)


def open_bucket(url: str | Path, **options: Any) -> BucketBackend:
    """Open the archive at `url`: a directory, or any store that obstore knows."""
    return BucketBackend(url, **options)
