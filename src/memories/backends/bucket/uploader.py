"""What is on its way to the bucket: large frames alone, small ones and tombstones in packs.

Not a queue in RAM: what is staged lies in `LocalDb`, durable, readable, with its final place.
One pack is open for additions; a sealed one is uploaded, and only then leaves the stage.

A change may be prepared, and become part of the history when it is committed: so two histories, of
which a crash may stop either, are brought to agree. What is prepared is there, and counts not yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from memories.backends.bucket.local_db import LIVE, LocalDb
from memories.backends.bucket.location import ObjectLocation, new_token, object_name
from memories.backends.bucket.object_index import NOWHERE, ObjectIndex
from memories.backends.bucket.objectstore import Buffer, ObjectStore
from memories.backends.bucket.pack import PackContents, PackEntry, PackIndex, finish, padding
from memories.errors import UnavailableError
from memories.foundation.fork_lock import new_lock
from memories.model.record import Record

_PAD = bytes(64)
_STAGED = "SELECT token FROM object WHERE status IN ('open', 'sealed')"
_SEALED = "SELECT 1 FROM object WHERE status = 'sealed'"
_MOST_PACKS = 16  # Staged at once; a bucket that does not answer must not fill the disk.
_ALONE, _PACKED, _LINKED, _REMOVED, _AMENDED = "alone", "packed", "linked", "removed", "amended"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


Change = Literal["value", "removal", "terms"]  # Of a version; as of it; or what is said of it.
_CHANGES: dict[str, Change] = {_REMOVED: "removal", _AMENDED: "terms"}  # A value in all else.


class Prepared(NamedTuple):
    """A change that is to be committed or aborted."""

    key: str
    version: int
    what: Change


class Uploader:
    """Stages, packs and uploads. Every method may be called from any thread."""

    def __init__(
        self,
        store: ObjectStore,
        db: LocalDb,
        index: ObjectIndex,
        *,
        pack_bytes: int,
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._db = db
        self._index = index
        self._pack_bytes = pack_bytes
        self._wall = wall
        self._uploading = new_lock()
        # The packs that are still here, so that a read of what is not asks no database.
        self._sealed = db.row(_SEALED) is not None
        self._here = {token for (token,) in db.rows(_STAGED)}
        self._told: set[bytes] = set()  # Packs whose index is made, and says no more than it says.

    def upload(
        self,
        record: Record,
        frame: Sequence[Buffer],
        length: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> Record:
        """Put a large frame as an object of its own; it is prepared.

        `progress` is called with the bytes that are on their way or there, and all of them.
        """
        place = ObjectLocation(new_token(), 0, length)
        with self._db.transaction():
            sequence = self._add_object(place.token, "intended")
        contents = PackContents([PackEntry(0, length, _bare(record, length))])
        gap = padding(length)
        end = finish(self._pack_index(sequence, contents), length + gap)
        try:
            self._store.put(
                place.name, [*frame, _PAD[:gap], end], _counted(progress, length + gap + len(end))
            )
        except BaseException:
            # It may have arrived all the same: `recover` deletes it, once the store answers.
            self._db.run("UPDATE object SET status = 'failed' WHERE token = ?", place.token)
            raise
        kept = msgspec.structs.replace(record, place=place.encode(), stored=length)
        with self._db.transaction():
            self._arrived(place.token, length + gap + len(end))
            self._prepare(kept, _ALONE)
        return kept

    def stage(
        self, record: Record, frame: Sequence[Buffer], length: int, *, prepared: bool
    ) -> Record:
        """Keep a small frame in the open pack; it counts at once, or is only prepared.

        Raises:
            UnavailableError: so much is staged already that the bucket must take some first.
        """
        with self._db.transaction() as db:
            token, offset = self.open_pack()
            place = ObjectLocation(token, offset, length)
            db.run("INSERT INTO staged VALUES (?, ?, ?)", token, offset, b"".join(frame))
            taken = length + padding(length)
            db.run("UPDATE object SET size = size + ? WHERE token = ?", taken, token)
            db.add("physical", taken)
            kept = msgspec.structs.replace(record, place=place.encode(), stored=length)
            if prepared:
                self._prepare(kept, _PACKED)
            else:
                self._index.add(kept, place, self._wall())
            if offset + taken >= self._pack_bytes:
                self._seal()
        return kept

    def prepare_link(self, record: Record) -> None:
        """Prepare that a frame which lies in the bucket already is that of another version, too."""
        self._prepare(record, _LINKED)

    def prepare_removal(self, key: str, version: int) -> None:
        """Prepare a removal.

        Raises:
            UnavailableError: so much is staged already that the bucket must take some first.
        """
        with self._db.transaction() as db:
            self.open_pack()
            db.run(
                "INSERT OR REPLACE INTO prepared VALUES (?, ?, ?, ?, NULL)",
                key.encode(), version, _REMOVED, NOWHERE,
            )  # fmt: skip

    def prepare_terms(self, record: Record) -> None:
        """Prepare other terms for the live version of `record`."""
        self._prepare(record, _AMENDED)

    def prepared(self) -> list[Prepared]:
        """Return what was neither committed nor aborted."""
        rows = self._db.rows("SELECT key, version, what FROM prepared")
        return [
            Prepared(key.decode(), version, _CHANGES.get(what, "value"))
            for key, version, what in rows
        ]

    def commit(self, key: str, version: int) -> None:
        """Let what was prepared be a part of the history; nothing happens a second time."""
        with self._db.transaction():
            found = self._take(key, version)
            if found is None:
                return
            what, token, record = found
            if what == _REMOVED:
                self._index.remove(key, version, self.open_pack()[0], self._wall())
                return
            known = _decode(record)
            if what == _AMENDED:
                self.amend(known)
                return
            live = self._index.add(known, ObjectLocation.decode(known.place), self._wall())
            if live and (what == _LINKED or (what == _PACKED and self._is_told(token))):
                self._index.say(known, self.open_pack()[0])

    def abort(self, key: str, version: int) -> None:
        """Forget what was prepared; a frame in a pack travels with the others, and is nobody's."""
        with self._db.transaction() as db:
            found = self._take(key, version)
            if found is not None and found[0] == _ALONE:
                size = db.row("SELECT size FROM object WHERE token = ?", found[1])
                db.add("physical", -size[0] if size else 0)
                db.run("UPDATE object SET status = 'failed' WHERE token = ?", found[1])

    def amend(self, record: Record) -> None:
        """Give the live version of `record` its terms, here and in the bucket."""
        with self._db.transaction():
            known = self._index.amend(record)
            if known is None:
                return
            token = ObjectLocation.decode(known.place).token
            if self._is_told(token):
                self._index.say(known, self.open_pack()[0])

    def bury(self, key: str, version: int) -> bool:
        """Keep a tombstone in the open pack; return whether one was needed."""
        with self._db.transaction():
            return self._index.remove(key, version, self.open_pack()[0], self._wall())

    def bury_all(self, version: int) -> None:
        """Keep a tombstone of everything up to `version` in the open pack."""
        with self._db.transaction():
            self._index.clear(version, self.open_pack()[0], self._wall())

    def staged(self, place: ObjectLocation) -> memoryview | None:
        """Return a frame that is still staged, or None."""
        if place.token not in self._here:
            return None
        found = self._db.row(
            "SELECT frame FROM staged WHERE token = ? AND offset = ?", place.token, place.offset
        )
        return None if found is None else memoryview(found[0])

    def open_pack(self) -> tuple[bytes, int]:
        """Return the pack that takes additions and its bytes so far, within a transaction."""
        found = self._db.row("SELECT token, size FROM object WHERE status = 'open'")
        if found is not None:
            return found[0], found[1]
        waiting = self._db.row("SELECT count(*) FROM object WHERE status = 'sealed'")
        if waiting is not None and waiting[0] >= _MOST_PACKS:
            raise UnavailableError(
                f"{waiting[0]} packs of small values are staged and {self._store.url} has taken "
                "none of them. They are safe on the disk; restore the connection."
            )
        token = new_token()
        self._add_object(token, "open")
        self._here.add(token)
        return token, 0

    def flush(self) -> None:
        """Upload everything that is staged."""
        with self._uploading:
            self._seal()
            self._upload_sealed()

    def flush_full(self, before: Callable[[], None]) -> None:
        """Upload the packs that are full, after calling `before` if there are any."""
        if self._sealed:
            before()
            with self._uploading:
                self._upload_sealed()

    def flush_through(self, token: bytes) -> None:
        """Return once the pack `token` is uploaded; who waits meanwhile travels in the next one."""
        with self._uploading:
            if self._is_staged(token):
                self._seal()
                self._upload_sealed()

    def staged_since(self) -> float | None:
        """Return when the oldest staged pack was begun, None if nothing is staged."""
        found = self._db.row(
            "SELECT min(created_at) FROM object WHERE status IN ('open', 'sealed')"
        )
        return None if found is None else found[0]

    def waiting(self) -> list[str]:
        """Return the keys of the values that are staged."""
        return [
            bytes(key).decode()
            for (key,) in self._db.rows(
                "SELECT DISTINCT entry.key FROM entry JOIN object USING (token) "
                f"WHERE object.status IN ('open', 'sealed') AND entry.state = {LIVE} ORDER BY 1"
            )
        ]

    def disown(self) -> list[str]:
        """Mark what an earlier process began to upload and never noted, and return its names."""
        began = self._db.rows("SELECT token FROM object WHERE status IN ('intended', 'sealed')")
        self._db.run("UPDATE object SET status = 'failed' WHERE status = 'intended'")
        return [object_name(token) for (token,) in began]

    def recover(self) -> None:
        """Delete the objects of uploads that failed."""
        for (token,) in self._db.rows("SELECT token FROM object WHERE status = 'failed'"):
            self._store.delete(object_name(token))
            self._db.run("DELETE FROM object WHERE token = ?", token)

    def _is_staged(self, token: bytes) -> bool:
        query = "SELECT 1 FROM object WHERE token = ? AND status IN ('open', 'sealed')"
        return self._db.row(query, token) is not None

    def _seal(self) -> None:
        if self._db.run("UPDATE object SET status = 'sealed' WHERE status = 'open'"):
            self._sealed = True

    def _upload_sealed(self) -> None:
        for token, sequence, size in self._db.rows(
            "SELECT token, sequence, size FROM object WHERE status = 'sealed' ORDER BY sequence"
        ):
            with self._db.transaction() as db:
                self._told.add(token)
                contents = self._index.contents(token)
                awaited = db.row(
                    "SELECT 1 FROM pin WHERE token = ?1 UNION ALL "
                    "SELECT 1 FROM prepared WHERE token = ?1", token,
                )  # fmt: skip
            if contents.stored or contents.removed or contents.linked or awaited:
                self._upload_pack(token, sequence, size, contents)
            else:
                self._drop_pack(token, size)
        # A pack that is sealed at this very moment may be missed; the next flush takes it.
        self._sealed = self._db.row(_SEALED) is not None

    def _upload_pack(self, token: bytes, sequence: int, size: int, contents: PackContents) -> None:
        body: list[Buffer] = []
        for (frame,) in self._db.rows(
            "SELECT frame FROM staged WHERE token = ? ORDER BY offset", token
        ):
            body += [frame, _PAD[: padding(len(frame))]]
        end = finish(self._pack_index(sequence, contents), size)
        self._store.put(object_name(token), [*body, end])
        with self._db.transaction() as db:
            db.add("physical", -size)
            self._arrived(token, size + len(end))
            db.run("DELETE FROM staged WHERE token = ?", token)
        self._here.discard(token)
        self._told.discard(token)

    def _drop_pack(self, token: bytes, size: int) -> None:
        with self._db.transaction() as db:
            for table in ("object", "staged", "entry"):
                db.run(f"DELETE FROM {table} WHERE token = ?", token)
            db.add("physical", -size)
        self._here.discard(token)
        self._told.discard(token)

    def _prepare(self, record: Record, what: str) -> None:
        # Of new terms the record may be that of another copy, which lies elsewhere.
        token = NOWHERE if what == _AMENDED else ObjectLocation.decode(record.place).token
        self._db.run(
            "INSERT OR REPLACE INTO prepared VALUES (?, ?, ?, ?, ?)",
            record.key.encode(), record.version, what, token, _encode(record),
        )  # fmt: skip

    def _take(self, key: str, version: int) -> tuple[str, bytes, bytes] | None:
        """Take what was prepared out, within a transaction."""
        name = key.encode(), version
        found = self._db.row(
            "SELECT what, token, record FROM prepared WHERE key = ? AND version = ?", *name
        )
        self._db.run("DELETE FROM prepared WHERE key = ? AND version = ?", *name)
        return None if found is None else (found[0], found[1], found[2])

    def _is_told(self, token: bytes) -> bool:
        """Return whether the index of a pack is made, so that it says nothing of what is new."""
        return token in self._told or not self._is_staged(token)

    def _add_object(self, token: bytes, status: str) -> int:
        sequence = self._db.add("sequence", 1)
        now = self._wall()
        self._db.run(
            "INSERT INTO object VALUES (?, ?, ?, 0, 0, ?, ?, ?, NULL)",
            token, self._db.number("epoch"), sequence, status, now, now,
        )  # fmt: skip
        return sequence

    def _arrived(self, token: bytes, size: int) -> None:
        self._db.run("UPDATE object SET status = 'there', size = ? WHERE token = ?", size, token)
        self._db.add("physical", size)

    def _pack_index(self, sequence: int, contents: PackContents) -> PackIndex:
        return PackIndex(
            self._db.identity(), self._db.number("epoch"), sequence, self._wall(), contents
        )


def _counted(
    progress: Callable[[int, int], None] | None, total: int
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def sending(count: int) -> None:
        nonlocal done
        done = min(total, done + count)  # What is sent again is not progress.
        progress(done, total)

    return sending


def _bare(record: Record, length: int) -> Record:
    return msgspec.structs.replace(record, place=b"", stored=length)
