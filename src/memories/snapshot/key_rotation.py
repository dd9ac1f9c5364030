"""Wraps the data key of an encrypted snapshot anew: its values are copied as they lie.

The file appears with its new header whole, or stays as it was.
"""

from __future__ import annotations

import os
from pathlib import Path

from memories.sealing import sealed_file
from memories.sealing.key_files import KeyRotation
from memories.sealing.master_key import EncryptionKey, WrappedKey
from memories.snapshot.atomicfile import AtomicFile
from memories.snapshot.pread_file import PreadFile

_COPY_BYTES = 8 << 20


def wrapped_key(path: str | os.PathLike[str]) -> WrappedKey:
    """Return the data key of an encrypted snapshot as it lies there.

    Raises:
        StorageError: there is no file that can be read.
        CorruptDataError: it is not encrypted, or damaged.
    """
    file = PreadFile(Path(path), raw=True)
    try:
        return sealed_file.read_header(file.read, file.size, str(path)).wrapped
    finally:
        file.close()


def rotate_snapshot(
    path: str | os.PathLike[str], key: EncryptionKey, to: EncryptionKey | None = None
) -> KeyRotation:
    """Wrap the data key of the snapshot at `path` with the newest version of `to`, or of `key`.

    It may be interrupted anywhere, and is then run again.

    Raises:
        EncryptionKeyError: `key` lacks the version in use, or is another one.
        StorageError: the file cannot be read, or not be written; it stays as it was.
        CorruptDataError: it is not encrypted, or damaged.
    """
    file, to = PreadFile(Path(path), raw=True), to or key
    try:
        header = sealed_file.read_header(file.read, file.size, str(path))
        name, version = to.newest()
        if (header.wrapped.name, header.wrapped.version) == (name, version):
            return KeyRotation(name, version, 0, 1)
        data_key = key.unwrap(header.wrapped, header.place)
        with AtomicFile(path) as new:
            new.write([sealed_file.pack_header(to.wrap(data_key, header.place), header.place)])
            for at in range(header.nbytes, file.size, _COPY_BYTES):
                new.write([file.read(at, min(_COPY_BYTES, file.size - at))])
            new.commit()
        return KeyRotation(name, version, 1, 1)
    finally:
        file.close()
