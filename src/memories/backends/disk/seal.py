"""What the files of an encrypted store are bound to: the one place that encrypts and decrypts them.

Records of the log, frames, runs of the index and its manifest are blobs (`sealing.blob`). Each is
bound to the store and to what it is, so that it opens nowhere else: a record to its kind, a frame
to its key and version, a run to its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memories.errors import CorruptDataError
from memories.model.record import Record
from memories.sealing.blob import (
    BLOCK_BITS,
    HEADER_BYTES,
    BlobCipher,
    BlobReader,
    BlobWriter,
    Fetch,
    opened_length,
    sealed_length,
)

_RECORD, _FRAME, _RUN, _MANIFEST = b"record\0", b"frame\0", b"run\0", b"manifest\0"


class StoreSeal:
    """Encrypts what one store writes. Safe to use from many threads and after a fork."""

    frame_length = staticmethod(sealed_length)
    opened_length = staticmethod(opened_length)

    def __init__(self, cipher: BlobCipher) -> None:
        self._cipher = cipher

    def record(self, kind: int, body: bytes) -> bytes:
        """Return a packed record of the log, encrypted."""
        return self._cipher.seal(_RECORD + bytes((kind,)), body)

    def open_record(self, kind: int, data: bytes) -> bytes | None:
        """Return a packed record of the log; None if it was altered."""
        try:
            return self._cipher.open(_RECORD + bytes((kind,)), data)
        except CorruptDataError:
            return None

    def frame(self, record: Record, frame: Sequence[memoryview]) -> memoryview:
        """Return the small frame of a record, encrypted."""
        data = frame[0] if len(frame) == 1 else b"".join(frame)
        return memoryview(self._cipher.seal(_frame_of(record), data))

    def blocks(self, record: Record, frame: Sequence[memoryview]) -> Iterator[memoryview]:
        """Yield the large frame of a record, encrypted; see `BlobCipher.blocks`."""
        return self._cipher.blocks(_frame_of(record), frame)

    def open_frame(self, record: Record, data: bytes | memoryview) -> bytes:
        """Return the small frame of a record.

        Raises:
            CorruptDataError: it was altered, or is that of another key or version.
        """
        try:
            return self._cipher.open(_frame_of(record), data)
        except CorruptDataError as error:
            raise _damaged(record, error) from error

    def read_frame(
        self, record: Record, fetch: Fetch, nbytes: int, spans: Sequence[tuple[int, int]] | None
    ) -> list[memoryview]:
        """Return parts of the frame of a record, or all of it, which takes `nbytes` in its file.

        Raises:
            CorruptDataError: it was altered, is another one, or has not so many bytes.
        """
        head = bytes(fetch(0, min(HEADER_BYTES, nbytes)))
        try:
            blob = self._cipher.reader(_frame_of(record), head, nbytes)
            wanted = [(0, blob.nbytes)] if spans is None else spans
            return [blob.read(fetch, start, stop) for start, stop in wanted]
        except CorruptDataError as error:
            raise _damaged(record, error) from error

    def run_writer(self, number: int) -> BlobWriter:
        """Return what encrypts a run of the index."""
        return self._cipher.writer(_RUN + number.to_bytes(8, "little"), BLOCK_BITS)

    def run_reader(self, number: int, head: bytes, nbytes: int) -> BlobReader:
        """Return what decrypts a run of the index, block by block.

        Raises:
            CorruptDataError: no encrypted run lies there.
        """
        return self._cipher.reader(_RUN + number.to_bytes(8, "little"), head, nbytes, BLOCK_BITS)

    def manifest(self, body: bytes) -> bytes:
        """Return the packed manifest of the index, encrypted."""
        return self._cipher.seal(_MANIFEST, body)

    def open_manifest(self, data: bytes) -> bytes | None:
        """Return the packed manifest; None if it was altered."""
        try:
            return self._cipher.open(_MANIFEST, data)
        except CorruptDataError:
            return None


def _damaged(record: Record, error: CorruptDataError) -> CorruptDataError:
    return CorruptDataError(f"the frame of {record.key[:200]!r} is damaged: {error}")


def _frame_of(record: Record) -> bytes:
    return b"".join((_FRAME, record.version.to_bytes(8, "little"), record.key.encode()))
