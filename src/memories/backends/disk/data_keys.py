"""The data keys of an encrypted store, in `keys/`: made, opened and rotated.

A store is encrypted from its first byte on, or never: its `FORMAT` says which.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from memories.backends.disk import paths as store_paths
from memories.backends.disk.files import Files, storage_error
from memories.backends.disk.paths import StorePaths, numbers
from memories.backends.disk.seal import StoreSeal
from memories.errors import (
    CorruptDataError,
    EncryptionKeyError,
    MemoriesError,
    StorageError,
)
from memories.foundation.regular_file import read_regular
from memories.sealing import key_files
from memories.sealing.blob import BlobCipher, DataKey
from memories.sealing.key_files import KeyRotation
from memories.sealing.master_key import EncryptionKey, WrappedKey

_MAX_BYTES = 1 << 16


def require_fit(paths: StorePaths, key: EncryptionKey | None) -> None:
    """Raise unless an existing store is encrypted if, and only if, there is a key. Changes nothing.

    Raises:
        EncryptionKeyError: it is encrypted and there is no key, or the other way round.
    """
    encrypted = store_paths.is_encrypted(paths)
    if encrypted and key is None:
        raise EncryptionKeyError(
            f"the store in {paths.root} is encrypted: open it with encryption='file:PATH' (or set "
            "MEMORIES_ENCRYPTION), which says where its key is"
        )
    if encrypted is False and key is not None:
        raise EncryptionKeyError(
            f"the store in {paths.root} is not encrypted, and encryption= does not encrypt what "
            "lies there: restore a snapshot of it into a new storage_path with encryption=, and "
            "remove the old directory"
        )


def create(paths: StorePaths, files: Files, key: EncryptionKey | None) -> None:
    """Create an empty store, unless there is one already; with a key an encrypted one."""
    make_key = None if key is None else partial(_make_first, paths, files, key)
    store_paths.create(paths, files, make_key)


def _make_first(paths: StorePaths, files: Files, key: EncryptionKey) -> None:
    """Make the first data key of a store, unless an opening that did not end has made it."""
    files.mkdir(paths.keys)
    if not numbers(paths.keys, ".key"):
        wrapped = key.wrap(DataKey.new(), _place(paths))
        store_paths.write_whole(files, paths.key(1), key_files.pack(wrapped))


def open_seal(paths: StorePaths, key: EncryptionKey | None) -> StoreSeal | None:
    """Return what encrypts and decrypts the files of a store; None for one that is not encrypted.

    Raises:
        EncryptionKeyError: this is not the key of the store, or not the version in use.
        CorruptDataError: a data key is missing or damaged.
    """
    if key is None:
        return None
    place = _place(paths)
    opened = [key.unwrap(wrapped, place) for _, wrapped in _read(paths)]
    if not opened:
        raise CorruptDataError(
            f"{paths.keys} holds no data key, and the store is encrypted with one: restore the "
            "directory from a backup, since nothing can be read without it"
        )
    return StoreSeal(BlobCipher(opened, place))


def wrapped_keys(root: Path) -> list[WrappedKey]:
    """Return the data keys of a store as they lie there; the last one encrypts.

    Raises:
        StorageError: the store is not encrypted, or cannot be read.
    """
    paths = StorePaths(root)
    if not store_paths.is_encrypted(paths):
        raise StorageError(f"{paths.root} holds no encrypted store: check the path")
    return [wrapped for _, wrapped in _read(paths)]


def rotate(
    root: Path, key: EncryptionKey, to: EncryptionKey | None = None, files: Files | None = None
) -> KeyRotation:
    """Wrap the data keys of a store anew, also while a manager has it open; see `key_files.rotate`.

    No value is written again. It may be interrupted anywhere, and is then run again.

    Raises:
        EncryptionKeyError: `key` lacks the version in use, or is another one.
        StorageError: no encrypted store lies there, or the disk failed.
    """
    paths, files = StorePaths(root), files or Files()
    wrapped_keys(root)  # Raises for a store that is not encrypted.
    place, found = _place(paths), _read(paths)
    path_of = {wrapped.id: path for path, wrapped in found}

    def replace(old: WrappedKey, new: WrappedKey) -> None:
        store_paths.write_whole(files, path_of[old.id], key_files.pack(new))

    wrapped_here = [(wrapped, place) for _, wrapped in found]
    try:
        return key_files.rotate(key, to or key, wrapped_here, replace)
    except OSError as error:
        if isinstance(error, MemoriesError):
            raise
        raise storage_error("rotate the key of the store", root, error) from error


def _place(paths: StorePaths) -> bytes:
    """Return the identity of the store, to which its data keys and blobs are bound."""
    found = store_paths.read_statement(paths, store_paths.IDENTITY)
    if found is None or len(found) != store_paths.IDENTITY_NBYTES:
        raise CorruptDataError(
            f"{paths.statement(store_paths.IDENTITY)} is missing or damaged, and the store is "
            "encrypted for it: restore it from a backup"
        )
    return found


def _read(paths: StorePaths) -> list[tuple[Path, WrappedKey]]:
    found = []
    for number in numbers(paths.keys, ".key"):
        path = paths.key(number)
        try:
            data = read_regular(path, limit=_MAX_BYTES).data
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        found.append((path, key_files.parse(data, str(path))))
    return found
