"""Which versions are live, in which objects they are, and how many bytes that is.

Everything happens in transactions of `LocalDb`, without a request to the bucket. At most one row of
a key is not dead: its newest version, or a tombstone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from memories.backends.base import Usage
from memories.backends.bucket.cells import Cells, in_order
from memories.backends.bucket.local_db import DEAD, LINK, LIVE, TOMBSTONE, LocalDb
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.pack import PackContents, PackEntry
from memories.model.record import Record

EVERYTHING = ""  # The key of a tombstone that is one for every key.

NOWHERE = b""  # The token of a tombstone that no object needs to hold.
_NO_FRAME = -1  # The length in the row of a tombstone, dead or not,
_ELSEWHERE = -2  # and in that of a link.
_PAGE = 1000  # Rows per query of a scan, so that no lock is held over it.

_HIGHEST = "SELECT coalesce(max(version), 0) AS highest FROM entry"
_TOTALS = (
    "SELECT coalesce(sum(live), 0) AS live_sum, coalesce(sum(size), 0) AS size_sum FROM object"
)
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
    """The one row of a key that is not dead."""

    version: int
    token: bytes
    state: int
    length: int


class ObjectIndex:
    """The rows of `LocalDb`, by meaning. A method is one transaction, or part of the caller's."""

    def __init__(self, db: LocalDb) -> None:
        self._db = db

    @property
    def _cells(self) -> Cells:
        return self._db.cells

    def add_object(self, token: bytes, status: str, now: float) -> int:
        """Add an object that is not in the bucket yet, within a transaction.

        Returns its sequence.
        """
        sequence = self._db.add("sequence", 1)
        self._db.run(
            "INSERT INTO object VALUES (?, ?, ?, 0, 0, ?, ?, ?, NULL)",
            token, self._db.number("epoch"), sequence, status, now, now,
        )  # fmt: skip
        return sequence

    def mark_uploaded(self, token: bytes, size: int) -> None:
        """Record that an object of `size` bytes is in the bucket, within a transaction."""
        self._db.run("UPDATE object SET status = 'there', size = ? WHERE token = ?", size, token)
        self._db.add("physical", size)

    def add(self, record: Record, location: ObjectLocation, now: float) -> bool:
        """Add a version at `location`; return whether it is the newest one of its key."""
        with self._db.transaction() as db:
            current = self.current(record.key)
            self._raise_last_version(record.version)
            live = record.version > db.number("cleared") and (
                current is None or _supersedes(record.version, current)
            )
            if live and current is not None:
                self._mark_dead(record.key, current, now)
            db.run(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)",
                self._cells.key(record.key), record.version, location.token, LIVE if live else DEAD,
                location.length, self._cells.record(record) if live else None,
            )  # fmt: skip
            if live:
                db.add("keys", 1)
                self._add_live(location.token, location.length, now)
            return live

    def add_link(self, record: Record, token: bytes) -> None:
        """Have the object `token` name the location and the terms of a live version."""
        self._db.run(
            "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)",
            self._cells.key(record.key), record.version, token, LINK, _ELSEWHERE,
            self._cells.record(record),
        )  # fmt: skip

    def amend(self, record: Record) -> Record | None:
        """Give the live version of `record` its terms; return its changed record, or None."""
        with self._db.transaction() as db:
            known = self.find(record.key)
            if known is None or known.version != record.version:
                return None
            known = msgspec.structs.replace(known, terms=record.terms)
            db.run(
                "UPDATE entry SET record = ? WHERE key = ? AND version = ? AND state = 1",
                self._cells.record(known), self._cells.key(record.key), record.version,
            )  # fmt: skip
            return known

    def remove(self, key: str, version: int, token: bytes, now: float) -> bool:
        """Make `key` absent as of `version`; return whether the object `token` must name that."""
        with self._db.transaction() as db:
            self._raise_last_version(version)
            current = self.current(key)
            if current is not None and current.version > version:
                return False
            if current is not None:
                self._mark_dead(key, current, now)
            elif db.row("SELECT 1 FROM entry WHERE key = ?", self._cells.key(key)) is None:
                # No object names the key. The tombstone only stops a write that comes too late.
                self._add_tombstone(key, version, NOWHERE)
                return False
            self._add_tombstone(key, version, token)
            return True

    def clear(self, version: int, token: bytes, now: float) -> None:
        """Make every version up to `version` absent; the object `token` must name that."""
        with self._db.transaction() as db:
            self._raise_last_version(version)
            db.set("cleared", max(version, db.number("cleared")))
            db.run(
                "UPDATE entry SET state = 0, record = NULL WHERE state != 0 AND version <= ?",
                version,
            )
            self._recount(now)
            self._add_tombstone(EVERYTHING, version, token)

    def current(self, key: str) -> CurrentEntry | None:
        """Return the row of `key` that is not dead, or None."""
        found = self._db.row(
            "SELECT version, token, state, length FROM entry WHERE key = ? AND state IN (1, 2)",
            self._cells.key(key),
        )
        return None if found is None else CurrentEntry(*found)

    def find(self, key: str) -> Record | None:
        """Return the live record of `key`."""
        found = self._db.row(
            "SELECT record FROM entry WHERE key = ? AND state = 1", self._cells.key(key)
        )
        return None if found is None else self._cells.open_record(found[0])

    def removed(self, key: str) -> int:
        """Return the version as of which `key` is removed; 0 if no row says that it is."""
        current = self.current(key)
        if current is not None:
            return current.version if current.state == TOMBSTONE else 0
        return self._db.number("cleared")

    def scan(self, prefix: str, after: str) -> Iterator[Record]:
        """Yield live records in the order of their keys' bytes."""
        if not self._cells.ordered:
            yield from self._scan_unordered(prefix, after)
            return
        begin, last = prefix.encode(), after.encode()
        while True:
            page = self._db.rows(
                "SELECT key, record FROM entry WHERE key >= ? AND key > ? AND state = 1 "
                "ORDER BY key LIMIT ?", begin, last, _PAGE,
            )  # fmt: skip
            for key, record in page:
                if not key.startswith(begin):
                    return
                yield self._cells.open_record(record)
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def _scan_unordered(self, prefix: str, after: str) -> Iterator[Record]:
        """Yield the same where keys are encrypted: all of them are decrypted and sorted first."""
        rows = [key for (key,) in self._db.rows("SELECT key FROM entry WHERE state = 1")]
        for key in in_order(self._cells, rows, prefix, after):
            found = self._db.row("SELECT record FROM entry WHERE key = ? AND state = 1", key)
            if found is not None:
                yield self._cells.open_record(found[0])

    def contents(self, token: bytes) -> PackContents:
        """Return the content of an object's index: its live frames, removed keys, and links.

        A dead version is listed as the removal of all versions before it. The object that made it
        dead may not be in the bucket yet; if this machine is lost then, they must not come back.
        """
        stored, removed, linked = [], [], []
        for key, version, state, length, record in self._db.rows(
            "SELECT key, version, state, length, record FROM entry WHERE token = ?", token
        ):
            if state == LIVE:
                known = self._cells.open_record(record)
                place = ObjectLocation.decode(known.place)
                bare = msgspec.structs.replace(known, place=place.head)
                stored.append(PackEntry(place.offset, place.length, bare))
                continue
            live = self.find(self._cells.open_key(key)) if state == LINK else None
            if (
                live is not None
                and live.version == version
                and live.place == self._cells.open_record(record).place
            ):
                linked.append(live)
            else:
                removed.append(
                    (self._cells.open_key(key), version if length == _NO_FRAME else version - 1)
                )
        return PackContents(stored, removed, linked)

    def usage(self) -> Usage:
        """Return the totals."""
        number = self._db.number
        return Usage(number("live"), number("physical"), number("keys"))

    def load(self, token: bytes, contents: PackContents) -> None:
        """Add the rows of an object as its index lists them; `recompute` must follow."""
        rows: list[tuple[object, ...]] = []
        for item in contents.stored:
            head = b"" if self._db.seal is None else item.record.place
            place = ObjectLocation(token, item.offset, item.length, head).encode()
            record = msgspec.structs.replace(item.record, place=place)
            rows.append(
                (
                    self._cells.key(record.key),
                    record.version,
                    token,
                    LIVE,
                    item.length,
                    self._cells.record(record),
                )
            )
        rows += [
            (self._cells.key(key), version, token, TOMBSTONE, _NO_FRAME, None)
            for key, version in contents.removed
        ]
        rows += [
            (
                self._cells.key(one.key),
                one.version,
                token,
                LINK,
                _ELSEWHERE,
                self._cells.record(one),
            )
            for one in contents.linked
        ]
        self._db.run_many("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)", rows)

    def recompute(self, now: float) -> None:
        """Decide anew which rows are live: per key the highest version, then the latest object."""
        with self._db.transaction() as db:
            self._follow_links()
            (cleared,) = db.one(f"{_HIGHEST} WHERE key = ?", EVERYTHING.encode())
            db.set("cleared", cleared)
            db.run(
                "UPDATE entry SET state = 0, record = NULL "
                "WHERE state != 0 AND version <= ? AND key != ?", cleared, EVERYTHING.encode(),
            )  # fmt: skip
            db.run(_LOSERS)
            self._raise_last_version(*db.one(_HIGHEST))
            self._recount(now)

    def forget(self, token: bytes, now: float) -> None:
        """Delete an object that is lost, and every row in it."""
        with self._db.transaction() as db:
            db.run("DELETE FROM entry WHERE token = ?", token)
            db.run("DELETE FROM object WHERE token = ?", token)
            self._recount(now)

    def _follow_links(self) -> None:
        """Add the versions that links name, the latest link last, if their objects still exist."""
        for key, version, record in self._db.rows(
            "SELECT key, version, record FROM entry JOIN object USING (token) WHERE state = 3 "
            "ORDER BY object.epoch, object.sequence"
        ):
            place = ObjectLocation.decode(self._cells.open_record(record).place)
            found = self._db.row("SELECT size FROM object WHERE token = ?", place.token)
            if found is not None and place.offset + place.length <= found[0]:
                self._db.run(
                    "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)",
                    key, version, place.token, LIVE, place.length, record,
                )  # fmt: skip

    def _add_tombstone(self, key: str, version: int, token: bytes) -> None:
        self._db.run(
            "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, NULL)",
            self._cells.key(key), version, token, TOMBSTONE, _NO_FRAME,
        )  # fmt: skip

    def _mark_dead(self, key: str, current: CurrentEntry, now: float) -> None:
        self._db.run(
            "UPDATE entry SET state = 0, record = NULL WHERE key = ? AND version = ? AND token = ?",
            self._cells.key(key), current.version, current.token,
        )  # fmt: skip
        if current.state == LIVE:
            self._db.add("keys", -1)
            self._add_live(current.token, -current.length, now)

    def _add_live(self, token: bytes, length: int, now: float) -> None:
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
        totals = db.one(_TOTALS) + db.one("SELECT count(*) FROM entry WHERE state = 1")
        for name, value in zip(("live", "physical", "keys"), totals, strict=True):
            db.set(name, value)

    def _raise_last_version(self, version: int) -> None:
        if version > self._db.number("last_version"):
            self._db.set("last_version", version)


def _supersedes(version: int, current: CurrentEntry) -> bool:
    # An equal version is the same frame at a new place, unless it was removed since.
    return version > current.version or (version == current.version and current.state == LIVE)
