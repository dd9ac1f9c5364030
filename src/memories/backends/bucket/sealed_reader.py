"""Reads frames of an encrypted archive: only the chunks in which the wanted bytes lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.reader import Reader
from memories.backends.bucket.seal import ArchiveSeal
from memories.errors import CorruptDataError
from memories.model.record import Record
from memories.sealing.blob import BlobReader

_PIECE_BYTES = 128 << 20  # Decrypted while the next ones are still to come: not twice in RAM.


class SealedReader:
    """Reads and decrypts frames, where the archive is encrypted. Any thread may call it."""

    def __init__(self, reader: Reader, db: LocalDb, *, whole: bool) -> None:
        """Read by `reader`; with `whole` a frame by one call, however large, for its progress."""
        self._reader, self._db, self._whole = reader, db, whole

    def staged(self, place: ObjectLocation) -> memoryview | None:
        """Return a frame, as it lies there, that is on this machine only, as yet, or None."""
        return self._reader.staged(place)

    def restore(self, records: Sequence[Record], timeout: float, days: int) -> None:
        """Ask for the restore of what cannot be read, and look again until all of it can."""
        self._reader.restore(records, timeout, days)

    def read(self, record: Record) -> memoryview:
        """Return the whole frame of a record."""
        seal = self._db.seal
        if seal is None:
            return self._reader.read(record)
        length = ObjectLocation.decode(record.place).length
        blob = _blob_of(seal, record)
        if self._whole or length <= _PIECE_BYTES:
            return _opened(blob, record, self._reader.read(record), 0, blob.nbytes)

        def fetch(offset: int, length: int) -> memoryview:
            return self._reader.read_range(record, offset, length)

        with _naming(record):
            return blob.read(fetch, 0, blob.nbytes, _PIECE_BYTES)

    def read_range(self, record: Record, offset: int, length: int) -> memoryview:
        """Return a part of the frame of a record."""
        if self._db.seal is None:
            return self._reader.read_range(record, offset, length)
        return self.read_ranges(record, [(offset, offset + length)])[0]

    def read_ranges(self, record: Record, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return stretches of a frame, in their order."""
        seal = self._db.seal
        if seal is None:
            return self._reader.read_ranges(record, spans)
        blob = _blob_of(seal, record)
        with _naming(record):
            stored = [blob.extent(start, stop) for start, stop in spans]
        found = self._reader.read_ranges(record, stored)
        return [
            _opened(blob, record, data, start, stop, at)
            for (start, stop), (at, _), data in zip(spans, stored, found, strict=True)
        ]

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frames of records, in their order."""
        found = self._reader.read_many(records)
        seal = self._db.seal
        if seal is None:
            return found
        blobs = [_blob_of(seal, record) for record in records]
        return [
            _opened(blob, record, data, 0, blob.nbytes)
            for blob, record, data in zip(blobs, records, found, strict=True)
        ]


def _opened(
    blob: BlobReader, record: Record, data: memoryview, start: int, stop: int, at: int = 0
) -> memoryview:
    """Return the bytes from `start` to `stop` of a blob whose bytes from `at` on are `data`."""

    def fetch(offset: int, length: int) -> memoryview:
        return data[offset - at : offset - at + length]

    with _naming(record):
        return blob.read(fetch, start, stop)


def _blob_of(seal: ArchiveSeal, record: Record) -> BlobReader:
    place = ObjectLocation.decode(record.place)
    with _naming(record):
        return seal.frame_reader(record.key, place.head, place.length)


@contextmanager
def _naming(record: Record) -> Iterator[None]:
    """Name the key in the errors of the block."""
    try:
        yield
    except CorruptDataError as error:
        raise CorruptDataError(
            f"the archived frame of {record.key[:200]!r} is damaged: {error}"
        ) from error
