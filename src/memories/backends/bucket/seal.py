"""What the objects of an encrypted archive are bound to: the one place that encrypts them.

Frames, indexes and notes are blobs (`sealing.blob`). A frame is bound to its key, and to the salt
in its head, which its record knows; so no other frame opens in its place, an older one of the same
key included. It is not bound to the object it lies in, from which garbage collection may move it.
"""

from __future__ import annotations

from collections.abc import Sequence

from memories.sealing.blob import (
    HEADER_BYTES,
    BlobCipher,
    BlobReader,
    DataKey,
    opened_length,
    sealed_length,
)

_FRAME, _INDEX, _NOTE = b"frame\0", b"index\0", b"note\0"


class ArchiveSeal:
    """Encrypts what is written into one archive. Safe to use from many threads."""

    frame_length = staticmethod(sealed_length)
    opened_length = staticmethod(opened_length)

    def __init__(self, key: DataKey, place: bytes) -> None:
        self._cipher = BlobCipher([key], place)

    def frame(self, key: str, frame: Sequence[memoryview]) -> tuple[bytes, memoryview]:
        """Return the frame of `key`, encrypted: its head, and the whole."""
        sealed = self._cipher.seal_whole(_FRAME + key.encode(), frame)
        return bytes(sealed[:HEADER_BYTES]), sealed

    def frame_reader(self, key: str, head: bytes, nbytes: int) -> BlobReader:
        """Return what decrypts a frame of `nbytes` with a head that its record knows.

        Raises:
            CorruptDataError: this is no such head.
        """
        return self._cipher.reader(_FRAME + key.encode(), head, nbytes)

    def index(self, name: str, data: bytes) -> bytes:
        """Return the index of the object `name`, encrypted."""
        return self._cipher.seal(_INDEX + name.encode(), data)

    def open_index(self, name: str, data: bytes | bytearray | memoryview) -> bytes:
        """Return the index of the object `name`.

        Raises:
            CorruptDataError: it was altered, or is that of another object.
        """
        return self._cipher.open(_INDEX + name.encode(), data)

    def note(self, name: str, data: bytes) -> bytes:
        """Return the content of a small object `name`, encrypted."""
        return self._cipher.seal(_NOTE + name.encode(), data)

    def open_note(self, name: str, data: bytes) -> bytes:
        """Return the content of a small object `name`.

        Raises:
            CorruptDataError: it was altered, or is that of another object.
        """
        return self._cipher.open(_NOTE + name.encode(), data)
