"""The data key of an encrypted archive: made, opened, remembered on this machine, and rotated.

It lies in the bucket as `keys/1`, wrapped by a master key. An archive is encrypted from its first
object on, or never. The map on this machine holds a copy of that object, so that staged values can
be read while the bucket is away.
"""

from __future__ import annotations

import os
from contextlib import suppress

from memories.backends.bucket.cells import SealedCells, UnknownCells
from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.objectstore import Absent, Conflict, ObjectStore
from memories.backends.bucket.seal import ArchiveSeal
from memories.errors import CorruptDataError, EncryptionKeyError, StorageError
from memories.sealing import key_files, sealed_file
from memories.sealing.blob import DataKey
from memories.sealing.cells import CellCipher
from memories.sealing.key_files import KeyRotation
from memories.sealing.master_key import EncryptionKey, WrappedKey

NAME = "keys/1"
_PLACE_BYTES = 16
_EMPTIED = ("entry", "object", "staged", "prepared", "pin", "damage")
_NUMBERS = ("adopted", "physical", "live", "keys", "cleared", "last_version", "sequence", "epoch")


class ArchiveKey:
    """The data key of the archive that one backend opens.

    Args:
        store: The bucket.
        db: Where the key is remembered; its `seal` and `cells` are set once the key is known.
        master: What wraps it; None for an archive that is not encrypted.

    Raises:
        EncryptionKeyError: the map on this machine is encrypted and there is no key, or the other
            way round.
    """

    def __init__(self, store: ObjectStore, db: LocalDb, master: EncryptionKey | None) -> None:
        self._store, self._db, self._master = store, db, master
        db.encrypted = master is not None
        self._place: tuple[bytes, bytes] | None = None  # Of the remembered key: its id, its place.
        found = self._remembered()
        if master is None:
            if found is not None:
                raise _is_encrypted(f"the map of the archive, {db.path},")
            return
        db.cells = UnknownCells()
        if found is not None:
            wrapped, place = _parsed(found, str(db.path))
            self._place = wrapped.id, place
            # Otherwise another machine has rotated the key, and the bucket has it wrapped anew.
            with suppress(EncryptionKeyError):
                self._use(wrapped, place)
        elif db.number("adopted"):
            raise EncryptionKeyError(
                f"the map of the archive, {db.path}, is not encrypted: encryption= is for an "
                "archive that is new"
            )

    def look(self) -> None:
        """Read the key from the bucket, if it is there, before anything else is done with it.

        Raises:
            EncryptionKeyError: the archive is encrypted and there is no key, or the other way
                round, or this is not the key.
            CorruptDataError: the key object is damaged.
        """
        data = _stored(self._store)
        if self._master is None:
            if data is not None:
                raise _is_encrypted(f"the archive {self._store.url}")
            return
        if data is not None:
            self._learn(data)
        elif self._place is None and any(True for _ in self._store.list("objects/")):
            raise EncryptionKeyError(
                f"the archive {self._store.url} is not encrypted, and encryption= does not encrypt "
                "what lies there: give a glacier_url where nothing is"
            )

    def create(self) -> None:
        """Put the key into a bucket that has none, by the holder of the lease.

        If the bucket has lost it, that is the one which this machine remembers.
        """
        if self._master is None or _stored(self._store) is not None:
            return
        found = self._remembered()
        if found is None:
            place = os.urandom(_PLACE_BYTES)
            wrapped = self._master.wrap(DataKey.new(), place)
            found = sealed_file.pack_header(wrapped, place)
            self._learn(found)
        try:
            self._store.put_if(NAME, found, None)
        except Conflict:
            self.look()

    def require(self) -> None:
        """Raise unless the bucket has a key, which its reader cannot make.

        Raises:
            CorruptDataError: it has none.
        """
        if self._master is not None and self._db.seal is None:
            raise CorruptDataError(
                f"the archive {self._store.url} has lost {NAME}, with which it is encrypted, or "
                "nothing was ever written there: restore it from a backup"
            )

    def rotate(self, key: EncryptionKey, to: EncryptionKey | None) -> KeyRotation:
        """Wrap the data key anew, here and in the bucket; see `rotate` below."""
        done = rotate(self._store, key, to)
        self.look()
        return done

    def _remembered(self) -> bytes | None:
        """Return the key object of which the map has a copy, if it has one."""
        rows = self._db.rows("SELECT header FROM data_key")
        return rows[0][0] if rows else None

    def _learn(self, header: bytes) -> None:
        """Use and remember the key that the bucket holds."""
        wrapped, place = _parsed(header, f"{NAME} of {self._store.url}")
        if self._db.seal is None or self._place != (wrapped.id, place):
            if self._place not in (None, (wrapped.id, place)):
                self._forget_another()
            self._use(wrapped, place)
        with self._db.transaction() as db:
            db.run("DELETE FROM data_key")
            db.run("INSERT INTO data_key VALUES (?)", header)

    def _forget_another(self) -> None:
        """Empty a map that is that of another archive, if nothing is lost by that."""
        for table in ("staged", "prepared"):
            if self._db.row(f"SELECT 1 FROM {table}") is not None:
                raise StorageError(
                    f"{self._db.path} holds values that wait for another archive than "
                    f"{self._store.url}, encrypted for it: open the store with the glacier_url "
                    "that it had before, and close it once that archive can be reached"
                )
        with self._db.transaction() as db:
            for table in _EMPTIED:
                db.run(f"DELETE FROM {table}")
            for name in _NUMBERS:
                db.set(name, 0)

    def _use(self, wrapped: WrappedKey, place: bytes) -> None:
        assert self._master is not None, "without one nothing is opened"
        key = self._master.unwrap(wrapped, place)
        self._db.cells = SealedCells(CellCipher(key, place))
        self._db.seal = ArchiveSeal(key, place)
        self._place = wrapped.id, place


def wrapped_key(store: ObjectStore) -> tuple[WrappedKey, bytes]:
    """Return the data key of an archive as it lies there, and its place.

    Raises:
        StorageError: the archive is not encrypted.
    """
    data = _stored(store)
    if data is None:
        raise StorageError(f"{store.url} holds no encrypted archive: check the URL")
    return _parsed(data, f"{NAME} of {store.url}")


def rotate(store: ObjectStore, key: EncryptionKey, to: EncryptionKey | None = None) -> KeyRotation:
    """Wrap the data key of an archive anew, also while a manager has it open.

    One small object is replaced as a whole. It may be interrupted anywhere, and is then run again.

    Raises:
        EncryptionKeyError: `key` lacks the version in use, or is another one.
        StorageError: no encrypted archive lies there.
    """
    found = wrapped_key(store)

    def replace(old: WrappedKey, new: WrappedKey) -> None:
        del old
        store.put(NAME, [sealed_file.pack_header(new, found[1])])

    return key_files.rotate(key, to or key, [found], replace)


def _stored(store: ObjectStore) -> bytes | None:
    try:
        return store.get(NAME)[0]
    except Absent:
        return None


def _parsed(header: bytes, what: str) -> tuple[WrappedKey, bytes]:
    found = sealed_file.parse_header(header, what)
    return found.wrapped, found.place


def _is_encrypted(what: str) -> EncryptionKeyError:
    return EncryptionKeyError(
        f"{what} is encrypted: open it with encryption='file:PATH' (or set MEMORIES_ENCRYPTION), "
        "which says where its key is"
    )
