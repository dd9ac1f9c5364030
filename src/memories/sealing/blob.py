"""Encrypts bytes as a *blob*, of which any part can be read by itself (docs/format.md, "Blob").

A blob is cut into chunks, and each is encrypted by AES-256-GCM under a key of the blob's own. This
key is derived from a data key and 24 random bytes, so that no nonce is used twice: not in another
process, not after a crash, and not in a store that was copied or restored.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

from memories.errors import CorruptDataError
from memories.foundation import optional_imports, parallel

EXTRA = "encryption"
ID_BYTES, SECRET_BYTES, SALT_BYTES, TAG_BYTES = 8, 32, 24, 16
# mark, version, binary logarithm of the chunk size, zero, id of the data key, salt
_HEADER = struct.Struct("<4sBBH8s24s")
HEADER_BYTES = _HEADER.size
_MARK, _VERSION = b"mSea", 1
CHUNK_BITS = 17
BLOCK_BITS = 12  # Of what is read in blocks of a page.
_ONE_CHUNK = _HEADER.pack(_MARK, _VERSION, CHUNK_BITS, 0, b"", b"")[:8]
_INFO, _ROUND = b"memories blob 1\0", b"\1"  # Of HKDF-Expand; one round yields the whole key.
_MORE, _LAST = b"\0\0\0\0", b"\1\0\0\0"
_ONLY = bytes(8) + _LAST
_GROUP_BYTES = 2 << 20  # Read with one call of the system. Two threads share no large page.
_BLOCK_CHUNKS = 8  # Encrypted before they are written, into a cache of the processor.
_OWN_BYTES = 1 << 16  # Memory of this size or more is taken from the system in whole pages,
_HUGE_BYTES = 4 << 20  # and of this size or more in large ones.

Fetch = Callable[[int, int], bytes | memoryview]  # Returns bytes of a blob: offset and length.


class DataKey(NamedTuple):
    """A random secret that encrypts blobs, and the public id by which a blob names it."""

    id: bytes
    secret: bytes

    @classmethod
    def new(cls) -> Self:
        """Return a key that never was before."""
        return cls(os.urandom(ID_BYTES), os.urandom(SECRET_BYTES))

    def __repr__(self) -> str:
        return f"<DataKey {self.id.hex()}>"


def sealed_length(nbytes: int) -> int:
    """Return how long the blob of `nbytes` is."""
    return HEADER_BYTES + nbytes + TAG_BYTES * _count(nbytes, 1 << CHUNK_BITS)


def opened_length(nbytes: int, bits: int = CHUNK_BITS) -> int:
    """Return how many bytes a blob of `nbytes` holds; negative for what is too short for a blob."""
    body = nbytes - HEADER_BYTES
    chunks = max(1, -(-body // ((1 << bits) + TAG_BYTES)))
    return body - TAG_BYTES * chunks


class BlobCipher:
    """Encrypts and decrypts blobs for one place. Safe to use from many threads and after a fork.

    Args:
        keys: The data keys, by which blobs are decrypted; the last one encrypts.
        place: Where the blobs are, a store for instance: those of another place are refused.

    Raises:
        MissingPackageError: the package `cryptography` is not installed, or older than 47.
    """

    def __init__(self, keys: Sequence[DataKey], place: bytes) -> None:
        import hmac  # Imported at use, as in `frames.signing`.

        aead = optional_imports.require("cryptography.hazmat.primitives.ciphers.aead", extra=EXTRA)
        self._aesgcm: Any = aead.AESGCM
        if not hasattr(aead.AESGCM, "decrypt_into"):
            raise optional_imports.MissingPackageError(
                "the installed cryptography is too old for encryption=; run: "
                + optional_imports.install_command("cryptography", EXTRA)
            )
        self._invalid: type[Exception] = optional_imports.require(
            "cryptography.exceptions", extra=EXTRA
        ).InvalidTag
        self._digest = hmac.digest
        self._secrets = dict(keys)
        self._place = place
        self._secret = keys[-1].secret
        # What a header begins with, by the chunk size.
        self._fronts = {
            bits: _HEADER.pack(_MARK, _VERSION, bits, 0, keys[-1].id, b"")[:-SALT_BYTES]
            for bits in (CHUNK_BITS, BLOCK_BITS)
        }

    def seal(self, context: bytes, data: bytes | memoryview) -> bytes:
        """Return the blob of `data`, bytes one by one, which only `context` opens."""
        if len(data) > 1 << CHUNK_BITS:
            return bytes(self.seal_whole(context, [data]))
        head, cipher, bound = self._new(context, CHUNK_BITS)
        sealed: bytes = head + cipher.encrypt(_ONLY, data, bound)
        return sealed

    def seal_whole(self, context: bytes, buffers: Sequence[Any]) -> memoryview:
        """Return the blob of many buffers one after the other."""
        blob = self._begin(context, buffers)
        memory = memoryview(private_memory(sealed_length(blob.nbytes)))
        blob.encrypt(memory, blob.count)
        return memory.toreadonly()

    def blocks(self, context: bytes, buffers: Sequence[Any]) -> Iterator[memoryview]:
        """Yield the same blob in blocks, each of which is there until the next is asked for.

        So it is nowhere in RAM as a whole. A helper encrypts one block while another is written.
        """
        blob = self._begin(context, buffers)
        return parallel.made_ahead(blob.blocks(), blob.nbytes)

    def writer(self, context: bytes, bits: int = BLOCK_BITS) -> BlobWriter:
        """Return what makes a blob of bytes that come piece by piece."""
        return BlobWriter(*self._new(context, bits), 1 << bits)

    def open(self, context: bytes, blob: bytes | bytearray | memoryview) -> bytes:
        """Return what a blob holds.

        Raises:
            CorruptDataError: it was altered, belongs elsewhere, or another key encrypted it.
        """
        nbytes, head = len(blob), bytes(blob[:HEADER_BYTES])
        secret = self._secrets.get(head[8:16])
        one = HEADER_BYTES + TAG_BYTES <= nbytes <= HEADER_BYTES + TAG_BYTES + (1 << CHUNK_BITS)
        if one and secret is not None and head[:8] == _ONE_CHUNK:
            # The way of most blobs, in few calls.
            cipher = self._aesgcm(self._digest(secret, _INFO + head[16:] + _ROUND, "sha256"))
            try:
                found: bytes = cipher.decrypt(
                    _ONLY, blob[HEADER_BYTES:], head + self._place + context
                )
            except self._invalid as error:
                raise _altered() from error
            return found
        return self.reader(context, head, nbytes).whole(memoryview(blob))

    def reader(
        self, context: bytes, head: bytes, nbytes: int, bits: int = CHUNK_BITS
    ) -> BlobReader:
        """Return what reads a blob of `nbytes` that begins with `head`.

        Raises:
            CorruptDataError: this is not the start of a blob, or another key encrypted it.
        """
        if len(head) != HEADER_BYTES:
            raise CorruptDataError(f"encrypted bytes cannot be {nbytes} bytes long")
        mark, version, found, zero, key, salt = _HEADER.unpack(head)
        if (mark, version, found, zero) != (_MARK, _VERSION, bits, 0):
            raise CorruptDataError("these bytes are not encrypted as this release encrypts them")
        secret = self._secrets.get(key)
        if secret is None:
            raise CorruptDataError(
                f"these bytes were encrypted with the data key {key.hex()}, which is not here"
            )
        left = opened_length(nbytes, bits)
        if left < 0:
            raise CorruptDataError(f"encrypted bytes cannot be {nbytes} bytes long")
        cipher = self._aesgcm(self._digest(secret, _INFO + salt + _ROUND, "sha256"))
        return BlobReader(cipher, self._invalid, head + self._place + context, left, 1 << bits)

    def _begin(self, context: bytes, buffers: Sequence[Any]) -> _NewBlob:
        views = [memoryview(one).cast("B") for one in buffers if memoryview(one).nbytes]
        return _NewBlob(*self._new(context, CHUNK_BITS), views)

    def _new(self, context: bytes, bits: int) -> tuple[bytes, Any, bytes]:
        """Return the header of a new blob, its cipher, and what its chunks are bound to."""
        salt = os.urandom(SALT_BYTES)
        head = self._fronts[bits] + salt
        cipher = self._aesgcm(self._digest(self._secret, _INFO + salt + _ROUND, "sha256"))
        return head, cipher, head + self._place + context


class _NewBlob:
    """Encrypts one blob of bytes that are all here. For one thread at a time.

    Attributes:
        nbytes: What it holds.
        count: Of its chunks.
        number: Of the next chunk.
    """

    def __init__(self, head: bytes, cipher: Any, bound: bytes, views: list[memoryview]) -> None:
        self.nbytes = sum(view.nbytes for view in views)
        self.count = _count(self.nbytes, 1 << CHUNK_BITS)
        self.number = 0
        self._head, self._cipher, self._bound = head, cipher, bound
        self._chunks = _chunks(views, 1 << CHUNK_BITS) if views else iter([b""])

    def blocks(self) -> Iterator[memoryview]:
        """Yield the blob in blocks, each of which is there until the next but one is made."""
        chunks = min(self.count, _BLOCK_CHUNKS)
        nbytes = HEADER_BYTES + chunks * ((1 << CHUNK_BITS) + TAG_BYTES)
        memory, other = memoryview(bytearray(nbytes)), memoryview(bytearray(nbytes))
        while self.number < self.count:
            yield memory[: self.encrypt(memory, chunks)]
            memory, other = other, memory

    def encrypt(self, memory: memoryview, chunks: int) -> int:
        """Encrypt up to so many chunks into `memory`, after the head; return the bytes written."""
        at, encrypt, bound = 0, self._cipher.encrypt_into, self._bound
        if self.number == 0:
            at = HEADER_BYTES
            memory[:at] = self._head
        for number in range(self.number, min(self.number + chunks, self.count)):
            chunk = next(self._chunks)
            end = at + len(chunk) + TAG_BYTES
            encrypt(_nonce(number, last=number == self.count - 1), chunk, bound, memory[at:end])
            at, self.number = end, number + 1
        return at


class BlobWriter:
    """Makes one blob of bytes that come piece by piece. For one thread."""

    def __init__(self, head: bytes, cipher: Any, bound: bytes, size: int) -> None:
        self._cipher, self._bound, self._size = cipher, bound, size
        self._buffer, self._number, self._ready = bytearray(), 0, [head]

    def add(self, data: bytes | memoryview) -> bytes:
        """Add bytes; return what may be written by now."""
        self._buffer += data
        whole = (len(self._buffer) - 1) // self._size  # The last chunk is known at the end only.
        for _ in range(whole):
            self._encrypt(self._size, last=False)
        return self._taken()

    def end(self) -> bytes:
        """Return the rest of the blob."""
        self._encrypt(len(self._buffer), last=True)
        return self._taken()

    def _encrypt(self, nbytes: int, *, last: bool) -> None:
        chunk = bytes(self._buffer[:nbytes])
        del self._buffer[:nbytes]
        nonce = _nonce(self._number, last=last)
        self._ready.append(self._cipher.encrypt(nonce, chunk, self._bound))
        self._number += 1

    def _taken(self) -> bytes:
        ready, self._ready = self._ready, []
        return b"".join(ready)


class BlobReader:
    """Decrypts one blob. Safe to use from many threads.

    Attributes:
        nbytes: What the blob holds.
    """

    def __init__(
        self, cipher: Any, invalid: type[Exception], bound: bytes, nbytes: int, size: int
    ) -> None:
        self.nbytes = nbytes
        self._cipher, self._invalid, self._bound, self._size = cipher, invalid, bound, size
        self._count = _count(nbytes, size)

    def whole(self, blob: memoryview) -> bytes:
        """Return all of a blob that is in memory."""
        chunks = [
            self._decrypted(number, blob[slice(*self.span(number))])
            for number in range(self._count)
        ]
        return chunks[0] if self._count == 1 else b"".join(chunks)

    def read(
        self, fetch: Fetch, start: int, stop: int, piece_bytes: int | None = None
    ) -> memoryview:
        """Return the bytes from `start` to `stop`, decrypting the chunks in which they lie.

        Helpers call `fetch`, too. With `piece_bytes`, so many are fetched at once, and no others
        meanwhile: what is fetched takes memory.

        Raises:
            CorruptDataError: they were altered, or there are not so many.
        """
        size = self._size
        first, end = self._chunks(start, stop)
        begin = first * size
        view = memoryview(private_memory(min(end * size, self.nbytes) - begin))
        per_group = max(1, (piece_bytes or _GROUP_BYTES) // size)

        def decrypt(number: int) -> None:
            self._decrypt_group(fetch, number, min(number + per_group, end), begin, view)

        shared_bytes = 0 if piece_bytes else view.nbytes
        parallel.map_items(decrypt, range(first, end, per_group), shared_bytes)
        return view[start - begin : stop - begin].toreadonly()

    def _decrypt_group(
        self, fetch: Fetch, first: int, end: int, begin: int, view: memoryview
    ) -> None:
        """Fetch chunks that lie one after the other, and decrypt them into a view."""
        size, number = self._size, first
        at, stored_end = self.span(first)[0], self.span(end - 1)[1]
        data = memoryview(fetch(at, stored_end - at))
        if data.nbytes != stored_end - at:
            raise CorruptDataError("the encrypted bytes are cut short")
        stored = size + TAG_BYTES
        decrypt, bound, last = self._cipher.decrypt_into, self._bound, self._count - 1
        low, target = 0, first * size - begin
        try:
            for number in range(first, end):
                chunk = data[low : low + stored]
                nonce = number.to_bytes(8, "little") + (_LAST if number == last else _MORE)
                decrypt(nonce, chunk, bound, view[target : target + chunk.nbytes - TAG_BYTES])
                low, target = low + stored, target + size
        except self._invalid as error:
            raise _altered() from error

    def extent(self, start: int, stop: int) -> tuple[int, int]:
        """Return where in the blob the chunks begin and end that hold these bytes.

        Raises:
            CorruptDataError: there are not so many.
        """
        first, end = self._chunks(start, stop)
        return self.span(first)[0], self.span(end - 1)[1]

    def _chunks(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first chunk that holds some of these bytes, and the one after the last."""
        if not 0 <= start <= stop <= self.nbytes:
            raise CorruptDataError(f"the encrypted bytes end at {self.nbytes}, before {stop}")
        first = min(start // self._size, self._count - 1)
        return first, min(max(-(-stop // self._size), first + 1), self._count)

    def span(self, number: int) -> tuple[int, int]:
        """Return where a chunk begins and ends in the blob."""
        stored = self._size + TAG_BYTES
        start = HEADER_BYTES + number * stored
        end = HEADER_BYTES + self.nbytes + self._count * TAG_BYTES
        return start, min(start + stored, end)

    def decrypt_into(self, number: int, stored: memoryview, target: memoryview) -> None:
        """Decrypt a chunk into memory that has its length or more.

        Raises:
            CorruptDataError: it was altered, or belongs elsewhere.
        """
        nonce = _nonce(number, last=number == self._count - 1)
        room = target[: stored.nbytes - TAG_BYTES]
        try:
            self._cipher.decrypt_into(nonce, stored, self._bound, room)
        except self._invalid as error:
            raise _altered() from error

    def _decrypted(self, number: int, stored: memoryview) -> bytes:
        nonce = _nonce(number, last=number == self._count - 1)
        try:
            found: bytes = self._cipher.decrypt(nonce, stored, self._bound)
        except self._invalid as error:
            raise _altered() from error
        return found


def _altered() -> CorruptDataError:
    return CorruptDataError(
        "the encrypted bytes were altered, or belong to another key, version or store"
    )


def _count(nbytes: int, size: int) -> int:
    return max(1, -(-nbytes // size))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(8, "little") + (_LAST if last else _MORE)


def private_memory(nbytes: int) -> mmap.mmap | bytearray:
    """Return zeros; many of them take no RAM before they are written to.

    A large value in pages of the usual size would take longer to be given its memory than to be
    decrypted.
    """
    if nbytes < _OWN_BYTES:
        return bytearray(nbytes)
    try:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # Nothing is wrong with the disk that is read.
        raise MemoryError(f"no memory for {nbytes} decrypted bytes") from error
    if nbytes >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # The kernel has no such pages.
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _chunks(views: Sequence[memoryview], size: int) -> Iterator[Any]:
    """Yield the bytes of many buffers in chunks; what lies within one buffer is not copied."""
    pending: list[memoryview] = []
    held = 0
    for view in views:
        at = 0
        while at < view.nbytes:
            piece = view[at : at + size - held]
            at += piece.nbytes
            held += piece.nbytes
            pending.append(piece)
            if held == size:
                yield pending[0] if len(pending) == 1 else b"".join(pending)
                pending, held = [], 0
    if pending:
        yield pending[0] if len(pending) == 1 else b"".join(pending)
