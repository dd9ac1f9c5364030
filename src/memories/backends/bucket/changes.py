"""Changes of the archive: prepared, and part of its history only once they are committed.

The journal of the disk store and the archive are two histories of one key, and a crash may stop
either. A change that is prepared here survives a crash and has no effect yet; the journal then says
whether to commit or to abort it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.object_index import NOWHERE, ObjectIndex
from memories.backends.bucket.objectstore import Buffer
from memories.backends.bucket.staging import StagedPacks
from memories.model.record import Record

_ALONE, _PACKED, _LINKED, _REMOVED, _AMENDED = "alone", "packed", "linked", "removed", "amended"

Change = Literal["value", "removal", "terms"]  # Of a version; as of it; or only of its terms.
_CHANGES: dict[str, Change] = {_REMOVED: "removal", _AMENDED: "terms"}  # All else is a value.


class PreparedChange(NamedTuple):
    """A change that is to be committed or aborted."""

    key: str
    version: int
    what: Change


class Changes:
    """Changes of values, removals and terms. Every method may be called from any thread."""

    def __init__(
        self, db: LocalDb, index: ObjectIndex, packs: StagedPacks, wall: Callable[[], float]
    ) -> None:
        self._db = db
        self._index = index
        self._packs = packs
        self._wall = wall

    def stage(
        self,
        record: Record,
        frame: Sequence[Buffer],
        length: int,
        head: bytes = b"",
        *,
        prepared: bool,
    ) -> Record:
        """Add a small frame to the open pack; it counts at once, or is only prepared.

        `head` is that of an encrypted frame.

        Raises:
            UnavailableError: too much is staged already; the bucket must take some of it first.
        """
        with self._db.transaction():
            location = self._packs.add(frame, length)._replace(head=head)
            staged = msgspec.structs.replace(record, place=location.encode(), stored=length)
            if prepared:
                self._prepare(staged, _PACKED)
            else:
                self._index.add(staged, location, self._wall())
        return staged

    def rewrite(self, record: Record, frame: Buffer) -> Record:
        """Add a small frame that garbage collection moves, at the same version."""
        head = ObjectLocation.decode(record.place).head
        return self.stage(record, [frame], memoryview(frame).nbytes, head, prepared=False)

    def prepare_uploaded(self, record: Record) -> None:
        """Prepare a version whose frame was uploaded as an object of its own."""
        self._prepare(record, _ALONE)

    def prepare_link(self, record: Record) -> None:
        """Prepare a version whose frame is in the bucket already, as that of another version."""
        self._prepare(record, _LINKED)

    def prepare_removal(self, key: str, version: int) -> None:
        """Prepare a removal.

        Raises:
            UnavailableError: too much is staged already; the bucket must take some of it first.
        """
        with self._db.transaction() as db:
            self._packs.open_pack()
            db.run(
                "INSERT OR REPLACE INTO prepared VALUES (?, ?, ?, ?, NULL)",
                self._db.cells.key(key), version, _REMOVED, NOWHERE,
            )  # fmt: skip

    def prepare_terms(self, record: Record) -> None:
        """Prepare other terms for the live version of `record`."""
        self._prepare(record, _AMENDED)

    def prepared(self) -> list[PreparedChange]:
        """Return what was neither committed nor aborted."""
        rows = self._db.rows("SELECT key, version, what FROM prepared")
        return [
            PreparedChange(self._db.cells.open_key(key), version, _CHANGES.get(what, "value"))
            for key, version, what in rows
        ]

    def commit(self, key: str, version: int) -> None:
        """Make a prepared change part of the history. Idempotent."""
        with self._db.transaction():
            found = self._take(key, version)
            if found is None:
                return
            what, token, record = found
            if what == _REMOVED:
                self._index.remove(key, version, self._packs.open_pack()[0], self._wall())
                return
            known = self._db.cells.open_record(record)
            if what == _AMENDED:
                self.amend(known)
                return
            live = self._index.add(known, ObjectLocation.decode(known.place), self._wall())
            if live and (what == _LINKED or (what == _PACKED and self._packs.is_indexed(token))):
                self._index.add_link(known, self._packs.open_pack()[0])

    def abort(self, key: str, version: int) -> bool:
        """Forget a prepared change; return whether an object is to be deleted. Idempotent.

        A frame in a pack is uploaded with the others, and no key refers to it.
        """
        with self._db.transaction() as db:
            found = self._take(key, version)
            if found is not None and found[0] == _ALONE:
                size = db.row("SELECT size FROM object WHERE token = ?", found[1])
                db.add("physical", -size[0] if size else 0)
                db.run("UPDATE object SET status = 'failed' WHERE token = ?", found[1])
                return True
        return False

    def amend(self, record: Record) -> None:
        """Give the live version of `record` its terms, here and in the bucket."""
        with self._db.transaction():
            known = self._index.amend(record)
            if known is None:
                return
            token = ObjectLocation.decode(known.place).token
            if self._packs.is_indexed(token):
                self._index.add_link(known, self._packs.open_pack()[0])

    def remove(self, key: str, version: int) -> bool:
        """Make `key` absent by a tombstone in the open pack; return whether one was needed."""
        with self._db.transaction():
            return self._index.remove(key, version, self._packs.open_pack()[0], self._wall())

    def clear(self, version: int) -> None:
        """Make everything up to `version` absent by one tombstone in the open pack."""
        with self._db.transaction():
            self._index.clear(version, self._packs.open_pack()[0], self._wall())

    def _prepare(self, record: Record, what: str) -> None:
        # New terms may come with the record of another copy, whose location is not in the bucket.
        token = NOWHERE if what == _AMENDED else ObjectLocation.decode(record.place).token
        self._db.run(
            "INSERT OR REPLACE INTO prepared VALUES (?, ?, ?, ?, ?)",
            self._db.cells.key(record.key), record.version, what, token,
            self._db.cells.record(record),
        )  # fmt: skip

    def _take(self, key: str, version: int) -> tuple[str, bytes, bytes] | None:
        """Remove a prepared change and return it, within a transaction."""
        name = self._db.cells.key(key), version
        found = self._db.row(
            "SELECT what, token, record FROM prepared WHERE key = ? AND version = ?", *name
        )
        self._db.run("DELETE FROM prepared WHERE key = ? AND version = ?", *name)
        return None if found is None else (found[0], found[1], found[2])
