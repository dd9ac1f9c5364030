"""The files in which a place keeps its data keys, each wrapped by a master key.

A file is small and replaced as a whole. So a rotation may end anywhere: some keys are wrapped anew,
the others are as they were, and all can be unwrapped by who has both versions of the master key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from memories.errors import CorruptDataError
from memories.sealing.blob import ID_BYTES, DataKey
from memories.sealing.master_key import EncryptionKey, WrappedKey

_FORMAT, _VERSION = "memories data key", 1


class KeyFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The content of a file, as JSON."""

    format: str
    version: int
    id: str  # Hexadecimal.
    master_key: str
    master_version: int
    wrapped: bytes  # Base64.


class KeyRotation(NamedTuple):
    """What a rotation did."""

    name: str  # Of the master key,
    version: int  # and its version, with which all data keys are wrapped now.
    rewrapped: int  # How many were wrapped anew.
    keys: int  # How many there are.

    def plus(self, other: KeyRotation) -> KeyRotation:
        """Return what this rotation and another one of the same master key did."""
        rewrapped, keys = self.rewrapped + other.rewrapped, self.keys + other.keys
        return self._replace(rewrapped=rewrapped, keys=keys)


def pack(wrapped: WrappedKey) -> bytes:
    """Return the content of the file of a data key."""
    content = KeyFile(
        format=_FORMAT,
        version=_VERSION,
        id=wrapped.id.hex(),
        master_key=wrapped.name,
        master_version=wrapped.version,
        wrapped=wrapped.data,
    )
    return msgspec.json.encode(content) + b"\n"


def parse(data: bytes, what: str) -> WrappedKey:
    """Return the data key in a file, which errors call `what`.

    Raises:
        CorruptDataError: it is damaged, or a later release wrote it.
    """
    try:
        found = msgspec.json.decode(data, type=KeyFile)
        identity = bytes.fromhex(found.id)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptDataError(
            f"{what} is damaged: {error}; restore it from a backup, since nothing can be read "
            "without it"
        ) from error
    if (found.format, found.version, len(identity)) != (_FORMAT, _VERSION, ID_BYTES):
        raise CorruptDataError(
            f"{what} has format {found.format!r} version {found.version}, and this package reads "
            f"{_FORMAT!r} version {_VERSION}"
        )
    return WrappedKey(identity, found.master_key, found.master_version, found.wrapped)


def rotate(
    key: EncryptionKey,
    to: EncryptionKey,
    files: Iterable[tuple[WrappedKey, bytes]],
    replace: Callable[[WrappedKey, WrappedKey], None],
) -> KeyRotation:
    """Wrap with the newest version of a master key what another version, or key, has wrapped.

    Args:
        key: The master key that unwraps; it must hold the version that is in use.
        to: The master key that wraps; it may be the same.
        files: The wrapped data keys, each with its place.
        replace: Called with what was there and what takes its place, durably.

    Raises:
        EncryptionKeyError: a data key cannot be unwrapped; those before it are rotated.
    """
    name, version = to.newest()
    rewrapped = count = 0
    for wrapped, place in files:
        count += 1
        if (wrapped.name, wrapped.version) != (name, version):
            opened: DataKey = key.unwrap(wrapped, place)
            replace(wrapped, to.wrap(opened, place))
            rewrapped += 1
    return KeyRotation(name, version, rewrapped, count)
