"""Small frames and tombstones that wait on this machine until they are uploaded in packs.

They lie in `LocalDb`: durable, readable, and already at their final location. One pack is open and
takes additions. A full pack is sealed; it leaves this machine only after its upload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memories.backends.bucket.local_db import LIVE, LocalDb
from memories.backends.bucket.location import ObjectLocation, new_token
from memories.backends.bucket.object_index import ObjectIndex
from memories.backends.bucket.objectstore import Buffer
from memories.backends.bucket.pack import padding
from memories.errors import UnavailableError

_STAGED = "SELECT token FROM object WHERE status IN ('open', 'sealed')"
_SEALED = "SELECT 1 FROM object WHERE status = 'sealed'"
_MAX_PACKS = 16  # Staged at once; a bucket that does not answer must not fill the disk.


class StagedPacks:
    """The packs that are not in the bucket yet. Every method may be called from any thread."""

    def __init__(
        self,
        url: str,
        db: LocalDb,
        index: ObjectIndex,
        *,
        pack_bytes: int,
        wall: Callable[[], float],
    ) -> None:
        self._url = url
        self._db = db
        self._index = index
        self._pack_bytes = pack_bytes
        self._wall = wall
        self.has_sealed = db.row(_SEALED) is not None
        # Held in RAM, so that reading a frame that is in the bucket needs no query here.
        self._tokens = {token for (token,) in db.rows(_STAGED)}
        # Packs that are being uploaded: their index is written, and cannot name a later change.
        self._indexed: set[bytes] = set()

    def add(self, frame: Sequence[Buffer], length: int) -> ObjectLocation:
        """Append a frame to the open pack, within a transaction, and return its location.

        Raises:
            UnavailableError: too much is staged already; the bucket must take some of it first.
        """
        token, offset = self.open_pack()
        db, size = self._db, length + padding(length)
        db.run("INSERT INTO staged VALUES (?, ?, ?)", token, offset, b"".join(frame))
        db.run("UPDATE object SET size = size + ? WHERE token = ?", size, token)
        db.add("physical", size)
        if offset + size >= self._pack_bytes:
            self.seal()
        return ObjectLocation(token, offset, length)

    def open_pack(self) -> tuple[bytes, int]:
        """Return the pack that takes additions and its size so far, within a transaction.

        Raises:
            UnavailableError: too much is staged already; the bucket must take some of it first.
        """
        found = self._db.row("SELECT token, size FROM object WHERE status = 'open'")
        if found is not None:
            return found[0], found[1]
        (waiting,) = self._db.one("SELECT count(*) FROM object WHERE status = 'sealed'")
        if waiting >= _MAX_PACKS:
            raise UnavailableError(
                f"{waiting} packs of small values are staged, and {self._url} has taken none of "
                "them: they are safe on the disk; restore the connection"
            )
        token = new_token()
        self._index.add_object(token, "open", self._wall())
        self._tokens.add(token)
        return token, 0

    def seal(self) -> None:
        """Close the open pack, if there is one: the next upload takes it."""
        if self._db.run("UPDATE object SET status = 'sealed' WHERE status = 'open'"):
            self.has_sealed = True

    def sealed(self) -> list[tuple[bytes, int, int]]:
        """Return the token, sequence and size of each sealed pack, the oldest first."""
        rows = self._db.rows(
            "SELECT token, sequence, size FROM object WHERE status = 'sealed' ORDER BY sequence"
        )
        return [(token, sequence, size) for token, sequence, size in rows]

    def recheck_sealed(self) -> None:
        """Find out whether packs are sealed.

        Thread 1 reads that none is; thread 2 seals one and sets `has_sealed`; thread 1 clears it.
        That pack waits for the next flush.
        """
        self.has_sealed = self._db.row(_SEALED) is not None

    def read(self, location: ObjectLocation) -> memoryview | None:
        """Return a frame that is still staged, or None."""
        if location.token not in self._tokens:
            return None
        found = self._db.row(
            "SELECT frame FROM staged WHERE token = ? AND offset = ?",
            location.token, location.offset,
        )  # fmt: skip
        return None if found is None else memoryview(found[0])

    def frames(self, token: bytes) -> list[bytes]:
        """Return the frames of a pack, in the order of their offsets."""
        rows = self._db.rows("SELECT frame FROM staged WHERE token = ? ORDER BY offset", token)
        return [frame for (frame,) in rows]

    def contains(self, token: bytes) -> bool:
        """Return whether `token` is a pack that is still staged."""
        query = "SELECT 1 FROM object WHERE token = ? AND status IN ('open', 'sealed')"
        return self._db.row(query, token) is not None

    def mark_indexed(self, token: bytes) -> None:
        """Record that the index of a pack is about to be written."""
        self._indexed.add(token)

    def is_indexed(self, token: bytes) -> bool:
        """Return whether the index of an object is written, so that it names no later change."""
        return token in self._indexed or not self.contains(token)

    def forget(self, token: bytes) -> None:
        """Drop a pack that was uploaded, or that nothing needs, from the memory of this object."""
        self._tokens.discard(token)
        self._indexed.discard(token)

    def staged_since(self) -> float | None:
        """Return when the oldest staged pack was begun, None if nothing is staged."""
        found: float | None
        (found,) = self._db.one(
            "SELECT min(created_at) AS oldest FROM object WHERE status IN ('open', 'sealed')"
        )
        return found

    def keys(self) -> list[str]:
        """Return the keys of the values that are staged."""
        rows = self._db.rows(
            "SELECT DISTINCT entry.key FROM entry JOIN object USING (token) "
            f"WHERE object.status IN ('open', 'sealed') AND entry.state = {LIVE}"
        )
        return sorted(self._db.cells.open_key(key) for (key,) in rows)
