"""Which versions are live, in which objects, and how many bytes that is.

Not storage: it decides and writes down, inside transactions of `LocalDb`, and does no request.
For a key at most one row is not dead: its newest version, or the tombstone of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from memories.backends.base import Usage
from memories.backends.bucket.local_db import DEAD, LINK, LIVE, TOMBSTONE, LocalDb
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.pack import PackContents, PackEntry
from memories.model.record import Record

EVERYTHING = ""  # The key of a tombstone that is one for every key.

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
NOWHERE = b""  # The token of a tombstone that no object needs to hold.
_NO_FRAME = -1  # The length in the row of a tombstone, dead or not,
_ELSEWHERE = -2  # and in that of a link.
_PAGE = 1000  # Rows per query of a scan, so that no lock is held over it.

_LOSERS = """
UPDATE entry SET state = 0, record = NULL WHERE (key, version, token) IN (
    SELECT key, version, token FROM (
        SELECT entry.key, entry.version, entry.token, row_number() OVER (
            PARTITION BY entry.key
            ORDER BY entry.version DESC, entry.state DESC, object.epoch DESC, object.sequence DESC
        ) AS rank FROM entry JOIN object USING (token)
        WHERE entry.state IN (1, 2) AND entry.key IN (
            SELECT key FROM entry WHERE state IN (1, 2) GROUP BY key HAVING count(*) > 1
        )
    ) WHERE rank > 1
)
"""


class CurrentEntry(NamedTuple):
    """The row of a key that is not dead."""

    version: int
    token: bytes
    state: int
    length: int


class ObjectIndex:
    """The rows of `LocalDb`, by meaning. A method is one transaction, or part of the caller's."""

    def __init__(self, db: LocalDb) -> None:
        self._db = db

    def add(self, record: Record, place: ObjectLocation, now: float) -> bool:
        """Note that `place` holds `record`; return whether it is the newest version of its key."""
        with self._db.transaction() as db:
            head = self.head(record.key)
            self._note_version(record.version)
            live = record.version > db.number("cleared") and (
                head is None or _supersedes(record.version, head)
            )
            if live and head is not None:
                self._kill(record.key, head, now)
            db.run(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)",
                record.key.encode(), record.version, place.token, LIVE if live else DEAD,
                place.length, _encode(record) if live else None,
            )  # fmt: skip
            if live:
                db.add("keys", 1)
                self._charge(place.token, place.length, now)
            return live

    def say(self, record: Record, token: bytes) -> None:
        """Let the object `token` say where the frame of a live record lies, and its terms."""
        self._db.run(
            "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)",
            record.key.encode(), record.version, token, LINK, _ELSEWHERE, _encode(record),
        )  # fmt: skip

    def amend(self, record: Record) -> Record | None:
        """Give the live version of `record` its terms; return what is known of it then."""
        with self._db.transaction() as db:
            known = self.find(record.key)
            if known is None or known.version != record.version:
                return None
            known = msgspec.structs.replace(known, terms=record.terms)
            db.run(
                "UPDATE entry SET record = ? WHERE key = ? AND version = ? AND state = 1",
                _encode(known), record.key.encode(), record.version,
            )  # fmt: skip
            return known

    def remove(self, key: str, version: int, token: bytes, now: float) -> bool:
        """Make `key` absent as of `version`; return whether the object `token` must say so."""
        with self._db.transaction() as db:
            self._note_version(version)
            head = self.head(key)
            if head is not None and head.version > version:
                return False
            if head is not None:
                self._kill(key, head, now)
            elif db.row("SELECT 1 FROM entry WHERE key = ?", key.encode()) is None:
                # The bucket never heard of it; only a late write may still ask.
                self._bury(key, version, NOWHERE)
                return False
            self._bury(key, version, token)
            return True

    def clear(self, version: int, token: bytes, now: float) -> None:
        """Make every version up to `version` absent; the object `token` must say so."""
        with self._db.transaction() as db:
            self._note_version(version)
            db.set("cleared", max(version, db.number("cleared")))
            db.run(
                "UPDATE entry SET state = 0, record = NULL WHERE state != 0 AND version <= ?",
                version,
            )
            self._recount(now)
            self._bury(EVERYTHING, version, token)

    def head(self, key: str) -> CurrentEntry | None:
        """Return the row of `key` that is not dead."""
        found = self._db.row(
            "SELECT version, token, state, length FROM entry WHERE key = ? AND state IN (1, 2)",
            key.encode(),
        )
        return None if found is None else CurrentEntry(*found)

    def find(self, key: str) -> Record | None:
        """Return the live record of `key`."""
        found = self._db.row("SELECT record FROM entry WHERE key = ? AND state = 1", key.encode())
        return None if found is None else _decode(found[0])

    def removed(self, key: str) -> int:
        """Return the version as of which `key` is removed; 0 where it is not, or nobody knows."""
        head = self.head(key)
        if head is not None:
            return head.version if head.state == TOMBSTONE else 0
        return self._db.number("cleared")

    def scan(self, prefix: str, after: str) -> Iterator[Record]:
        """Yield live records in the order of their keys' bytes."""
        begin, last = prefix.encode(), after.encode()
        while True:
            page = self._db.rows(
                "SELECT key, record FROM entry WHERE key >= ? AND key > ? AND state = 1 "
                "ORDER BY key LIMIT ?", begin, last, _PAGE,
            )  # fmt: skip
            for key, record in page:
                if not key.startswith(begin):
                    return
                yield _decode(record)
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def contents(self, token: bytes) -> PackContents:
        """Return what an object has to say of itself: its live frames, and what else is gone.

        A dead version still says that all before it are gone: whatever made it dead may not have
        reached the bucket when the bucket is all that is left.
        """
        stored, removed, linked = [], [], []
        for key, version, state, length, record in self._db.rows(
            "SELECT key, version, state, length, record FROM entry WHERE token = ?", token
        ):
            if state == LIVE:
                known = _decode(record)
                place = ObjectLocation.decode(known.place)
                bare = msgspec.structs.replace(known, place=b"")
                stored.append(PackEntry(place.offset, place.length, bare))
                continue
            live = self.find(key.decode()) if state == LINK else None
            if live is not None and live.version == version and live.place == _decode(record).place:
                linked.append(live)
            else:
                removed.append((key.decode(), version if length == _NO_FRAME else version - 1))
        return PackContents(stored, removed, linked)

    def usage(self) -> Usage:
        """Return the totals."""
        number = self._db.number
        return Usage(number("live"), number("physical"), number("keys"))

    def load(self, place_of: bytes, contents: PackContents) -> None:
        """Enter what an object says of itself, unjudged: `settle` must follow."""
        rows: list[tuple[object, ...]] = []
        for item in contents.stored:
            place = ObjectLocation(place_of, item.offset, item.length).encode()
            record = msgspec.structs.replace(item.record, place=place)
            rows.append(
                (record.key.encode(), record.version, place_of, LIVE, item.length, _encode(record))
            )
        rows += [
            (key.encode(), version, place_of, TOMBSTONE, _NO_FRAME, None)
            for key, version in contents.removed
        ]
        rows += [
            (one.key.encode(), one.version, place_of, LINK, _ELSEWHERE, _encode(one))
            for one in contents.linked
        ]
        self._db.run_many("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)", rows)

    def settle(self, now: float) -> None:
        """Judge all rows anew: per key the highest version wins, then the latest object."""
        with self._db.transaction() as db:
            self._follow_links()
            found = db.row("SELECT max(version) FROM entry WHERE key = ?", EVERYTHING.encode())
            cleared = (found and found[0]) or 0
            db.set("cleared", cleared)
            db.run(
                "UPDATE entry SET state = 0, record = NULL "
                "WHERE state != 0 AND version <= ? AND key != ?", cleared, EVERYTHING.encode(),
            )  # fmt: skip
            db.run(_LOSERS)
            found = db.row("SELECT max(version) FROM entry")
            self._note_version((found and found[0]) or 0)
            self._recount(now)

    def forget(self, token: bytes, now: float) -> None:
        """Drop an object that is lost, and every row about it."""
        with self._db.transaction() as db:
            db.run("DELETE FROM entry WHERE token = ?", token)
            db.run("DELETE FROM object WHERE token = ?", token)
            self._recount(now)

    def _follow_links(self) -> None:
        """Enter what objects say of others, the latest last, where those are there still."""
        for key, version, record in self._db.rows(
            "SELECT key, version, record FROM entry JOIN object USING (token) WHERE state = 3 "
            "ORDER BY object.epoch, object.sequence"
        ):
            place = ObjectLocation.decode(_decode(record).place)
            found = self._db.row("SELECT size FROM object WHERE token = ?", place.token)
            if found is not None and place.offset + place.length <= found[0]:
                self._db.run(
                    "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)",
                    key, version, place.token, LIVE, place.length, record,
                )  # fmt: skip

    def _bury(self, key: str, version: int, token: bytes) -> None:
        self._db.run(
            "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, NULL)",
            key.encode(), version, token, TOMBSTONE, _NO_FRAME,
        )  # fmt: skip

    def _kill(self, key: str, head: CurrentEntry, now: float) -> None:
        self._db.run(
            "UPDATE entry SET state = 0, record = NULL WHERE key = ? AND version = ? AND token = ?",
            key.encode(), head.version, head.token,
        )  # fmt: skip
        if head.state == LIVE:
            self._db.add("keys", -1)
            self._charge(head.token, -head.length, now)

    def _charge(self, token: bytes, length: int, now: float) -> None:
        self._db.add("live", length)
        self._db.run(
            "UPDATE object SET live = live + ?1, "
            "retired_at = CASE WHEN live + ?1 = 0 THEN ?2 END WHERE token = ?3",
            length, now, token,
        )  # fmt: skip

    def _recount(self, now: float) -> None:
        db = self._db
        db.run(
            "UPDATE object SET live = (SELECT coalesce(sum(length), 0) FROM entry "
            "WHERE entry.token = object.token AND state = 1)"
        )
        db.run("UPDATE object SET retired_at = ? WHERE live = 0 AND retired_at IS NULL", now)
        db.run("UPDATE object SET retired_at = NULL WHERE live > 0")
        found = db.row("SELECT coalesce(sum(live), 0), coalesce(sum(size), 0) FROM object")
        keys = db.row("SELECT count(*) FROM entry WHERE state = 1")
        assert found is not None and keys is not None
        for name, value in zip(("live", "physical", "keys"), (*found, *keys), strict=True):
            db.set(name, value)

    def _note_version(self, version: int) -> None:
        if version > self._db.number("last_version"):
            self._db.set("last_version", version)


def _supersedes(version: int, head: CurrentEntry) -> bool:
    # An equal version is the same frame at a new place, unless it was removed since.
    return version > head.version or (version == head.version and head.state == LIVE)
