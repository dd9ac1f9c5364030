"""How dead space becomes free: live remains move into new packs, dead objects go after a while.

Not a rewrite in place: an object is only ever unlinked, whole, after the grace time.
What replaces an object is in the bucket before the object goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from memories.backends.bucket.ledger import EVERYTHING, NOWHERE, Ledger
from memories.backends.bucket.objectstore import ObjectStore
from memories.backends.bucket.pack import Index, finish
from memories.backends.bucket.place import Place, new_token, object_name
from memories.backends.bucket.shipper import Shipper
from memories.backends.bucket.state import State
from memories.entry import Record

LEAST_LIVE = 0.5  # An object whose live share is smaller is worth moving the rest of it.
MANIFEST_OBJECTS = 256
PASS_SECONDS = 3600.0

_NEEDLESS = """
DELETE FROM entry WHERE state = 2 AND key != ?1 AND NOT EXISTS (
    SELECT 1 FROM entry AS other WHERE other.key = entry.key AND other.state != 2
)
"""
_NEEDLESS_FOR_ALL = """
DELETE FROM entry WHERE state = 2 AND key = ?1 AND NOT EXISTS (
    SELECT 1 FROM entry AS other WHERE other.state = 0 AND other.version <= entry.version
)
"""


class Reclaimed(NamedTuple):
    """What one pass did."""

    moved: int  # Frames written again.
    unlinked: int  # Objects gone.
    freed: int  # Bytes of those.


class Reclaimer:
    """Moves and unlinks. One pass at a time; the caller sees to that."""

    def __init__(
        self,
        store: ObjectStore,
        state: State,
        ledger: Ledger,
        shipper: Shipper,
        read: Callable[[Record], memoryview],
        rewrite: Callable[[Record, memoryview], Record],
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._state = state
        self._ledger = ledger
        self._shipper = shipper
        self._read = read
        self._rewrite = rewrite
        self._wall = wall
        self._next = wall() + PASS_SECONDS

    def is_due(self) -> bool:
        """Return whether the latest pass was long enough ago."""
        return self._wall() >= self._next

    def reclaim(self, grace_seconds: float) -> Reclaimed:
        """Move what is live out of sparse objects, then unlink what was dead for long enough."""
        self._next = self._wall() + PASS_SECONDS
        self._forget_needless()
        moved = sum(self._move_frames(token) for token in self._sparse())
        self._shipper.flush()
        dead = self._dead(grace_seconds)
        # Values go before the tombstones that hide them, many of which are needless then.
        freed = [self._unlink(token) for token in dead if not self._has_tombstones(token)]
        self._forget_needless()
        rest = [token for token in dead if self._exists(token)]
        for token in rest:
            self._move_tombstones(token)
        self._shipper.flush()
        freed += [self._unlink(token) for token in rest]
        freed = [size for size in freed if size]
        return Reclaimed(moved, len(freed), sum(freed))

    def write_manifests(self, *, least: int = MANIFEST_OBJECTS) -> int:
        """Sum up objects that no manifest covers, when there are `least` of them."""
        self._shipper.flush()  # What replaced a frame is there before a manifest forgets the frame.
        tokens = [t for (t,) in self._state.rows(
            "SELECT token FROM object WHERE status = 'there' AND manifest IS NULL"
        )]  # fmt: skip
        written = 0
        while len(tokens) >= least:
            self._write_manifest(tokens[:MANIFEST_OBJECTS])
            del tokens[:MANIFEST_OBJECTS]
            written += 1
        return written

    def _forget_needless(self) -> None:
        self._state.run(_NEEDLESS, EVERYTHING.encode())
        self._state.run(_NEEDLESS_FOR_ALL, EVERYTHING.encode())
        self._state.run("DELETE FROM entry WHERE token = ? AND state = 0", NOWHERE)

    def _has_tombstones(self, token: bytes) -> bool:
        query = "SELECT 1 FROM entry WHERE token = ? AND state = 2"
        return self._state.row(query, token) is not None

    def _exists(self, token: bytes) -> bool:
        return self._state.row("SELECT 1 FROM object WHERE token = ?", token) is not None

    def _sparse(self) -> list[bytes]:
        return [token for (token,) in self._state.rows(
            "SELECT token FROM object WHERE status = 'there' AND live > 0 AND live < ? * size",
            LEAST_LIVE,
        )]  # fmt: skip

    def _move_frames(self, token: bytes) -> int:
        contents = self._ledger.contents(token)
        for item in contents.stored:
            place = Place(token, item.offset, item.length).encode()
            record = msgspec.structs.replace(item.record, place=place)
            self._rewrite(record, self._read(record))
        return len(contents.stored)

    def _dead(self, grace_seconds: float) -> list[bytes]:
        latest = self._wall() - grace_seconds
        return [token for (token,) in self._state.rows(
            "SELECT token FROM object WHERE status = 'leaving' OR (status = 'there' AND live = 0 "
            "AND retired_at <= ? AND token NOT IN (SELECT token FROM pin))", latest,
        )]  # fmt: skip

    def _move_tombstones(self, token: bytes) -> None:
        with self._state.transaction() as state:
            if self._has_tombstones(token):
                fresh, _ = self._shipper.open_pack()
                state.run("UPDATE entry SET token = ? WHERE token = ? AND state = 2", fresh, token)

    def _unlink(self, token: bytes) -> int:
        with self._state.transaction() as state:
            found = state.row(
                "SELECT size, manifest FROM object WHERE token = ? AND live = 0 AND NOT EXISTS "
                "(SELECT 1 FROM pin WHERE pin.token = object.token)", token,
            )  # fmt: skip
            if found is None:
                return 0  # Pinned since it was chosen.
            state.run("UPDATE object SET status = 'leaving' WHERE token = ?", token)
        self._store.delete(object_name(token))
        with self._state.transaction() as state:
            state.run("DELETE FROM entry WHERE token = ?", token)
            state.run("DELETE FROM object WHERE token = ?", token)
            state.add("physical", -found[0])
        self._drop_manifest(found[1])
        return int(found[0])

    def _drop_manifest(self, name: bytes | None) -> None:
        query = "SELECT 1 FROM object WHERE manifest = ?"
        if name is not None and self._state.row(query, name) is None:
            self._store.delete(f"manifests/{name.hex()}")

    def _write_manifest(self, tokens: list[bytes]) -> None:
        covers = {}
        for token in tokens:
            found = self._state.row(
                "SELECT epoch, sequence, size FROM object WHERE token = ?", token
            )
            if found is not None:
                covers[token] = (*found, self._ledger.contents(token))
        name = new_token()
        number = self._state.number
        index = Index(
            self._state.identity(), number("epoch"), number("sequence"), self._wall(),
            covers=covers,
        )  # fmt: skip
        self._store.put(f"manifests/{name.hex()}", [finish(index, 0)])
        with self._state.transaction() as state:
            for token in covers:
                state.run("UPDATE object SET manifest = ? WHERE token = ?", name, token)
