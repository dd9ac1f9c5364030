"""A file that is encrypted as a whole, with its own data key in its header (docs/format.md).

It is written from front to back, and any part of it can be read alone.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from memories.errors import CorruptDataError, EncryptionKeyError
from memories.sealing import key_files
from memories.sealing.blob import (
    CHUNK_BITS,
    HEADER_BYTES,
    BlobCipher,
    BlobReader,
    BlobWriter,
    DataKey,
    Fetch,
)
from memories.sealing.master_key import EncryptionKey, WrappedKey

# mark, version, length of the data key's text, the place
_FRONT = struct.Struct("<8sII16s")
FRONT_BYTES = _FRONT.size
_MARK, _VERSION = b"memseal\n", 1
MARK_BYTES = len(_MARK)
_PLACE_BYTES, _MAX_TEXT_BYTES = 16, 1 << 16
_CONTEXT = b"file\0"


def begin(key: EncryptionKey) -> tuple[bytes, BlobWriter]:
    """Return the header of a new file, and what encrypts its content.

    Raises:
        EncryptionKeyError: the master key cannot be read.
    """
    data_key, place = DataKey.new(), os.urandom(_PLACE_BYTES)
    header = pack_header(key.wrap(data_key, place), place)
    return header, BlobCipher([data_key], place).writer(_CONTEXT, CHUNK_BITS)


def pack_header(wrapped: WrappedKey, place: bytes) -> bytes:
    """Return the header of a file whose data key is wrapped for `place`."""
    text = key_files.pack(wrapped)
    return _FRONT.pack(_MARK, _VERSION, len(text), place) + text


def is_sealed(start: bytes) -> bool:
    """Return whether a file that begins with `start` is encrypted."""
    return start.startswith(_MARK)


class SealedHeader(NamedTuple):
    """What an encrypted file begins with."""

    wrapped: WrappedKey
    place: bytes
    nbytes: int  # Where the blob begins.


def read_header(fetch: Fetch, size: int, what: str) -> SealedHeader:
    """Return the header of a file of `size` bytes that `fetch` reads; errors call it `what`.

    Raises:
        CorruptDataError: it is not encrypted, damaged, or a later release wrote it.
    """
    front = bytes(fetch(0, min(FRONT_BYTES, size)))
    if len(front) < FRONT_BYTES or not is_sealed(front):
        raise CorruptDataError(f"{what} is not an encrypted file")
    _, version, length, place = _FRONT.unpack(front)
    if version != _VERSION or length > min(_MAX_TEXT_BYTES, size - FRONT_BYTES):
        raise CorruptDataError(f"{what} is encrypted in version {version}, or damaged at its start")
    wrapped = key_files.parse(bytes(fetch(FRONT_BYTES, length)), what)
    return SealedHeader(wrapped, place, FRONT_BYTES + length)


def parse_header(data: bytes, what: str) -> SealedHeader:
    """Return the header that `data` begins with; otherwise like `read_header`."""
    return read_header(lambda offset, length: data[offset : offset + length], len(data), what)


class SealedFile:
    """An encrypted file, open for reading. Safe to use from many threads.

    Attributes:
        nbytes: The length of its content.
    """

    def __init__(self, fetch: Fetch, size: int, key: EncryptionKey | None, what: str) -> None:
        """Read the header by `fetch`; errors call the file `what`.

        Raises:
            EncryptionKeyError: there is no key, or it is not the one of the file.
            CorruptDataError: the file is damaged, or a later release wrote it.
        """
        wrapped, place, self._start = read_header(fetch, size, what)
        if key is None:
            raise EncryptionKeyError(
                f"{what} is encrypted with the key {wrapped.name!r}: give it with encryption=, or "
                "set MEMORIES_ENCRYPTION"
            )
        cipher = BlobCipher([key.unwrap(wrapped, place)], place)
        self._fetch = fetch
        stored = size - self._start
        head = bytes(fetch(self._start, min(HEADER_BYTES, stored)))
        self._blob: BlobReader = cipher.reader(_CONTEXT, head, stored, CHUNK_BITS)
        self.nbytes = self._blob.nbytes

    def read(self, offset: int, length: int) -> memoryview:
        """Return bytes of the content.

        Raises:
            CorruptDataError: they were altered, or there are not so many.
        """
        return self._blob.read(self._fetch_blob, offset, offset + length)

    def _fetch_blob(self, offset: int, length: int) -> bytes | memoryview:
        return self._fetch(self._start + offset, length)
