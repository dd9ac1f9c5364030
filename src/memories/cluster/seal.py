"""Encrypts what one namespace of the nodes holds, before it leaves this process.

Keys and the namespace become cells (`sealing.cells`), frames and metadata blobs (`sealing.blob`).
The data key lies in a register, wrapped by the master key, under the name of that. At first it is
derived from the master key, so that managers which begin at the same time make the same one.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import TypeVar

from memories.cluster.register_api import FoundRegister, Registers
from memories.cluster.register_format import PREFIX, RegisterBody, RegisterKind, name_prefix
from memories.errors import CorruptDataError
from memories.sealing import key_files, sealed_file
from memories.sealing.blob import HEADER_BYTES, BlobCipher, BlobReader, DataKey, opened_length
from memories.sealing.cells import CellCipher
from memories.sealing.key_files import KeyRotation
from memories.sealing.master_key import EncryptionKey, WrappedKey
from memories.sealing.sealed_file import SealedHeader

T = TypeVar("T")
# Returns the bytes of a frame from each start to each stop.
Fetch = Callable[[Sequence[tuple[int, int]]], Sequence[memoryview]]

_KEY_NAME = PREFIX + b"\0\0key:"  # No key and no namespace is empty or contains a NUL.
_HIDDEN = "sealed:"
_NAMESPACE, _KEY, _FRAME, _METADATA = b"namespace\0", b"key\0", b"frame\0", b"metadata\0"
_LABEL = b"memories nodes 1"
_PLACE_BYTES = 16


class NodeSeal:
    """Encrypts and decrypts for one namespace. Safe to use from many threads and after a fork.

    Attributes:
        prefix: What the names of its registers begin with.
    """

    opened_length = staticmethod(opened_length)

    def __init__(self, key: DataKey, place: bytes, namespace: str) -> None:
        self._cipher = BlobCipher([key], place)
        self._cells = CellCipher(key, place)
        self._within = namespace.encode() + b"\0"
        hidden = self._cells.seal(_NAMESPACE, self._within)
        self.prefix = name_prefix(_HIDDEN + urlsafe_b64encode(hidden).decode())

    def key(self, key: str) -> bytes:
        """Return what follows the prefix in the name of the register of a key."""
        return urlsafe_b64encode(self._cells.seal(_KEY + self._within, key.encode()))

    def open_key(self, name: bytes) -> str | None:
        """Return the key of a register by what follows the prefix; None for a name not ours."""
        try:
            return self._cells.open(_KEY + self._within, urlsafe_b64decode(name)).decode()
        except (CorruptDataError, ValueError):
            return None

    def frame(self, key: str, segments: Sequence[memoryview]) -> list[memoryview]:
        """Return a frame encrypted, for this key only."""
        return [self._cipher.seal_whole(self._context(_FRAME, key), segments)]

    def open_frame(self, key: str, stored: memoryview) -> memoryview:
        """Return a frame.

        Raises:
            CorruptDataError: it was altered, or is that of another key.
        """
        blob = self._blob(key, bytes(stored[:HEADER_BYTES]), stored.nbytes)
        return blob.read(lambda at, length: stored[at : at + length], 0, blob.nbytes)

    def read_part(self, key: str, read: Callable[[Fetch, int], T], fetch: Fetch, nbytes: int) -> T:
        """Return `read` of a frame of which `fetch` returns encrypted ranges.

        Raises:
            CorruptDataError: it was altered, or is that of another key.
        """
        (head,) = fetch([(0, min(HEADER_BYTES, nbytes))])
        blob = self._blob(key, bytes(head), nbytes)

        def opened(spans: Sequence[tuple[int, int]]) -> list[memoryview]:
            extents = [blob.extent(start, stop) for start, stop in spans]
            parts = zip(spans, extents, fetch(extents), strict=True)
            return [_opened(blob, span, begin, stored) for span, (begin, _), stored in parts]

        return read(opened, blob.nbytes)

    def metadata(self, key: str, metadata: bytes) -> bytes:
        """Return metadata encrypted, for this key only."""
        return self._cipher.seal(self._context(_METADATA, key), metadata) if metadata else b""

    def open_metadata(self, key: str, stored: bytes) -> bytes:
        """Return metadata.

        Raises:
            CorruptDataError: they were altered, or are those of another key.
        """
        return self._cipher.open(self._context(_METADATA, key), stored) if stored else b""

    def _blob(self, key: str, head: bytes, nbytes: int) -> BlobReader:
        return self._cipher.reader(self._context(_FRAME, key), head, nbytes)

    def _context(self, what: bytes, key: str) -> bytes:
        return what + self._within + key.encode()


def open_seal(registers: Registers, master: EncryptionKey, namespace: str) -> NodeSeal:
    """Return what encrypts a namespace; the first manager of a master key makes the data key.

    Raises:
        EncryptionKeyError: this is not the key of that name, or not the version in use.
        UnavailableError: too few nodes answer.
    """
    name = master.newest()[0]
    found = _read(registers, name)
    if found is None:
        derived = master.derive(_LABEL)
        key = DataKey.new() if derived is None else DataKey(derived[:8], derived[8:40])
        place = os.urandom(_PLACE_BYTES) if derived is None else derived[40:56]
        _write(registers, name, sealed_file.pack_header(master.wrap(key, place), place))
        found = _read(registers, name)
    if found is None:
        raise CorruptDataError(
            f"the data key of {name!r} was removed from the nodes while it was made: try again"
        )
    return NodeSeal(master.unwrap(found.wrapped, found.place), found.place, namespace)


def rotate(registers: Registers, key: EncryptionKey, to: EncryptionKey | None) -> KeyRotation:
    """Wrap the data key on the nodes anew, also while managers use it.

    One register is written. It may be interrupted anywhere, and is then run again.

    Raises:
        EncryptionKeyError: `key` lacks the version in use, or is another one.
        UnavailableError: too few nodes answer.
    """
    to = to or key
    old, new = key.newest()[0], to.newest()[0]
    found = _read(registers, old) or _read(registers, new)
    if found is None:
        raise CorruptDataError(f"the nodes hold no data key of {old!r}")

    def replace(before: WrappedKey, after: WrappedKey) -> None:
        del before
        _write(registers, new, sealed_file.pack_header(after, found.place))

    done = key_files.rotate(key, to, [(found.wrapped, found.place)], replace)
    if old != new and _read(registers, old) is not None:
        _written(registers, old, RegisterBody(RegisterKind.TOMBSTONE))
    return done


def _read(registers: Registers, name: str) -> SealedHeader | None:
    register = _KEY_NAME + name.encode()
    found = registers.read([register])[register]
    if isinstance(found, Exception):
        raise found
    if not isinstance(found, FoundRegister) or found.kind is not RegisterKind.VALUE:
        return None
    what = f"the data key of {name!r} on the nodes"
    return sealed_file.parse_header(bytes(found.body or b""), what)


def _write(registers: Registers, name: str, header: bytes) -> None:
    _written(registers, name, RegisterBody(RegisterKind.VALUE, [header]))


def _written(registers: Registers, name: str, body: RegisterBody) -> None:
    register = _KEY_NAME + name.encode()
    outcome = registers.write({register: body})[register]
    if isinstance(outcome, Exception):
        raise outcome


def _opened(blob: BlobReader, span: tuple[int, int], begin: int, stored: memoryview) -> memoryview:
    """Return a span of a blob, whose bytes from `begin` on are `stored`."""
    return blob.read(lambda at, length: stored[at - begin : at - begin + length], *span)
